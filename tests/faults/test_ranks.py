"""One rank of a group is killed, stopped or stuck, while another group of the same study is at work."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from study.ledger.rows import AttemptRow, EndRow, LeaseRow
from study.plan.config import StudyConfig
from tests.conftest import Run, make_config, rank_pids, run_for_real
from tests.faults.books import audit, curves
from tests.faults.conftest import Injections

UPDATES = 8  # between reports
SILENT_S, STUCK_S = 5.0, 15.0
ENDS_WITHIN_S = 240.0  # the whole study, however it is hit, on the slowest of machines


def study(once: Path, at: str, how: str, updates: int = 0) -> StudyConfig:
    """Three trials, of which two run at a time; each report comes with a checkpoint."""
    return make_config(
        batch_sizes=[8],
        search={"lr": [0.1]},
        confirm={"seeds": 3},
        budget={"epochs": 8},
        hardware={"world_size": 2},
        recovery={"checkpoint_every_s": 0, "silent_s": SILENT_S, "stuck_s": STUCK_S},
        workload={
            "kind": "custom", "module": "tests.faults.victim:Victim", "data": "tests.own:Data", "train_samples": 64,
            "val_accuracy": "val_acc",
            "module_args": {"once": str(once), "at": at, "updates": updates, "how": how},
        },
    )  # fmt: skip


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails what hangs."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"not over within {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def course(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    """What each trial reported, to the last bit."""
    return {
        trial_id: [(row.updates, row.train_loss, row.val_loss, row.val_accuracy) for row in curve]
        for trial_id, curve in curves(run.rows).items()
    }


@pytest.fixture(scope="module")
def undisturbed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_for_real(study(folder / "once", "", "KILL"), folder / "s")


def hit(config: StudyConfig, once: Path, folder: Path) -> Run:
    """Run a study whose victim is hit, and wait until nothing is left of its processes."""
    others = rank_pids()  # of studies before, on their way out
    with within(ENDS_WITHIN_S):
        run = run_for_real(config, folder)
        assert once.exists()
        while rank_pids() - others:
            time.sleep(0.05)
    return run


def check_one_lost(run: Run, undisturbed: Run, from_updates: int) -> LeaseRow:
    """One attempt of one trial is lost and billed, its trial goes on from there, and nothing else has changed."""
    (lost,) = (row for row in run.of(LeaseRow) if row.reason == "lost")
    assert lost.phases_s["lost"] > 0
    ends = {row.trial_id: (row.outcome, row.attempts) for row in run.of(EndRow)}
    assert ends == {trial_id: ("completed", 2 if trial_id == lost.trial_id else 1) for trial_id in course(undisturbed)}
    assert [row.from_updates for row in run.of(AttemptRow) if row.trial_id == lost.trial_id] == [0, from_updates]
    assert course(run) == course(undisturbed)
    return lost


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("how", "at", "updates", "from_updates"),
    [
        ("KILL", "setup", 0, 0),
        ("KILL", "hand-over", 0, 0),
        ("KILL", "step", 3 * UPDATES + 4, 3 * UPDATES),
        ("KILL", "validation", 4 * UPDATES, 3 * UPDATES),
        ("KILL", "checkpoint", 4 * UPDATES, 3 * UPDATES),
        ("STOP", "step", 3 * UPDATES + 4, 3 * UPDATES),
        ("stuck", "step", 3 * UPDATES + 4, 3 * UPDATES),
    ],
)
def test_the_trial_goes_on_from_its_last_checkpoint_and_others_are_untouched(
    undisturbed: Run,
    tmp_path: Path,
    faults: Callable[[str], Injections],
    how: str,
    at: str,
    updates: int,
    from_updates: int,
) -> None:
    verb = {"KILL": "killed", "STOP": "stopped", "stuck": "stuck"}[how]
    line = faults(f"rank {verb} in {at}")
    line.inject()
    run = hit(study(tmp_path / "once", at, how, updates), tmp_path / "once", tmp_path / "s")
    lost = check_one_lost(run, undisturbed, from_updates)
    if how != "KILL":
        bound_s = SILENT_S if how == "STOP" else STUCK_S
        assert bound_s <= lost.phases_s["lost"] <= 2 * bound_s + 5
    line.survived(audit(run.rows))
