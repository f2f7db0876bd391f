"""Confirmation until it is decided: which seeds are added, what the ledger says of them, and a driver that dies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pytest

from study.analysis.summary.summarize import summarize
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.ledger.schema import AnyRow, AttemptRow, EndRow, SeedRow, StudyRow
from study.planning.trials import Plan, TrialSpec, make_plan
from study.reporting.text.verdict import verdict
from study.training.messages import RankReport
from study.tuning.progress import Progress
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

UNTIL_DECIDED = {"seeds": 3, "at_most": 6, "until": "decided"}
CLOSE, FAR = {16: 0.90, 64: 0.893}, {16: 0.95, 64: 0.60}
PACE = {16: 1.0, 64: 0.25}  # seconds of an interval


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    return make_plan(config(batch_sizes=[16, 64], confirm=UNTIL_DECIDED))


def accuracy(spec: TrialSpec, means: Mapping[int, float]) -> float:
    noise = np.random.default_rng([spec.seed_index, spec.cell.batch_size]).standard_normal()
    return means[spec.cell.batch_size] + 0.01 * float(noise)


def driven(
    plan: Plan,
    means: Mapping[int, float],
    slots: int = 1,
    memory: Memory | None = None,
    fails: Collection[str] = (),
) -> Memory:
    """The ledger of a driver whose trials end at these accuracies, give or take; those that `fails` names fail."""
    memory = Memory() if memory is None else memory

    def report(spec: TrialSpec, updates: int) -> RankReport:
        worked_s = (spec.report_at.index(updates) + 1) * PACE[spec.cell.batch_size]
        return RankReport(
            updates=updates, samples=spec.samples_at(updates), epochs=spec.epochs_at(updates), lr=spec.lr,
            train_loss=1.0, train_accuracy=None, val_loss=1.0, val_accuracy=accuracy(spec, means), test_accuracy=None,
            samples_per_s=1.0, phases_s={"train": worked_s, "validate": 0.0}, final=updates == spec.total_updates,
        )  # fmt: skip

    def fail(spec: TrialSpec, updates: int) -> str | None:
        return "broken" if spec.trial_id in fails else None

    with without_ray(slots * plan.cells[0].world_size):
        FakeTune(plan, memory, FakeStore(), slots, PACE, reports=report, fails=fail).run()
    return memory


def seeds_run(rows: Sequence[AnyRow]) -> dict[int, int]:
    runs = [row.batch_size for row in rows if isinstance(row, AttemptRow) and row.phase == "confirm"]
    return {batch: runs.count(batch) for batch in set(runs)}


def added(rows: Sequence[AnyRow]) -> list[SeedRow]:
    return [row for row in rows if isinstance(row, SeedRow)]


def test_a_clear_study_runs_the_first_seeds_only(plan: Plan) -> None:
    rows = driven(plan, FAR).rows
    assert seeds_run(rows) == {16: 3, 64: 3}
    assert not added(rows)
    assert Progress(plan, rows).finished


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_an_open_study_adds_seeds_and_says_why_before_they_run(plan: Plan, slots: int) -> None:
    rows = driven(plan, CLOSE, slots).rows
    assert added(rows)
    assert sum(seeds_run(rows).values()) == 6 + len(added(rows))
    assert max(seeds_run(rows).values()) <= 6
    for row in added(rows):
        begun = next(i for i, one in enumerate(rows) if isinstance(one, AttemptRow) and one.trial_id == row.trial_id)
        assert rows.index(row) < begun
        assert row.open == "batch 64 on 1 rank"
        assert row.probability is not None
        assert 0.1 < row.probability < 0.9
    assert Progress(plan, rows).finished


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("means", [CLOSE, FAR], ids=["close", "far"])
def test_the_rows_before_a_seed_are_why_it_was_added(plan: Plan, means: Mapping[int, float], slots: int) -> None:
    rows = driven(plan, means, slots).rows
    for at, row in enumerate(rows):
        if isinstance(row, SeedRow):
            found = Progress(plan, rows[:at]).seed_to_add()
            assert found is not None
            spec, why = found
            assert (spec.trial_id, why.open, why.probability) == (row.trial_id, row.open, row.probability)
            assert not Progress(plan, rows[:at]).finished
    assert Progress(plan, rows).seed_to_add() is None


@pytest.mark.parametrize("hundredths_h", range(1, 12))
def test_a_limit_puts_the_decision_off(config: Callable[..., StudyConfig], hundredths_h: int) -> None:
    """Wherever the study is cut, it goes on to the same seeds as if it had not been."""
    plan = make_plan(config(batch_sizes=[16, 64], confirm=UNTIL_DECIDED))
    whole = driven(plan, CLOSE)
    cut = make_plan(config(batch_sizes=[16, 64], confirm=UNTIL_DECIDED, limits={"device_hours": hundredths_h / 1000}))
    memory = driven(cut, CLOSE)
    driven(plan, CLOSE, memory=memory)
    assert Progress(plan, memory.rows).finished
    assert [row.trial_id for row in added(memory.rows)] == [row.trial_id for row in added(whole.rows)]


def test_seeds_that_failed_are_replaced(plan: Plan) -> None:
    lost = {"confirm-b64-w1-s1", "confirm-b64-w1-s2"}
    rows = driven(plan, FAR, fails=lost).rows
    assert [(row.trial_id, row.probability) for row in added(rows)] == [("confirm-b64-w1-s4", None)]
    completed = [row.trial_id for row in rows if isinstance(row, EndRow) and row.outcome == "completed"]
    assert {"confirm-b64-w1-s3", "confirm-b64-w1-s4"} <= set(completed)
    assert Progress(plan, rows).finished
    lost |= {f"confirm-b64-w1-s{seed}" for seed in range(3, 7)}
    assert Progress(plan, driven(plan, FAR, fails=lost).rows).finished  # no seed is left, and none is waited for


def test_no_group_is_kept_for_seeds_that_are_not_decided_on(plan: Plan) -> None:
    """It would wait at the expense of the trial that it ran last."""
    rows = driven(plan, CLOSE).rows
    firsts = [i for i, row in enumerate(rows) if isinstance(row, AttemptRow) and row.phase == "confirm"][:6]
    progress = Progress(plan, rows[: firsts[-1] + 1])  # the last of the first seeds runs
    assert progress.next_assignment(5) is not None  # this driver is another one, and runs it again
    assert progress.next_assignment(5) is None
    assert not progress.wants_groups(1)


def test_the_report_says_how_it_ended(plan: Plan) -> None:
    for means, says in ((CLOSE, "not decided"), (FAR, "the choice is decided")):
        rows = driven(plan, means).rows
        written = {"config": plan.config.model_dump(mode="json")}
        summary = summarize(
            [row.model_copy(update=written) if isinstance(row, StudyRow) else row for row in rows], plan
        )
        assert summary.seeds_added == len(added(rows))
        assert summary.planned_trials == len(summary.trials)
        (line,) = (
            line for line in verdict(summary) if line.startswith(f"Confirmation added {summary.seeds_added} seeds")
        )
        assert says in line


@pytest.mark.parametrize(
    ("confirm", "says"),
    [
        ({"until": "decided"}, "at_most goes with until: decided"),
        ({"at_most": 5}, "at_most goes with until: decided"),
        ({"seeds": 3, "at_most": 3, "until": "decided"}, "an at_most above them"),
        ({"seeds": 1, "at_most": 3, "until": "decided"}, "two seeds or more to begin with"),
    ],
)
def test_halves_of_the_setting_are_refused(
    config: Callable[..., StudyConfig], confirm: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        config(confirm=confirm)


def test_several_world_sizes_are_refused(config: Callable[..., StudyConfig]) -> None:
    with pytest.raises(ConfigError, match="decided needs one world size"):
        make_plan(config(hardware={"world_size": [1, 2]}, confirm=UNTIL_DECIDED))
