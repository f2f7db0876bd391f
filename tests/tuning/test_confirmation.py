"""Confirmation until it is decided: which seeds are added, what the ledger says of them, and a driver that dies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from study.analysis.summary.summarize import summarize
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.ledger.schema import AnyRow, AttemptRow, EndRow, SeedRow, StudyRow
from study.planning.trials import Plan, TrialSpec, make_plan
from study.reporting.text.verdict import verdict
from study.tuning.progress import Progress
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray
from tests.tuning.test_progress import STAMP, end, ended

UNTIL_DECIDED = {"seeds": 3, "at_most": 6, "until": "decided"}
CLOSE, FAR = {16: 0.90, 64: 0.893}, {16: 0.95, 64: 0.60}


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    return make_plan(config(batch_sizes=[16, 64], confirm=UNTIL_DECIDED))


def accuracy(spec: TrialSpec, means: dict[int, float]) -> float:
    noise = np.random.default_rng([spec.seed_index, spec.cell.batch_size]).standard_normal()
    return means[spec.cell.batch_size] + 0.01 * float(noise)


def played(plan: Plan, means: dict[int, float]) -> list[AnyRow]:
    """The rows of a study that runs one trial after the other, as a driver writes them."""
    progress, rows = Progress(plan), list[AnyRow]()

    def write(*new: AnyRow) -> None:
        for row in new:
            rows.append(row)
            progress.follow(row)

    while (assignment := progress.next_assignment(1)) is not None:
        spec = assignment.spec
        begun, reported, over = ended(spec, accuracy(spec, means))
        write(begun, reported.model_copy(update={"device_seconds": 1000 / spec.cell.batch_size}), over)
        for spec, why in progress.seeds_to_add():
            write(SeedRow(**STAMP, trial_id=spec.trial_id, open=why.open, probability=why.probability))
        for trial_id in progress.dropped():
            spec = next(s for cell in plan.cells for s in plan.confirm_trials(cell, 1.0) if s.trial_id == trial_id)
            write(end(spec, "stopped"))
    assert progress.finished
    return rows


def seeds_run(rows: list[AnyRow]) -> dict[int, int]:
    runs = [row.batch_size for row in rows if isinstance(row, AttemptRow) and row.phase == "confirm"]
    return {batch: runs.count(batch) for batch in set(runs)}


def test_a_clear_study_runs_the_first_seeds_only(plan: Plan) -> None:
    rows = played(plan, FAR)
    assert seeds_run(rows) == {16: 3, 64: 3}
    assert not any(isinstance(row, SeedRow) for row in rows)
    spare = [row for row in rows if isinstance(row, EndRow) and row.outcome == "stopped"]
    assert len(spare) == 6  # they never began


def test_an_open_study_adds_seeds_and_says_why_before_they_run(plan: Plan) -> None:
    rows = played(plan, CLOSE)
    added = [row for row in rows if isinstance(row, SeedRow)]
    assert added
    assert sum(seeds_run(rows).values()) == 6 + len(added)
    assert max(seeds_run(rows).values()) <= 6
    for row in added:
        begun = next(
            i for i, other in enumerate(rows) if isinstance(other, AttemptRow) and other.trial_id == row.trial_id
        )
        assert rows.index(row) < begun
        assert row.open in ("batch 16 on 2 ranks", "batch 64 on 2 ranks", "batch 16 on 1 rank", "batch 64 on 1 rank")
        assert 0.1 < row.probability < 0.9


@pytest.mark.parametrize("means", [CLOSE, FAR], ids=["close", "far"])
def test_any_prefix_of_the_rows_gives_the_decision_that_was_taken(plan: Plan, means: dict[int, float]) -> None:
    rows = played(plan, means)
    for at, row in enumerate(rows):
        if isinstance(row, SeedRow) and not isinstance(rows[at - 1], SeedRow):
            decided = [
                (spec.trial_id, why.open, why.probability) for spec, why in Progress(plan, rows[:at]).seeds_to_add()
            ]
            written = [
                (r.trial_id, r.open, r.probability) for r in rows[at : at + len(decided)] if isinstance(r, SeedRow)
            ]
            assert decided == written
        if isinstance(row, AttemptRow):
            assignment = Progress(plan, rows[:at]).next_assignment(1)
            assert assignment is not None
            assert assignment.spec.trial_id == row.trial_id
    assert Progress(plan, rows).finished


def test_a_driver_runs_until_it_is_decided_and_the_report_says_so(config: Callable[..., StudyConfig]) -> None:
    plan = make_plan(config(batch_sizes=[16, 64], confirm=UNTIL_DECIDED))
    memory = Memory()
    with without_ray(2 * plan.cells[0].world_size):
        assert FakeTune(plan, memory, FakeStore(), 2, {16: 0.5, 64: 0.5}).run()
    written = {"config": plan.config.model_dump(mode="json")}
    rows = [row.model_copy(update=written) if isinstance(row, StudyRow) else row for row in memory.rows]
    summary = summarize(rows, plan)
    ends = [row.trial_id for row in memory.rows if isinstance(row, EndRow)]
    assert len(ends) == len(set(ends)) == len(plan.search) + plan.n_confirm
    added = sum(isinstance(row, SeedRow) for row in memory.rows)
    assert summary.seeds_added == added
    assert summary.planned_trials == len(summary.trials)
    assert any(line.startswith(f"Confirmation added {added} seeds to the 3 of each") for line in verdict(summary))


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
