"""The search for the largest micro batch, by really training, on a rank whose module runs out of memory."""

from collections.abc import Callable

import pytest

from study.config.schema import StudyConfig
from study.planning.trials import Plan, make_plan
from study.training.distributed.topology import RankTopology
from study.training.preflight.micro_batch import largest_micro_batch, sizes_of

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Make = Callable[..., StudyConfig]


def with_linear(config: Make, batch_sizes: list[int], most: int | None, **changes: object) -> Plan:
    workload = {
        "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss", "module_args": {"most": most},
    }  # fmt: skip
    return make_plan(config(workload=workload, batch_sizes=batch_sizes, **changes))


def test_every_divisor_of_what_a_rank_gets_is_a_size(config: Make) -> None:
    plan = with_linear(config, [12, 16], None, hardware={"world_size": [1, 2], "micro_batch": "auto"})
    assert sizes_of(plan) == [1, 2, 3, 4, 6, 8, 12, 16]  # of 12, 16, 6 and 8


@pytest.mark.parametrize(("most", "found"), [(0, 0), (1, 1), (7, 6), (20, 16), (48, 48), (None, 48)])
def test_the_largest_size_that_trains_is_found(config: Make, most: int | None, found: int) -> None:
    plan = with_linear(config, [16, 48], most)
    size, tried = largest_micro_batch(plan, ALONE)
    assert size == found
    assert tried <= 8  # of ten


def test_every_variant_must_fit_in_sizes_that_it_can_have(config: Make) -> None:
    arms = {
        "small": {"batch_sizes": [4]},
        "large": {"workload": {"module_args": {"most": 4}}},
    }
    assert largest_micro_batch(with_linear(config, [16], None, variants=arms), ALONE)[0] == 4


def test_ghost_batches_set_the_sizes(config: Make) -> None:
    plan = make_plan(config(batch_sizes=[24], ghost_batch=4))
    assert largest_micro_batch(plan, ALONE)[0] == 24


def test_another_mistake_of_the_module_is_not_taken_for_want_of_memory(config: Make) -> None:
    workload = {
        "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss", "module_args": {"fail_at": 0},
    }  # fmt: skip
    with pytest.raises(ArithmeticError, match="the module broke down"):
        largest_micro_batch(make_plan(config(workload=workload, batch_sizes=[8])), ALONE)
