"""One rank of a group is killed, stopped or stuck, while another group of the same study is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from study.analysis.summary.summarize import summarize
from study.config.loader import to_yaml
from study.config.schema import StudyConfig
from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow
from tests.conftest import Run, make_config, rank_pids, run_for_real
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit, curves

UPDATES = 8  # between reports
BOUNDS_S = {"STOP": {"silent_s": 12.0}, "stuck": {"stuck_s": 15.0}}  # the others stay as they are
ENDS_WITHIN_S = 480.0  # the whole study, however it is hit, on the slowest of machines
pytestmark = pytest.mark.timeout(ENDS_WITHIN_S, func_only=True)


def study(once: Path, at: str, how: str, updates: int = 0) -> StudyConfig:
    """Three trials, of which two run at a time; each report comes with a checkpoint."""
    return make_config(
        batch_sizes=[8],
        search={"lr": [0.1]},
        confirm={"seeds": 3},
        budget={"epochs": 8},
        hardware={"world_size": 2},
        recovery={"checkpoint_every_s": 0} | BOUNDS_S.get(how, {}),
        workload={
            "kind": "custom", "module": "tests.faults.faulty_rank:FaultyModule", "data": "tests.user_code:Data",
            "train_samples": 64, "val_accuracy": "val_acc",
            "module_args": {"once": str(once), "at": at, "updates": updates, "how": how},
        },
    )  # fmt: skip


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


def family() -> set[int]:
    """Processes of groups."""
    return rank_pids() | rank_pids("TrialRun")


def run_and_clear(config: StudyConfig, folder: Path, observe: Callable[[AnyRow], None] = lambda row: None) -> Run:
    """Run a study, and wait until nothing is left of its processes."""
    others = family()  # of studies before, on their way out
    run = run_for_real(config, folder, observe)
    while family() - others:
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
    run = run_and_clear(study(tmp_path / "once", at, how, updates), tmp_path / "s")
    lost = check_one_lost(run, undisturbed, from_updates)
    assert lost.why.startswith("no rank made progress" if how == "stuck" else "rank 1 on ")
    if how in BOUNDS_S:
        (bound_s,) = BOUNDS_S[how].values()
        assert bound_s <= lost.phases_s["lost"] <= 2 * bound_s + 5
    line.survived(audit(run.rows))


@pytest.mark.thorough
def test_a_rank_that_dies_of_the_end_of_its_trial_costs_the_next_trial_nothing(
    undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("rank killed as its trial ends")
    line.inject()
    run = run_and_clear(study(tmp_path / "once", "end", "KILL", 8 * UPDATES), tmp_path / "s")
    assert (tmp_path / "once").exists()
    ends = {row.trial_id: (row.outcome, row.attempts) for row in run.of(EndRow)}
    assert ends == dict.fromkeys(course(undisturbed), ("completed", 1))
    assert course(run) == course(undisturbed)
    assert len({row.group_id for row in run.of(LeaseRow)}) == 2
    line.survived(audit(run.rows))


@pytest.mark.thorough
def test_a_rank_killed_before_it_has_met_the_others_costs_one_attempt(
    undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    hit, over = list[int](), Event()

    def kill_the_first() -> None:
        while not hit and not over.wait(0.01):
            for pid in list(rank_pids("RankActor.create_rank"))[:1]:  # before that, Ray itself starts another process
                os.kill(pid, signal.SIGKILL)
                hit.append(pid)

    line = faults("rank killed as it starts")
    line.inject()
    killer = Thread(target=kill_the_first)
    killer.start()
    try:
        run = run_and_clear(study(tmp_path / "once", "", "KILL"), tmp_path / "s")
    finally:
        over.set()
        killer.join()
    assert hit
    check_one_lost(run, undisturbed, from_updates=0)
    line.survived(audit(run.rows))


@pytest.mark.thorough
def test_the_process_that_drives_a_group_is_as_mortal_as_a_rank(
    undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    others, killed = rank_pids("TrialRun"), list[ReportRow]()

    def kill_one_at_work(row: AnyRow) -> None:
        if isinstance(row, ReportRow) and row.updates == 3 * UPDATES and not killed:
            killed.append(row)
            os.kill((rank_pids("TrialRun") - others).pop(), signal.SIGKILL)

    line = faults("group's driver killed")
    line.inject()
    run = run_and_clear(study(tmp_path / "once", "", "KILL"), tmp_path / "s", kill_one_at_work)
    (lost,) = (row for row in run.of(LeaseRow) if row.reason == "lost")
    assert lost.why == "the process that drives its group died"
    # Which of the two groups it was, and how far that had come, is up to the system.
    after = next(row for row in run.of(AttemptRow) if (row.trial_id, row.attempt) == (lost.trial_id, 2))
    known = [row.updates for row in run.of(ReportRow) if (row.trial_id, row.attempt) == (lost.trial_id, 1)]
    check_one_lost(run, undisturbed, from_updates=after.from_updates)
    assert after.from_updates == max(known, default=0)
    line.survived(audit(run.rows))


@pytest.mark.thorough
def test_a_group_whose_driver_dies_in_hand_over_is_replaced(
    undisturbed: Run, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("group's driver killed in hand-over")
    line.inject()
    run = run_and_clear(study(tmp_path / "once", "hand-over", "KILL driver"), tmp_path / "s")
    _, group_id = (tmp_path / "once").read_text().split()  # whom it killed
    assert {row.trial_id: row.outcome for row in run.of(EndRow)} == dict.fromkeys(course(undisturbed), "completed")
    assert course(run) == course(undisturbed)
    assert group_id in {row.group_id for row in run.of(LeaseRow)}
    # By a fresh one, or by the other if that was soon idle.
    assert run.of(AttemptRow)[-1].group_id != group_id
    line.survived(audit(run.rows))


@pytest.mark.thorough
def test_what_is_lost_is_told_in_one_line_and_without_a_stack(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    (tmp_path / "s.yaml").write_text(to_yaml(study(tmp_path / "once", "setup", "KILL")))
    line = faults("rank killed in setup")
    line.inject()
    ran = subprocess.run(
        [sys.executable, "-m", "study", "run", "s.yaml", "--out", "s", "--cpus", "4", "--no-try"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=ENDS_WITHIN_S, check=True,
    )  # fmt: skip
    told = ran.stdout.splitlines()
    (lost,) = (index for index, text in enumerate(told) if "is lost" in text)
    assert ": attempt 1 is lost after " in told[lost]
    assert "rank 1 on " in told[lost]
    assert told[lost].endswith(" died; it is tried again, from its last checkpoint if there is one")
    # Beside it, nothing but a line for each trial before the table.
    before = told[: next(index for index, text in enumerate(told) if text.startswith("[3/3]")) + 1]
    assert [text[:5] for index, text in enumerate(before) if index != lost] == ["[1/3]", "[2/3]", "[3/3]"]
    line.survived()


@pytest.mark.slow
def test_a_killed_rank_is_another_attempt_and_billed(
    local_ray: None, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    killed: list[str] = []
    others = rank_pids()  # of studies before, on their way out

    def kill_once(row: AnyRow) -> None:
        if isinstance(row, ReportRow) and not killed:
            killed.append(row.trial_id)
            os.kill((rank_pids() - others).pop(), signal.SIGKILL)

    config = make_config(batch_sizes=[16], search={"lr": [0.1]}, confirm={"seeds": 1}, hardware={"world_size": 2})
    line = faults("rank killed from outside")
    line.inject()
    run = run_for_real(config, tmp_path, kill_once)
    (end,) = run.of(EndRow)
    assert (end.trial_id, end.outcome, end.attempts) == (killed[0], "completed", 2)
    assert [row.attempt for row in run.of(AttemptRow)] == [1, 2]
    first, second = run.of(LeaseRow)
    assert (first.attempt, first.reason) == (1, "lost")
    assert first.group_id != second.group_id
    assert first.phases_s["train"] > 0
    assert first.phases_s["lost"] > 0
    (trial,) = summarize(run.rows, run.plan).trials
    assert trial.cost.billed_device_h == pytest.approx(2 * (first.billed_s + second.billed_s) / 3600)
    assert len(trial.curve) == 3  # the second attempt's
    line.survived(audit(run.rows))
