"""A study on a real Ray that a limit cuts, and that goes on."""

from collections import Counter
from pathlib import Path

import pytest

from study.analysis.summary.summarize import summarize
from study.cluster.target import LOCAL
from study.config.sections import LimitName, LimitsConfig
from study.errors import LedgerError
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, LimitRow, ReportRow
from study.ledger.store import read
from study.planning.trials import make_plan
from study.tuning.driver import resume_study, run_study
from tests.conftest import Run, make_config, run_for_real

# Trials of eight reports: when four have come, and two more after the cut, none has ended, even if one trial made all.
GRID = {
    "scheduler": {"kind": "grid"}, "hardware": {"cpus_per_rank": 2}, "confirm": {"seeds": 1}, "budget": {"epochs": 8},
}  # fmt: skip


def curves(run: Run) -> dict[str, list[tuple[int, float, float]]]:
    found: dict[str, list[tuple[int, float, float]]] = {}
    for row in run.of(ReportRow):
        found.setdefault(row.trial_id, []).append((row.updates, row.val_loss, row.val_accuracy))
    return found


@pytest.mark.slow
def test_a_study_that_was_cut_ends_as_one_that_was_not(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_for_real(make_config(**GRID), tmp_path / "whole")
    reports: set[tuple[str, int]] = set()

    def count(row: AnyRow) -> None:
        if isinstance(row, ReportRow):
            reports.add((row.trial_id, row.updates))

    def reports_for_hours(
        self: LimitsConfig, device_h: float, wall_h: float, usd: float | None, wait_h: float
    ) -> dict[LimitName, object]:
        """Count reports as device-hours, so that no clock decides where the study is cut."""
        return {"device_hours": (float(len(reports)), self.device_hours)}

    monkeypatch.setattr(LimitsConfig, "against", reports_for_hours)
    folder = tmp_path / "cut"
    plans = {allowed: make_plan(make_config(**GRID, limits={"device_hours": allowed})) for allowed in (4.0, 13.0, 1e3)}
    first = run_study(plans[4.0], folder, LOCAL, None, count)
    assert not first.finished
    assert first.cut is not None
    assert (first.cut.allowed, first.cut.spent) == (4, 4)
    rows = read(folder).rows
    at = rows.index(first.cut)
    # Nothing starts after it, and each running trial reports once, or twice if it trained on at the first.
    assert not any(isinstance(row, AttemptRow) for row in rows[at:])
    late = Counter(row.trial_id for row in rows[at:] if isinstance(row, ReportRow))
    assert len(late) <= 2
    decided = {
        name: [r.decision for r in rows[at:] if isinstance(r, DecisionRow) and r.trial_id == name] for name in late
    }
    for name, decisions in decided.items():
        assert decisions[:-1] == ["continue"] * (late[name] - 1)
        assert late[name] <= 2
        assert decisions[-1] in ("cut", "stop")
    held = {path.name.rpartition("-")[0] for path in (folder / "checkpoints").iterdir()}
    cuts = {row.trial_id: row.updates for row in rows if isinstance(row, DecisionRow) and row.decision == "cut"}
    assert held == {f"{name}@{updates}" for name, updates in cuts.items()}
    assert cuts
    attempts = sorted(row.lease_id for row in rows if isinstance(row, AttemptRow))
    assert attempts == sorted(row.lease_id for row in rows if isinstance(row, LeaseRow))
    cut = summarize(rows, plans[4.0]).cut
    assert cut is not None
    assert (cut.limit, len(cut.unconfirmed)) == ("device_hours", 2)

    # The same limit again: no driver starts. Another key: refused. More: on to the end, cut once more.
    assert resume_study(plans[4.0], folder, LOCAL, None, lambda row: None).cut is not None
    other = make_plan(make_config(**GRID, limits={"device_hours": 13}, seed=1))
    with pytest.raises(LedgerError, match=r"another config; changed: seed$"):
        resume_study(other, folder, LOCAL, None, lambda row: None)
    assert resume_study(plans[13.0], folder, LOCAL, None, count).cut is not None
    assert resume_study(plans[1e3], folder, LOCAL, None, count).finished
    run = Run(plans[1e3], folder, list(read(folder).rows))
    assert {row.trial_id: row.outcome for row in run.of(EndRow)} == {
        row.trial_id: row.outcome for row in whole.of(EndRow)
    }
    assert curves(run) == curves(whole)
    resumed = [row for row in run.of(AttemptRow) if row.from_updates]
    assert {(row.trial_id, row.from_updates) for row in resumed} >= set(cuts.items())
    assert len(run.of(LimitRow)) == 3
    points = [(p.batch_size, p.lr, p.quality) for p in summarize(run.rows, run.plan).points]
    assert points == [(p.batch_size, p.lr, p.quality) for p in summarize(whole.rows, whole.plan).points]
    assert list((folder / "checkpoints").iterdir()) == []
