"""A metric and its negative, of which less is better, give the same rankings, frontiers and choices."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml

import study
from study.analysis.replay.curves import curves_of
from study.api.results import StudyResults
from study.errors import DataError
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, EndRow, ReportRow, StudyRow
from study.ledger.store import encode, read
from study.planning.trials import make_plan
from study.reporting.exports import summary_record
from study.tuning.progress import Progress
from tests.frozen.test_frozen import STUDIES

METRIC = "val_accuracy"
TARGETS = ("budget", "report")


def with_objective(config: dict[str, Any], sign: int) -> dict[str, Any]:
    """The config of a study that is judged by the accuracy times `sign`, shown as a plain number."""
    mode = "max" if sign > 0 else "min"
    changed = config | {"objective": {"metric": METRIC, "mode": mode, "show": "number", "insist": True}}
    for section in TARGETS:
        inner = dict(changed.get(section) or {})
        target = inner.pop(f"target_{METRIC}", None)
        if target is not None:
            inner["target"] = {"value": sign * target} if section == "budget" else sign * target
        changed[section] = inner
    return changed


def with_sign(row: AnyRow, sign: int) -> AnyRow:
    if isinstance(row, StudyRow):
        return row.model_copy(update={"config": with_objective(row.config, sign)})
    if isinstance(row, ReportRow):
        tested = None if row.test_accuracy is None else sign * row.test_accuracy
        return row.model_copy(update={METRIC: sign * (row.val_accuracy or 0.0), "test_accuracy": tested})
    if isinstance(row, EndRow):
        names = ("final", "best", "test")
        return row.model_copy(
            update={name: None if (value := getattr(row, name)) is None else sign * value for name in names}
        )
    return row


def judged_by(sign: int, source: Path, folder: Path) -> StudyResults:
    """The frozen study as if it had been judged by the accuracy times `sign`."""
    folder.mkdir()
    frozen = folder / "frozen"
    frozen.mkdir()
    StudyPaths(frozen).ledger.write_bytes(lzma.decompress((source / f"{StudyPaths.LEDGER}.xz").read_bytes()))
    config = yaml.safe_load((source / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(with_objective(config, sign)))
    StudyPaths(folder).ledger.write_bytes(b"".join(encode(with_sign(row, sign)) for row in read(frozen).rows))
    return study.load(folder)


def mirrored(record: Any, negate: frozenset[str]) -> Any:
    """The record with the numbers under the metric's names negated, and their intervals turned round."""
    if isinstance(record, list):
        return [mirrored(item, negate) for item in record]
    if not isinstance(record, dict):
        return record
    return {key: turned(value) if key in negate else mirrored(value, negate) for key, value in record.items()}


def turned(value: Any) -> Any:
    return [-end for end in reversed(value)] if isinstance(value, list) else None if value is None else -value


@pytest.fixture(scope="module", params=STUDIES, ids=lambda path: path.name)
def negated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyResults, StudyResults]:
    folder = tmp_path_factory.mktemp(request.param.name)
    return judged_by(1, request.param, folder / "more"), judged_by(-1, request.param, folder / "less")


def test_everything_is_the_same_but_for_the_sign(negated: tuple[StudyResults, StudyResults]) -> None:
    names = frozenset(f"{place}{METRIC}{ci}" for place in ("", "best_", "target_") for ci in ("", "_ci"))
    records = [json.loads(json.dumps(summary_record(results.summary))) for results in negated]
    for record in records:
        for critical in filter(None, (record["critical"], *record["other_criticals"])):
            del critical["target_why"]  # says most or best
        del record["objective"], record["study"]["config"], record["study"]["config_hash"]
        for claim in record["claims"]:
            for finding in claim["findings"]:
                del finding["statement"]  # says higher or lower
                if record is records[1] and finding["effect_unit"] == METRIC and finding["effect"] is not None:
                    finding["effect"], finding["ci"] = -finding["effect"], turned(finding["ci"])
            for row in (claim["details"] or {"figures": []})["figures"]:
                if row["name"] == "validation accuracy":
                    for cell in row["cells"]:
                        cell["mean"] = None if cell["mean"] is None else abs(cell["mean"])
                        cell["ci"] = None if cell["ci"] is None else sorted(map(abs, cell["ci"]))
    assert records[1] == mirrored(records[0], names | {"test_accuracy"})


def test_the_same_rates_are_chosen(negated: tuple[StudyResults, StudyResults]) -> None:
    chosen = []
    for results in negated:
        plan = make_plan(results.plan.config)
        progress = Progress(plan, read(results.folder).rows)
        chosen.append({cell: progress.chosen_rate(cell) for cell in plan.cells})
    assert chosen[0] == chosen[1]


def test_a_replay_sees_the_same_curves(negated: tuple[StudyResults, StudyResults]) -> None:
    curves = []
    for results in negated:
        try:
            curves.append(curves_of(results.summary))
        except DataError as error:
            curves.append(str(error))
    assert curves[0] == curves[1]


def test_figures_are_mirrored(negated: tuple[StudyResults, StudyResults]) -> None:
    if not negated[0].summary.points:
        return
    more, less = (results.figure("frontier") for results in negated)
    for up, down in zip(more.data, less.data, strict=True):
        assert list(up.x) == list(down.x)
        assert list(up.y) == pytest.approx([-y for y in down.y])
    assert more.layout.yaxis.title.text.endswith("higher is better)")
    assert less.layout.yaxis.title.text.endswith("lower is better)")
