"""What is left of a study, from its rows."""

from collections.abc import Callable

import pytest

from study.ledger.rows import AnyRow, AttemptRow, EndRow, Outcome, ReportRow
from study.plan.config import StudyConfig
from study.plan.trials import Cell, Plan, TrialSpec, make_plan
from study.tuning.progress import Progress

STAMP = {"at_s": 0.0, "written": "2026-01-01T00:00:00.000+00:00"}


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    return make_plan(config(hardware={"world_size": [1, 2]}))


def attempt(spec: TrialSpec, number: int = 1) -> AttemptRow:
    return AttemptRow(
        **STAMP, trial_id=spec.trial_id, attempt=number, lease_id="l", group_id="g", device="cpu", nodes=("n",),
        setup_s=0.5, phase=spec.phase,
        batch_size=spec.batch.global_batch, world_size=spec.batch.world_size, micro_batch=spec.batch.micro_batch,
        accumulation=spec.batch.accumulation, norm_batch=None, base_lr=spec.base_lr, lr=spec.lr,
        seed_index=spec.seed_index, updates_per_epoch=spec.updates_per_epoch, total_updates=spec.total_updates,
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


def test_search_order_is_the_seeds_and_one_world_size_after_the_other(plan: Plan) -> None:
    order = Progress(plan).search_left()
    assert sorted(spec.trial_id for spec in order) == sorted(spec.trial_id for spec in plan.search)
    assert [spec.batch.world_size for spec in order] == sorted(spec.batch.world_size for spec in order)
    assert order == Progress(plan).search_left()


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


def test_a_retry_starts_over(plan: Plan) -> None:
    low, _ = of(plan, plan.cells[0])
    progress = Progress(plan, [attempt(low), report(low, 0.9), attempt(low, 2)])
    assert progress.attempts[low.trial_id] == 2
    assert low in progress.search_left()


def test_confirm_follows_the_choice_and_shrinks_as_it_ends(plan: Plan) -> None:
    rows: list[AnyRow] = []
    for cell in plan.cells:
        low, high = of(plan, cell)
        rows += told(low, 0.9) + told(high, 0.8)
    progress = Progress(plan, rows)
    assert progress.search_left() == []
    confirm = progress.confirm_left()
    assert len(confirm) == plan.n_confirm
    assert {spec.base_lr for spec in confirm} == {0.05}
    progress.follow(end(confirm[0]))
    assert progress.confirm_left() == confirm[1:]
