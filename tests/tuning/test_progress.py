"""What runs next in a study, from its rows."""

from collections.abc import Callable

import pytest

from study.config.schema import StudyConfig
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, Outcome, ReportRow
from study.planning.trials import Cell, Plan, TrialSpec, make_plan
from study.tuning.progress import Progress

STAMP = {"at_s": 0.0, "written": "2026-01-01T00:00:00.000+00:00"}


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    return make_plan(config(hardware={"world_size": [1, 2]}))


def attempt(spec: TrialSpec, number: int = 1, from_updates: int = 0) -> AttemptRow:
    return AttemptRow(
        **STAMP, trial_id=spec.trial_id, attempt=number, lease_id="l", group_id="g", device="cpu", nodes=("n",),
        setup_s=0.5, phase=spec.phase,
        batch_size=spec.batch.global_batch, world_size=spec.batch.world_size, micro_batch=spec.batch.micro_batch,
        accumulation=spec.batch.accumulation, norm_batch=None, base_lr=spec.base_lr, lr=spec.lr,
        seed_index=spec.seed_index, updates_per_epoch=spec.updates_per_epoch, total_updates=spec.total_updates,
        from_updates=from_updates,
    )  # fmt: skip


def report(spec: TrialSpec, accuracy: float, updates: int | None = None, loss: float = 1.0) -> ReportRow:
    return ReportRow(
        **STAMP, trial_id=spec.trial_id, attempt=1, updates=updates or spec.total_updates, samples=1, epochs=1.0,
        lr=0.1, train_loss=1.0, train_accuracy=0.5, val_loss=loss, val_accuracy=accuracy, test_accuracy=None,
        samples_per_s=1.0, device_seconds=1.0, phases_s={},
    )  # fmt: skip


def end(spec: TrialSpec, outcome: Outcome = "completed") -> EndRow:
    return EndRow(
        **STAMP, trial_id=spec.trial_id, attempts=1, outcome=outcome, final_val_accuracy=None,
        best_val_accuracy=None, test_accuracy=None, error=None,
    )  # fmt: skip


def ended(spec: TrialSpec, accuracy: float, outcome: Outcome = "completed", updates: int | None = None) -> list[AnyRow]:
    """Return the rows of a trial that begins, reports once and ends."""
    return [attempt(spec), report(spec, accuracy, updates), end(spec, outcome)]


def rates_of(plan: Plan, cell: Cell) -> tuple[TrialSpec, TrialSpec]:
    low, high = (spec for spec in plan.search if spec.cell == cell)
    return low, high


def hand_out_all(progress: Progress) -> list[TrialSpec]:
    """Return all trials that are handed out before any of them ends."""
    handed = []
    while (assignment := progress.next_assignment(1000)) is not None:
        handed.append(assignment.spec)
    return handed


def test_search_trials_come_in_the_order_of_the_seed_one_world_size_at_a_time(plan: Plan) -> None:
    order = hand_out_all(Progress(plan))
    assert order == hand_out_all(Progress(plan))
    assert sorted(spec.trial_id for spec in order) == sorted(
        spec.trial_id for spec in plan.search if spec.batch.world_size == 1
    )
    rows = [row for spec in plan.search if spec.batch.world_size == 1 for row in ended(spec, 0.5)]
    confirm = hand_out_all(progress := Progress(plan, rows))
    assert {(spec.phase, spec.batch.world_size) for spec in confirm} == {("confirm", 1)}
    assert progress.wants_groups(2)
    assert not progress.wants_groups(1)  # all of it is handed out
    for spec in confirm:
        progress.follow(end(spec))
    assert {spec.batch.world_size for spec in hand_out_all(progress)} == {2}


def test_the_best_rate_among_the_longest_trained_is_chosen(plan: Plan) -> None:
    cell = plan.cells[0]
    low, high = rates_of(plan, cell)
    assert Progress(plan).chosen_rate(cell) is None
    assert Progress(plan, ended(low, 0.8) + ended(high, 0.9)).chosen_rate(cell) == high.base_lr
    # An early lead is no end: the stopped one does not count while another got to the end.
    early = ended(low, 0.95, "stopped", updates=10)
    assert Progress(plan, early + ended(high, 0.9)).chosen_rate(cell) == high.base_lr
    assert Progress(plan, early + ended(high, 0.9, "stopped", updates=10)).chosen_rate(cell) == low.base_lr


@pytest.mark.parametrize("outcome", ["diverged", "failed"])
def test_a_diverged_or_failed_rate_is_never_chosen(plan: Plan, outcome: Outcome) -> None:
    cell = plan.cells[0]
    low, high = rates_of(plan, cell)
    assert Progress(plan, ended(low, 0.99, outcome) + ended(high, 0.5)).chosen_rate(cell) == high.base_lr
    assert Progress(plan, ended(low, 0.99, outcome) + ended(high, 0.99, outcome)).chosen_rate(cell) is None


def test_the_rate_is_chosen_by_its_mean_over_seeds(config: Callable[..., StudyConfig]) -> None:
    plan = make_plan(config(batch_sizes=[16], search={"lr": [0.05, 0.2], "seeds": 2}))
    accuracies = {(0.05, 0): 0.95, (0.05, 1): 0.7, (0.2, 0): 0.9, (0.2, 1): 0.85}
    rows = [row for spec in plan.search for row in ended(spec, accuracies[spec.base_lr, spec.seed_index])]
    assert Progress(plan, rows).chosen_rate(plan.cells[0]) == 0.2


def test_trials_that_a_dead_driver_left_run_again_first(plan: Plan) -> None:
    first, second = hand_out_all(Progress(plan))[:2]
    progress = Progress(plan, [attempt(first), report(first, 0.5, updates=48), *ended(second, 0.4)])
    again = progress.next_assignment(1000)
    assert again is not None
    assert (again.spec, again.from_updates) == (first, 0)
    assert first not in hand_out_all(progress)


def test_at_most_as_many_trials_as_groups_fit_are_handed_out(plan: Plan) -> None:
    progress = Progress(plan)
    assert [progress.next_assignment(ranks=2) is not None for _ in range(3)] == [True, True, False]
    # Even if the cluster has shrunk below a single group, one waits for it to grow.
    assert [Progress(plan).next_assignment(ranks=0) is not None for _ in range(2)] == [True, True]


def test_a_cell_is_confirmed_as_soon_as_its_own_search_has_ended(plan: Plan) -> None:
    cell = plan.cells[0]
    low, high = rates_of(plan, cell)
    progress = Progress(plan, ended(low, 0.9) + ended(high, 0.8))
    handed = hand_out_all(progress)
    confirm = [spec for spec in handed if spec.phase == "confirm"]
    assert {(spec.cell, spec.base_lr) for spec in confirm} == {(cell, low.base_lr)}
    assert len(confirm) == plan.config.confirm.seeds
    progress.follow(end(confirm[0]))
    assert not progress.finished


# Two trials come to their rung, pause, and one of them is taken up again.


@pytest.fixture
def halving(config: Callable[..., StudyConfig]) -> Plan:
    return make_plan(
        config(
            batch_sizes=[16], search={"lr": [0.05, 0.1, 0.2]}, budget={"epochs": 27},
            scheduler={"kind": "frontier_asha", "min_completions": 1, "audit": 1.0},
        )
    )  # fmt: skip


def pause(spec: TrialSpec, updates: int) -> DecisionRow:
    return DecisionRow(**STAMP, trial_id=spec.trial_id, attempt=1, updates=updates, decision="pause")


def test_a_promoted_trial_goes_on_from_its_last_pause(halving: Plan) -> None:
    accuracies = {0.05: 0.2, 0.1: 0.9, 0.2: 0.5}
    rows: list[AnyRow] = []
    scouts = []
    for _ in range(3):  # three trials measure what the cell costs
        assignment = Progress(halving, rows).next_assignment(1000)
        assert assignment is not None
        spec = assignment.spec
        an_epoch = spec.updates_per_epoch
        # Two of three at 1/9, one at 2/3; strict: at 1/27 and 1/9.
        assert assignment.pause_at == {1 * an_epoch, 3 * an_epoch, 18 * an_epoch}
        assert assignment.wait_at == assignment.pause_at
        rows += [attempt(spec), report(spec, accuracies[spec.base_lr], an_epoch), pause(spec, an_epoch)]
        scouts.append(spec.trial_id)
    progress = Progress(halving, rows)
    assert {name for name, trial in progress.state.trials.items() if trial.status == "paused"} == set(scouts)
    again = progress.next_assignment(1000)
    assert again is not None
    # One cell alone is not high-cost, and the gentle bracket has no rung there: they go on at once.
    assert (again.spec.trial_id, again.from_updates) == (scouts[0], an_epoch)


def test_the_same_rows_give_the_same_next_decision(halving: Plan) -> None:
    accuracies = {0.05: 0.2, 0.1: 0.9, 0.2: 0.5}
    rows: list[AnyRow] = []
    progress = Progress(halving)

    def follow(row: AnyRow) -> None:
        rows.append(row)
        progress.follow(row)

    while (assignment := progress.next_assignment(1000)) is not None and assignment.spec.phase == "search":
        spec = assignment.spec
        assert Progress(halving, rows).next_assignment(1000) == assignment
        follow(attempt(spec, progress.state.trial(spec.trial_id).attempts + 1, assignment.from_updates))
        for updates in sorted(u for u in (*assignment.pause_at, spec.total_updates) if u > assignment.from_updates):
            follow(report(spec, accuracies[spec.base_lr], updates))
            if progress.verdict(spec.trial_id) == "pause":
                follow(pause(spec, updates))
                break
        else:
            follow(end(spec))
    assert list(progress.state.ended) == [spec.trial_id for spec in halving.search if spec.base_lr == 0.1]
    others = sorted(spec.trial_id for spec in halving.search if spec.base_lr != 0.1)
    assert sorted(progress.dropped()) == sorted(Progress(halving, rows).dropped()) == others


def test_an_audited_trial_trains_on_but_does_not_count_for_the_choice(halving: Plan) -> None:
    cell = halving.cells[0]
    low, middle, high = halving.search
    audit = DecisionRow(**STAMP, trial_id=high.trial_id, attempt=1, updates=144, decision="audit")  # at 1/9
    rows = [
        *ended(low, 0.9),
        *ended(middle, 0.8),
        attempt(high),
        report(high, 0.3, 144),
        pause(high, 144),
        audit,
    ]
    progress = Progress(halving, rows)
    handed = hand_out_all(progress)
    assert [spec.phase for spec in handed] == ["confirm"] * halving.config.confirm.seeds + ["search"]
    assert handed[-1] == high
    assert progress.is_to_be_audited(high.trial_id)
    for row in ended(high, 0.99):
        progress.follow(row)
    assert progress.chosen_rate(cell) == low.base_lr


def test_a_diverged_report_sets_no_bar(plan: Plan) -> None:
    low, _ = rates_of(plan, plan.cells[0])
    lost = report(low, 0.1).model_copy(update={"val_loss": float("nan")})
    assert lost.diverged
    progress = Progress(plan, [attempt(low), lost])
    assert low.trial_id not in progress.verdicts
