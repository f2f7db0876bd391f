"""The pace of a plan's batch sizes, really trained, and the reasons for which one is not measured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import Plan, make_plan
from study.training.preflight import pace
from study.training.preflight.pace import measure_paces

Make = Callable[..., StudyConfig]


def linear(config: Make, batch_sizes: list[int], arguments: dict[str, Any] | None = None, **changes: Any) -> Plan:
    workload = {
        "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss", "module_args": arguments or {},
    }  # fmt: skip
    return make_plan(config(workload=workload, batch_sizes=batch_sizes, **changes))


def test_too_few_cores_is_the_reason(config: Make) -> None:
    plan = linear(config, [8, 16], hardware={"world_size": [1, 4], "cpus_per_rank": 2})
    paces = measure_paces(plan, cores=2)
    assert {cell.world_size for cell in paces.measured} == {1}
    assert {(cell.world_size, why) for cell, why in paces.missing.items()} == {
        (4, "they need 8 cores, and this machine has 2")
    }
    assert all(pace.update_s > 0 and pace.validation_s > 0 for pace in paces.measured.values())
    assert len(paces.measured) + len(paces.missing) == len(plan.cells)


@pytest.mark.parametrize(("has", "says"), [(0, "none"), (1, "1")])
def test_no_gpu_is_the_reason(config: Make, monkeypatch: pytest.MonkeyPatch, has: int, says: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: has)
    plan = linear(config, [12], hardware={"world_size": 3, "gpus_per_rank": 0.5})
    (why,) = measure_paces(plan, cores=64).missing.values()
    assert why == f"they need 2 GPUs, and this machine has {says}"


def test_a_batch_that_does_not_fit_is_left_out_and_the_others_are_measured(config: Make) -> None:
    plan = linear(config, [16, 64, 8], {"most": 16})
    paces = measure_paces(plan, cores=1)
    assert {cell.batch_size for cell in paces.measured} == {16, 8}
    (why,) = paces.missing.values()
    assert "out of memory" in why


def test_a_target_that_is_met_at_once_leaves_a_pace(config: Make) -> None:
    plan = linear(config, [8], budget={"target_train_loss": 1e9})
    assert len(measure_paces(plan, cores=1).measured) == 1


def test_few_updates_do_where_they_are_slow(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = linear(config, [8], {"fail_at": pace.WARM + 1})
    with pytest.raises(ConfigError, match="the module broke down"):
        measure_paces(plan, cores=1)
    monkeypatch.setattr(pace, "SLOW_S", 0.0)
    assert len(measure_paces(plan, cores=1).measured) == 1
