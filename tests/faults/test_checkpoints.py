"""Attempts that go on from the last checkpoint of the one that died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, ReportRow
from tests.conftest import Run, make_config, rank_pids, run_for_real
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit, curves

ONE_TRIAL = {
    "batch_sizes": [16],
    "search": {"lr": [0.1]},
    "confirm": {"seeds": 1},
    "budget": {"epochs": 6},
    "hardware": {"world_size": 2},
    "recovery": {"checkpoint_every_s": 0},
}


class Killing:
    """Kills a rank of the trial when it has reported so many times, and does something else before that."""

    def __init__(self, at_report: int, before: Callable[[], None] = lambda: None) -> None:
        self._at_report, self._before = at_report, before
        self._others, self._reports = rank_pids(), 0  # of studies before, on their way out

    def __call__(self, row: AnyRow) -> None:
        self._reports += isinstance(row, ReportRow)
        if self._reports == self._at_report:
            self._reports += 1  # once
            self._before()
            os.kill((rank_pids() - self._others).pop(), signal.SIGKILL)


def updates_of(path: Path) -> int:
    return int(path.name.rpartition("@")[2].partition("-")[0])


def shelved(folder: Path) -> dict[str, list[Path]]:
    """The checkpoints in a study's folder by their trials, the newest first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"{StudyPaths.CHECKPOINTS}/*.pt"), key=updates_of, reverse=True):
        found.setdefault(path.name.rpartition("@")[0], []).append(path)
    return found


def course(run: Run) -> list[tuple[int, float, float, float]]:
    """What the one trial of a run reported, to the last bit, and what came of it."""
    (curve,) = curves(run.rows).values()
    return [(row.updates, row.train_loss, row.val_loss or 0.0, row.val_accuracy) for row in curve]


@pytest.fixture(scope="module")
def undisturbed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_for_real(make_config(**ONE_TRIAL), tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.thorough
def test_a_trial_whose_rank_is_killed_goes_on_from_its_last_checkpoint_to_the_same_end(
    undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("rank killed from outside")
    line.inject()
    run = run_for_real(make_config(**ONE_TRIAL), tmp_path, Killing(at_report=4))
    reports = [row.updates for row in undisturbed.of(ReportRow)]
    assert len(reports) == 6
    # The fourth report was decided on, and the rank killed on the way to the fifth.
    assert [row.from_updates for row in run.of(AttemptRow)] == [0, reports[3]]
    assert [row.updates for row in run.of(ReportRow)] == reports
    assert course(run) == course(undisturbed)
    assert [end.outcome for end in run.of(EndRow)] == ["completed"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    line.survived(audit(run.rows))


@pytest.mark.thorough
@pytest.mark.parametrize("keep", [2, 1])
def test_a_real_trial_whose_newest_checkpoint_is_torn_ends_the_same_to_the_last_bit(
    keep: int, undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("checkpoint damaged")
    line.inject()

    reports = [row.updates for row in undisturbed.of(ReportRow)]
    others, hurt = rank_pids(), list[Path]()

    def tear_and_kill(row: AnyRow) -> None:
        """Once the fourth report's checkpoint lies there, and the ledger knows of it."""
        if isinstance(row, DecisionRow) and row.updates == reports[3] and not hurt:
            hurt.extend(next(iter(shelved(tmp_path).values()))[:1])
            hurt[0].write_bytes(hurt[0].read_bytes()[:-99])
            os.kill((rank_pids() - others).pop(), signal.SIGKILL)

    trial = ONE_TRIAL | {"recovery": {"checkpoint_every_s": 0, "checkpoints": keep}}
    run = run_for_real(make_config(**trial), tmp_path, tear_and_kill)
    assert updates_of(hurt[0]) == reports[3]
    assert [row.from_updates for row in run.of(AttemptRow)] == [0, reports[2] if keep == 2 else 0]
    assert course(run) == course(undisturbed)
    assert [end.outcome for end in run.of(EndRow)] == ["completed"]
    line.survived(audit(run.rows))
