"""Studies on a real Ray whose search trials pause and go on."""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from study.analysis.replay.curves import curves_of
from study.analysis.replay.simulate import Course, simulate
from study.analysis.summary.summarize import summarize
from study.cluster.target import LOCAL
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow
from study.ledger.store import read
from study.planning.trials import Cell, make_plan
from study.schedulers.frontier_asha import COST_TRIALS, PROFILES, FrontierAsha, grades
from study.tuning.driver import resume_study, run_study
from tests.conftest import FRONTIER, Run, make_config, run_for_real


def outcomes(run: Run) -> dict[Cell, list[str]]:
    """Return how the search trials of each cell ended; audited ones are named `audited`."""
    audited = {row.trial_id for row in run.of(DecisionRow) if row.decision == "audit"}
    ends = {row.trial_id: row.outcome for row in run.of(EndRow)}
    by_cell = defaultdict(list)
    for spec in run.plan.search:
        by_cell[spec.cell].append("audited" if spec.trial_id in audited else ends[spec.trial_id])
    return by_cell


def first_costs(run: Run) -> dict[Cell, float]:
    """Return the device-seconds of a whole trial of each cell, by its first reports, which decide its grade."""
    specs = {spec.trial_id: spec for spec in run.plan.search}
    costs: dict[Cell, dict[str, float]] = defaultdict(dict)
    for row in run.of(ReportRow):
        spec = specs.get(row.trial_id)
        if spec is not None and len(costs[spec.cell]) < COST_TRIALS:
            costs[spec.cell].setdefault(row.trial_id, row.device_seconds * spec.total_updates / row.updates)
    return {cell: min(some.values()) for cell, some in costs.items()}


@pytest.mark.slow
def test_every_batch_size_completes_as_many_trials_as_its_bracket_keeps(frontier_run: Run) -> None:
    grade = grades({cell: 6 * seconds for cell, seconds in first_costs(frontier_run).items()})
    for cell, ended in outcomes(frontier_run).items():
        last_rung = PROFILES["balanced"][grade[cell]].rungs(6, 2, [i / 9 for i in range(1, 10)])[-1]
        assert ended.count("completed") == last_rung.keep >= 2
        assert ended.count("completed") + ended.count("stopped") + ended.count("audited") == 6


@pytest.mark.slow
def test_only_the_best_of_those_compared_go_on(frontier_run: Run) -> None:
    """Successive halving, repeated from the reports alone."""
    ends = {row.trial_id: row.outcome for row in frontier_run.of(EndRow)}
    audited = {row.trial_id for row in frontier_run.of(DecisionRow) if row.decision == "audit"}
    scores = {(row.trial_id, row.epochs): row.val_accuracy for row in frontier_run.of(ReportRow)}
    for cell in frontier_run.plan.cells:
        members = [spec.trial_id for spec in frontier_run.plan.search if spec.cell == cell]
        winners = [name for name in members if ends[name] == "completed" and name not in audited]
        pauses = defaultdict(set)
        for row in frontier_run.of(DecisionRow):
            if row.decision == "pause" and row.trial_id in members:
                pauses[row.updates].add(row.trial_id)
        last = max(pauses)
        epochs = last / next(spec.updates_per_epoch for spec in frontier_run.plan.search if spec.cell == cell)
        beaten = pauses[last] - set(winners)
        assert min(scores[name, epochs] for name in winners) >= max(
            (scores[name, epochs] for name in beaten), default=0.0
        )


@pytest.fixture(scope="module")
def grid_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same study with nothing stopped; with as many threads a rank, on whose number the last bits depend."""
    config = make_config(**FRONTIER | {"scheduler": {"kind": "grid"}})
    return run_for_real(config, tmp_path_factory.mktemp("grid"))


@pytest.mark.slow
def test_the_simulator_takes_the_same_decisions_on_the_same_curves(frontier_run: Run, grid_run: Run) -> None:
    curves = curves_of(summarize(grid_run.rows, grid_run.plan))
    cost = first_costs(frontier_run)
    courses = {
        curve.trial_id: Course(
            curve.shares, curve.quality, [cost[curve.cell] * share for share in curve.shares], ranks=2
        )
        for curve in curves
    }
    order = list(grid_run.plan.search)
    random.Random(grid_run.plan.config.seed).shuffle(order)  # as a driver does: it decides between equal scores
    policy = FrontierAsha(
        {spec.trial_id: spec.cell for spec in order},
        {curve.cell: curve.shares for curve in curves},
        PROFILES["balanced"], min_completions=2, synchronous=True,
    )  # fmt: skip
    simulated = defaultdict(list)
    for step in simulate(policy, courses, slots=2).events:
        simulated[step.kind].append(step.trial)
    decided = defaultdict(list)
    for row in frontier_run.of(DecisionRow):
        decided[row.decision].append(row.trial_id)
    ends = {row.trial_id: row.outcome for row in frontier_run.of(EndRow) if row.trial_id in courses}
    stopped = {name for name, outcome in ends.items() if outcome == "stopped"} | set(decided["audit"])
    assert set(simulated["drop"]) == stopped
    assert set(simulated["complete"]) == ends.keys() - stopped
    assert sorted(simulated["pause"]) == sorted(decided["pause"])


@pytest.mark.slow
def test_pausing_does_not_change_a_curve(frontier_run: Run, grid_run: Run) -> None:
    paused = {row.trial_id for row in frontier_run.of(DecisionRow) if row.decision == "pause"}
    ends = {row.trial_id: row.outcome for row in frontier_run.of(EndRow)}
    assert not any(row.decision == "pause" for row in grid_run.of(DecisionRow))

    def curves(run: Run) -> dict[str, list[tuple[int, float, float]]]:
        found = defaultdict(list)
        for row in run.of(ReportRow):
            found[row.trial_id].append((row.updates, row.train_loss, row.val_loss))
        return found

    halved, whole = curves(frontier_run), curves(grid_run)
    resumed = [name for name in paused if ends[name] == "completed"]
    assert len(resumed) >= 6
    for name in halved.keys() & {spec.trial_id for spec in grid_run.plan.search}:
        assert halved[name] == whole[name][: len(halved[name])]
    assert all(len(halved[name]) == 9 for name in resumed)


@pytest.mark.slow
def test_each_pause_is_an_attempt_that_ended_and_is_billed(frontier_run: Run) -> None:
    attempts = defaultdict(list)
    for row in frontier_run.of(AttemptRow):
        attempts[row.trial_id].append(row)
    pauses = defaultdict(list)
    for row in frontier_run.of(DecisionRow):
        if row.decision == "pause":
            pauses[row.trial_id].append(row.updates)
    for name, tries in attempts.items():
        assert [row.from_updates for row in tries] == [0, *pauses[name]][: len(tries)]
    assert sorted(row.lease_id for row in frontier_run.of(LeaseRow)) == sorted(
        row.lease_id for rows in attempts.values() for row in rows
    )
    snapshots = [lease.phases_s["checkpoint"] for lease in frontier_run.of(LeaseRow) if lease.trial_id in pauses]
    assert max(snapshots) > 0
    for lease in frontier_run.of(LeaseRow):
        assert sum(lease.phases_s.values()) == pytest.approx(lease.billed_s, rel=0.01)


@pytest.mark.slow
def test_no_checkpoint_outlives_its_trial(frontier_run: Run) -> None:
    assert list((frontier_run.folder / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_audited_trials_end_and_are_summarized(frontier_run: Run) -> None:
    audited = [row for row in frontier_run.of(DecisionRow) if row.decision == "audit"]
    ends = {row.trial_id: row for row in frontier_run.of(EndRow)}
    assert audited
    assert {ends[row.trial_id].outcome for row in audited} == {"completed"}
    summary = summarize(frontier_run.rows, frontier_run.plan)
    assert summary.stopping is not None
    audit = summary.stopping.audit
    assert audit is not None
    assert audit.trials == len(audited)
    assert 0 <= audit.missed_ci[0] <= audit.missed / audit.trials <= audit.missed_ci[1] <= 1
    assert 0.2 < summary.stopping.grid_fraction < 0.8


class Interrupted(Exception):
    """Simulates the death of a driver."""


@pytest.mark.slow
def test_a_study_resumed_among_paused_trials_decides_as_an_undisturbed_one(
    local_ray: None, frontier_run: Run, tmp_path: Path
) -> None:
    config = make_config(**FRONTIER | {"scheduler": {"kind": "frontier_asha", "audit": 0.3}})
    plan = make_plan(config)
    pauses = 0

    def die(row: AnyRow) -> None:
        nonlocal pauses
        pauses += isinstance(row, DecisionRow) and row.decision == "pause"
        if pauses == 12:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_study(plan, tmp_path, LOCAL, None, die)
    before = read(tmp_path).rows
    held = list((tmp_path / "checkpoints").iterdir())
    assert held
    assert resume_study(plan, tmp_path, LOCAL, None, lambda row: None).finished
    run = Run(plan, tmp_path, list(read(tmp_path).rows))
    assert run.rows[: len(before)] == list(before)
    assert any(row.from_updates for row in run.of(AttemptRow))
    # Rungs are shares of a trial; only the strictness of a bracket depends on the clock.
    if {c: o.count("completed") for c, o in outcomes(run).items()} == {
        c: o.count("completed") for c, o in outcomes(frontier_run).items()
    }:
        assert outcomes(run) == outcomes(frontier_run)
    assert sorted(row.lease_id for row in run.of(AttemptRow)) == sorted(row.lease_id for row in run.of(LeaseRow))
    ends = [row.trial_id for row in run.of(EndRow)]
    assert len(ends) == len(set(ends)) == len(plan.search) + plan.n_confirm


@pytest.mark.slow
def test_the_multi_objective_policy_runs(local_ray: None, tmp_path: Path) -> None:
    config = make_config(scheduler={"kind": "mo_asha"}, hardware={"world_size": 2, "cpus_per_rank": 2})
    run = run_for_real(config, tmp_path)
    ended = [row.trial_id for row in run.of(EndRow)]
    assert len(ended) == len(set(ended)) == len(run.plan.search) + run.plan.n_confirm
