"""The exact list of trials."""

from collections.abc import Callable

import pytest

from study.config.schema import Hardware, StudyConfig
from study.errors import ConfigError
from study.planning.capacity import Node, check_capacity, ranks_that_fit
from study.planning.trials import Cell, in_unit, make_plan, whole_in_unit

Make = Callable[..., StudyConfig]


def test_search_is_every_rate_at_every_cell(config: Make) -> None:
    plan = make_plan(config(hardware={"world_size": [1, 2]}))
    assert len(plan.search) == 2 * 2 * 2
    assert len({spec.trial_id for spec in plan.search}) == len(plan.search)
    assert {spec.cell for spec in plan.search} == {Cell(b, w) for b in (16, 64) for w in (1, 2)}


def test_one_rate_leaves_nothing_to_search(config: Make) -> None:
    plan = make_plan(config(search={"lr": [0.1]}))
    assert plan.search == ()
    assert plan.n_confirm == 4


def test_confirm_seeds_are_fresh(config: Make) -> None:
    plan = make_plan(config())
    searched = {spec.seed for spec in plan.search}
    confirmed = {spec.seed for spec in plan.confirm_trials(plan.cells[0], 0.1)}
    assert len(confirmed) == 2
    assert not searched & confirmed


def test_derived_values_by_hand(config: Make) -> None:
    # 1797 digits less 21 and 1000 leave 776: 48 updates of 16 an epoch, 8 samples dropped.
    spec = make_plan(config()).search[0]
    assert (spec.updates_per_epoch, spec.total_updates, spec.report_at) == (48, 144, (48, 96, 144))


@pytest.mark.parametrize(("every", "reports"), [(50, (50, 100, 144)), (144, (144,)), (500, (144,))])
def test_reports_end_with_the_budget(config: Make, every: int, reports: tuple[int, ...]) -> None:
    spec = make_plan(config(budget={"epochs": 3, "report_every_updates": every})).search[0]
    assert spec.report_at == reports


def test_budget_in_updates_is_the_same_for_all(config: Make) -> None:
    plan = make_plan(config(budget={"epochs": None, "updates": 100}))
    assert {spec.total_updates for spec in plan.search} == {100}


@pytest.mark.parametrize(
    ("unit", "half", "whole"), [("epochs", 1.5, 3), ("updates", 72, 144), ("samples", 72 * 16, 144 * 16)]
)
def test_lengths_in_the_unit_of_the_rungs(config: Make, unit: str, half: float, whole: float) -> None:
    made = config(scheduler={"kind": "asha", "unit": unit})
    spec = make_plan(made).search[0]
    assert (spec.batch.global_batch, spec.total_updates) == (16, 144)
    assert in_unit(made.scheduler, spec, 72, device_seconds=5.0) == half
    assert whole_in_unit(made.scheduler, spec) == whole


def test_rungs_in_device_seconds_follow_the_clock(config: Make) -> None:
    made = config(scheduler={"kind": "asha", "unit": "device_seconds", "max_device_seconds": 60})
    spec = make_plan(made).search[0]
    assert in_unit(made.scheduler, spec, 72, device_seconds=5.0) == 5.0
    assert whole_in_unit(made.scheduler, spec) == 60


def test_confirm_seeds_are_unseen_in_the_search(config: Make) -> None:
    plan = make_plan(config(search={"lr": [0.05, 0.2], "seeds": 3}))
    assert len(plan.search) == 2 * 2 * 3
    assert {spec.seed for spec in plan.search} == {(0, 0), (0, 1), (0, 2)}
    assert {spec.seed for spec in plan.confirm_trials(plan.cells[0], 0.05)} == {(0, 3), (0, 4)}
    assert len({spec.trial_id for spec in plan.search}) == 12


def test_grace_past_the_end_is_refused(config: Make) -> None:
    with pytest.raises(ConfigError, match=r"scheduler.grace: 5 epochs is past the end"):
        make_plan(config(scheduler={"kind": "asha", "grace": 5}))


def test_splits_must_leave_something(config: Make) -> None:
    with pytest.raises(ConfigError, match="their sum must be below it"):
        make_plan(config(workload={"kind": "digits", "val_samples": 800, "test_samples": 997}))


def test_capacity_counts_whole_ranks_on_each_node() -> None:
    hardware = Hardware(world_size=4, cpus_per_rank=2)
    nodes = [Node(3, 0), Node(5, 0)]
    assert ranks_that_fit(nodes, hardware) == 1 + 2
    with pytest.raises(ConfigError, match="can never be placed"):
        check_capacity(nodes, hardware)
    check_capacity([*nodes, Node(2, 0)], hardware)


def test_gpus_bound_the_ranks() -> None:
    assert ranks_that_fit([Node(64, 8), Node(64, 0)], Hardware(gpus_per_rank=1)) == 8
    # Two ranks of 0.4 lie on a GPU, and a third would lie across two.
    assert ranks_that_fit([Node(64, 8), Node(3, 8)], Hardware(gpus_per_rank=0.4)) == 16 + 3


def test_ridge_is_refused_for_more_trials_than_it_can_compare(config: Make) -> None:
    changes = {"batch_sizes": [8, 16, 32, 64], "scheduler": {"kind": "ridge"}}
    rates = {"lr": {"low": 0.001, "high": 1.0}, "samples": 50}
    assert len(make_plan(config(**changes, search=rates | {"seeds": 5})).search) == 1000
    with pytest.raises(ConfigError, match=r"1,000 search trials of a world size at most, these are 1,200") as raised:
        make_plan(config(**changes, search=rates | {"seeds": 6}))
    assert raised.value.key == "scheduler.kind"
