"""Ledgers that were written before the package was laid out anew: every figure read from them stays as it was."""

from __future__ import annotations

import json
import lzma
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.analysis.summary.summarize import summarize
from study.api.plans import recorded
from study.ledger.paths import StudyPaths
from study.ledger.store import read
from study.reporting.exports import summary_record

STUDIES = sorted(path.parent for path in Path(__file__).parent.glob("*/config.yaml"))
# Keys of summary.json that have another name since, old to new, with dots between; lists are passed through.
RENAMED: dict[str, str] = {}
# Keys that are gone because nothing read them; nothing may take their place.
REMOVED = re.compile(r"frontiers\.\w+\.p_dominates\b.*")
WRITER = "protocol_version"  # of the program that summarizes, not of the rows
# Ends of texts that read differently since, old to new.
REWORDED = {
    " planned trials are over.": " planned trials have ended.",
    "the config's target_val_accuracy": "the config's target",
    " and a target_val_accuracy, of budget or report": " and a target of the objective, of budget or report",
    " end equally accurate, within report.margin": " end equally good, within report.margin",
    " it is as accurate or better, within report.margin": " it is as good or better, within report.margin",
    " equally accurate, within report.margin, after fewer updates": (
        " equally good, within report.margin, after fewer updates"
    ),
}
# These studies ran fewer shapes of a step than the model of its time has parameters: all points of a ridge fit equally
# well, and where on it the search ends depends on the processor. The residuals are what the runs determine.
_STEP_MODEL = "throughput_model"
UNDETERMINED = {
    f"{_STEP_MODEL}.{name}" for name in ("compute_s", "compute_s_per_sample", "sync_s", "sync_s_per_rank", "overlap")
}
RESIDUAL_TOLERANCE = 1e-6  # of a logarithm of seconds


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a frozen study, as `study run` left it."""
    (tmp_path / "config.yaml").write_bytes((request.param / "config.yaml").read_bytes())
    StudyPaths(tmp_path).ledger.write_bytes(lzma.decompress((request.param / f"{StudyPaths.LEDGER}.xz").read_bytes()))
    return tmp_path


def figures(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a record with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from figures(item, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from figures(item, f"{at}[{i}]")
    else:
        yield at, value


def renamed(at: str) -> str:
    """The place under the names of today."""
    for old, new in RENAMED.items():
        if at == old or at.startswith((f"{old}.", f"{old}[")):
            return new + at[len(old) :]
    return at


def reworded(value: Any) -> Any:
    """The value, a text in the words of today."""
    for old, new in REWORDED.items():
        if isinstance(value, str) and value.endswith(old):
            return value.removesuffix(old) + new
    return value


def same(at: str, one: Any, other: Any) -> bool:
    """Equal, or floats that sums in another order may give."""
    if at in UNDETERMINED:
        return type(one) is type(other)
    if isinstance(one, float) and isinstance(other, float):
        if at.startswith(f"{_STEP_MODEL}.residuals["):
            return math.isclose(one, other, abs_tol=RESIDUAL_TOLERANCE)
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(("folder", "name"), [(path, path.name) for path in STUDIES], indirect=["folder"])
def test_every_figure_is_as_it_was(folder: Path, name: str) -> None:
    frozen = json.loads(lzma.decompress((Path(__file__).parent / name / "summary.json.xz").read_bytes()))
    contents = read(folder)
    assert contents.damage is None
    now = dict(figures(summary_record(summarize(contents.rows, recorded(folder)))))
    expected = {
        renamed(at): reworded(value) for at, value in figures(frozen) if not REMOVED.fullmatch(at) and at != WRITER
    }
    assert not any(REMOVED.fullmatch(at) for at in now)
    assert len(expected) > 200
    wrong = {at: (value, now.get(at)) for at, value in expected.items() if not same(at, value, now.get(at, ...))}
    assert not wrong
