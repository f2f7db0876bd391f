"""What is left of a study, from its rows."""

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


def told(spec: TrialSpec, accuracy: float, outcome: Outcome = "completed", updates: int | None = None) -> list[AnyRow]:
    return [attempt(spec), report(spec, accuracy, updates), end(spec, outcome)]


def of(plan: Plan, cell: Cell) -> tuple[TrialSpec, TrialSpec]:
    low, high = (spec for spec in plan.search if spec.cell == cell)
    return low, high


def run_dry(progress: Progress) -> list[TrialSpec]:
    """All that is handed out before anything is over."""
    handed = []
    while (assignment := progress.hand_out(1000)) is not None:
        handed.append(assignment.spec)
    return handed


def test_search_comes_in_the_seeds_order_and_one_world_size_after_the_other(plan: Plan) -> None:
    order = run_dry(Progress(plan))
    assert order == run_dry(Progress(plan))
    assert sorted(spec.trial_id for spec in order) == sorted(
        spec.trial_id for spec in plan.search if spec.batch.world_size == 1
    )
    rows = [row for spec in plan.search if spec.batch.world_size == 1 for row in told(spec, 0.5)]
    confirm = run_dry(progress := Progress(plan, rows))
    assert {(spec.phase, spec.batch.world_size) for spec in confirm} == {("confirm", 1)}
    assert progress.wants_groups(2)
    assert not progress.wants_groups(1)  # all of it is handed out
    for spec in confirm:
        progress.follow(end(spec))
    assert {spec.batch.world_size for spec in run_dry(progress)} == {2}


def test_the_best_rate_of_those_that_got_furthest_is_chosen(plan: Plan) -> None:
    cell = plan.cells[0]
    low, high = of(plan, cell)
    assert Progress(plan).chosen_rate(cell) is None
    assert Progress(plan, told(low, 0.8) + told(high, 0.9)).chosen_rate(cell) == high.base_lr
    # An early lead is no end: the stopped one does not count while another got to the end.
    early = told(low, 0.95, "stopped", updates=10)
    assert Progress(plan, early + told(high, 0.9)).chosen_rate(cell) == high.base_lr
    assert Progress(plan, early + told(high, 0.9, "stopped", updates=10)).chosen_rate(cell) == low.base_lr


@pytest.mark.parametrize("outcome", ["diverged", "failed"])
def test_what_diverged_or_failed_is_never_chosen(plan: Plan, outcome: Outcome) -> None:
    cell = plan.cells[0]
    low, high = of(plan, cell)
    assert Progress(plan, told(low, 0.99, outcome) + told(high, 0.5)).chosen_rate(cell) == high.base_lr
    assert Progress(plan, told(low, 0.99, outcome) + told(high, 0.99, outcome)).chosen_rate(cell) is None


def test_the_rate_is_chosen_by_its_mean_over_seeds(config: Callable[..., StudyConfig]) -> None:
    plan = make_plan(config(batch_sizes=[16], search={"lr": [0.05, 0.2], "seeds": 2}))
    accuracies = {(0.05, 0): 0.95, (0.05, 1): 0.7, (0.2, 0): 0.9, (0.2, 1): 0.85}
    rows = [row for spec in plan.search for row in told(spec, accuracies[spec.base_lr, spec.seed_index])]
    assert Progress(plan, rows).chosen_rate(plan.cells[0]) == 0.2


def test_what_a_driver_left_running_runs_again_first(plan: Plan) -> None:
    first, second = run_dry(Progress(plan))[:2]
    progress = Progress(plan, [attempt(first), report(first, 0.5, updates=48), *told(second, 0.4)])
    again = progress.hand_out(1000)
    assert again is not None
    assert (again.spec, again.from_updates) == (first, 0)
    assert first not in run_dry(progress)


def test_no_more_is_handed_out_than_groups_fit(plan: Plan) -> None:
    progress = Progress(plan)
    assert [progress.hand_out(ranks=2) is not None for _ in range(3)] == [True, True, False]
    # Even if the cluster has shrunk below a single group, one waits for it to grow.
    assert [Progress(plan).hand_out(ranks=0) is not None for _ in range(2)] == [True, True]


def test_a_cell_is_confirmed_as_soon_as_its_own_search_is_over(plan: Plan) -> None:
    cell = plan.cells[0]
    low, high = of(plan, cell)
    progress = Progress(plan, told(low, 0.9) + told(high, 0.8))
    handed = run_dry(progress)
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
    for _ in range(3):  # three trials tell what the cell costs
        assignment = Progress(halving, rows).hand_out(1000)
        assert assignment is not None
        spec = assignment.spec
        an_epoch = spec.updates_per_epoch
        # Two of three at 1/9, one at 2/3; strict: at 1/27 and 1/9.
        assert assignment.pause_at == {1 * an_epoch, 3 * an_epoch, 18 * an_epoch}
        rows += [attempt(spec), report(spec, accuracies[spec.base_lr], an_epoch), pause(spec, an_epoch)]
        scouts.append(spec.trial_id)
    progress = Progress(halving, rows)
    assert {name for name, trial in progress.state.trials.items() if trial.status == "paused"} == set(scouts)
    again = progress.hand_out(1000)
    assert again is not None
    # One cell alone is not dear, and the gentle bracket has no rung there: they go on at once.
    assert (again.spec.trial_id, again.from_updates) == (scouts[0], an_epoch)


def test_the_same_rows_give_the_same_next_decision(halving: Plan) -> None:
    accuracies = {0.05: 0.2, 0.1: 0.9, 0.2: 0.5}
    rows: list[AnyRow] = []
    progress = Progress(halving)

    def follow(row: AnyRow) -> None:
        rows.append(row)
        progress.follow(row)

    while (assignment := progress.hand_out(1000)) is not None and assignment.spec.phase == "search":
        spec = assignment.spec
        assert Progress(halving, rows).hand_out(1000) == assignment
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
    rows = [*told(low, 0.9), *told(middle, 0.8), attempt(high), report(high, 0.3, 144), pause(high, 144), audit]
    progress = Progress(halving, rows)
    handed = run_dry(progress)
    assert [spec.phase for spec in handed] == ["confirm"] * halving.config.confirm.seeds + ["search"]
    assert handed[-1] == high
    assert progress.is_to_be_audited(high.trial_id)
    for row in told(high, 0.99):
        progress.follow(row)
    assert progress.chosen_rate(cell) == low.base_lr


def test_a_diverged_report_sets_no_bar(plan: Plan) -> None:
    low, _ = of(plan, plan.cells[0])
    lost = report(low, 0.1).model_copy(update={"val_loss": float("nan")})
    assert lost.diverged
    progress = Progress(plan, [attempt(low), lost])
    assert low.trial_id not in progress.verdicts
