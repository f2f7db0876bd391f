"""A ridge search as a driver runs it: the decisions of the simulator, whatever ends in between."""

from __future__ import annotations

from typing import Any

from study.analysis.replay.simulate import Course, simulate
from study.analysis.summary.summarize import summarize
from study.ledger.schema import AttemptRow, EndRow, ReportRow
from study.ledger.state import StudyState
from study.planning.trials import Plan, TrialSpec, make_plan
from study.reporting.live.progress import StudyProgress
from study.schedulers.ridge import Ridge
from study.tuning.policies import make_policy
from study.tuning.progress import Progress
from tests.conftest import make_config
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

INTERVAL_S = {16: 0.75, 32: 0.625, 64: 0.5, 128: 0.375}


def ridge_plan(**changes: Any) -> Plan:
    """Four batch sizes, six rates, nine reports a trial."""
    base: dict[str, Any] = {
        "batch_sizes": list(INTERVAL_S),
        "search": {"lr": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]},
        "budget": {"epochs": 9},
        "confirm": {"seeds": 2},
        "scheduler": {"kind": "ridge"},
    }
    return make_plan(make_config(**base | changes))


def accuracy(spec: TrialSpec, done: int) -> float:
    """The accuracy that the fake Tune makes up after so many reports; the best rate is 0.1."""
    return round(1 - abs(spec.base_lr - 0.1) - 1 / (1 + done) - spec.seed_index / 1e3, 6)


def driven(plan: Plan, ledger: Memory, slots: int = 1) -> bool:
    with without_ray(slots):
        return FakeTune(plan, ledger, FakeStore(), slots, INTERVAL_S).run()


def test_a_driver_takes_the_decisions_of_the_simulator() -> None:
    plan, ledger = ridge_plan(), Memory()
    assert driven(plan, ledger)
    courses = {
        spec.trial_id: Course(
            spec.report_shares,
            [accuracy(spec, done) for done in range(1, 10)],
            [done * INTERVAL_S[spec.batch.global_batch] for done in range(1, 10)],
        )
        for spec in plan.search
    }
    played = simulate(make_policy(plan, plan.search), courses, slots=1)
    reached = {name: ran.reports for name, ran in played.trials.items()}
    reported = dict.fromkeys(reached, 0)
    for row in ledger.rows:
        if isinstance(row, ReportRow) and row.trial_id in reported:
            reported[row.trial_id] += 1
    assert reported == reached
    assert 0 in reached.values()


def test_trials_that_never_began_are_ended_and_neither_billed_nor_planned() -> None:
    plan, ledger = ridge_plan(), Memory()
    assert driven(plan, ledger)
    begun = {row.trial_id for row in ledger.rows if isinstance(row, AttemptRow)}
    never = [row for row in ledger.rows if isinstance(row, EndRow) and row.trial_id not in begun]
    assert never
    assert {(row.outcome, row.attempts, row.final, row.error) for row in never} == {("stopped", 0, None, None)}
    summary = summarize(ledger.rows, plan)
    assert summary.planned_trials == len(begun) == len(summary.trials)
    # The grid that the search is compared with is the whole one, at the pace of each batch size.
    assert summary.stopping is not None
    assert summary.stopping.grid_device_s == sum(6 * 9 * seconds for seconds in INTERVAL_S.values())


def test_the_chosen_rates_are_the_best() -> None:
    plan, ledger = ridge_plan(), Memory()
    assert driven(plan, ledger, slots=3)
    assert {point.lr for point in summarize(ledger.rows, plan).points} == {0.1}


def test_a_chosen_rate_at_the_edge_of_the_search_is_noted() -> None:
    for rates, edges in (([0.03, 0.1, 0.3], ()), ([0.1, 0.3, 1.0], ("lowest",)), ([0.01, 0.1], ())):
        plan, ledger = ridge_plan(batch_sizes=[16, 64], search={"lr": rates}), Memory()
        assert driven(plan, ledger)
        notes = [note for note in summarize(ledger.rows, plan).notes if "one may lie beyond" in note]
        assert notes == [
            f"The chosen learning rate is the {edge} of those searched for batch 16 on 1 rank(s), batch 64 on 1 "
            "rank(s): a better one may lie beyond."
            for edge in edges
        ]


def test_rows_give_the_state_of_the_driver_that_wrote_them() -> None:
    """The policy of a driver that goes on has the same trials running as the rows, wherever the other was killed."""
    plan, ledger = ridge_plan(), Memory()
    assert driven(plan, ledger, slots=3)
    searched = {spec.trial_id for spec in plan.search}
    for end in range(7, len(ledger.rows), len(ledger.rows) // 9):
        progress = Progress(plan, ledger.rows[:end])
        policy = progress._policies[1]
        assert isinstance(policy, Ridge)
        running = {attempt.trial_id for _, attempt in progress.state.running}
        assert set(policy._running) == running & searched


def test_a_batch_size_that_fails_at_every_rate_leaves_nothing_to_wait_for() -> None:
    """Second seeds of rates that failed are never begun; the study has finished all the same."""
    plan, ledger = ridge_plan(search={"lr": [0.03, 0.1, 0.3], "seeds": 2}), Memory()
    with without_ray(1):
        fails = FakeTune(
            plan, ledger, FakeStore(), 1, INTERVAL_S,
            fails=lambda spec, updates: "too large" if spec.batch.global_batch == 128 else None,
        )  # fmt: skip
        assert fails.run()
    summary = summarize(ledger.rows, plan)
    assert {trial.outcome for trial in summary.trials if trial.batch_size == 128} == {"failed"}
    assert summary.planned_trials == sum(trial.outcome is not None for trial in summary.trials)
    progress = StudyProgress(plan, StudyState(ledger.rows))
    assert progress._remaining()["search", plan.cells[0]] == 0
