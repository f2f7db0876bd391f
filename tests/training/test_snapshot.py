"""A trial that paused and went on, on fresh ranks, against one that never paused: equal to the last bit."""

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from study.config.schema import StudyConfig
from study.planning.trials import make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank
from study.training.snapshot import Resumed, generators, join_parts, set_generators
from study.workloads.data.discovery import with_sample_counts
from tests.conftest import TINY

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
CUSTOM: dict[str, Any] = {
    "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
    "val_accuracy": "acc", "val_loss": "loss",
}  # fmt: skip
STREAM = CUSTOM | {
    "module": "tests.user_code:Net", "data": "tests.user_code:Streamed", "data_args": {"noisy": True},
    "val_accuracy": "val_acc", "val_loss": None, "optimizer": "module",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "convnet in mid-epoch, accumulated": {
        "workload": TINY["workload"] | {"model": "convnet", "width": 4},
        "hardware": {"accumulation": 2},
        "budget": {"epochs": 3, "report_every_updates": 31},
    },
    "adamw with steps": {"optimizer": {"kind": "adamw"}, "schedule": {"kind": "step"}},
    "lamb": {"optimizer": {"kind": "lamb"}},
    "contrastive in mid-epoch": {
        "workload": {"kind": "contrastive", "width": 8}, "budget": {"epochs": 3, "report_every_updates": 31},
    },
    "a language model in mid-epoch, accumulated, its head tied": {
        "workload": {"kind": "text", "context": 16, "width": 8, "heads": 2, "train_samples": 400, "val_fraction": 0.01},
        "optimizer": {"kind": "adamw"}, "hardware": {"accumulation": 2},
        "budget": {"epochs": 3, "report_every_updates": 11},
    },
    "a user's module, shuffled by the global generator": {"workload": CUSTOM, "batch_sizes": [8]},
    "the same in mid-epoch": {
        "workload": CUSTOM, "batch_sizes": [8], "budget": {"epochs": 3, "report_every_updates": 3},
    },
    "a stream, noise, dropout and an optimizer of the user's, in mid-epoch": {
        "workload": STREAM, "batch_sizes": [8], "budget": {"epochs": 3, "report_every_updates": 3},
    },
}  # fmt: skip


def without_times(reports: list[RankReport]) -> list[RankReport]:
    return [replace(report, samples_per_s=0.0, phases_s={}) for report in reports]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_a_resumed_trial_equals_one_never_paused(config: Callable[..., StudyConfig], changes: dict[str, Any]) -> None:
    made = with_sample_counts(config(**changes))
    spec = make_plan(made).search[0]
    rank = Rank(ALONE, made)
    rank.begin(spec)
    expected, snapshots = [], []
    for _ in spec.report_at:
        expected.append(rank.advance())
        if not expected[-1].final:
            snapshots.append(join_parts([rank.snapshot()]))
    weights = {name: value.clone() for name, value in rank._trial.job.module.state_dict().items()}
    rank.halt()
    for cut, snapshot in enumerate(snapshots, start=1):
        torch.manual_seed(cut)  # a process that has done something else
        fresh = Rank(ALONE, made)
        fresh.begin(spec, snapshot)
        rest = [fresh.advance() for _ in spec.report_at[cut:]]
        assert without_times(rest) == without_times(expected[cut:])
        resumed = fresh._trial.job.module.state_dict()
        assert all(torch.equal(resumed[name], value) for name, value in weights.items())
        fresh.halt()


def snapshot_of(group: LocalGroup) -> bytes:
    return join_parts(group._all("snapshot"))


def test_two_ranks_with_batch_norm_go_on_to_the_last_bit(config: Callable[..., StudyConfig]) -> None:
    made = config(
        workload=TINY["workload"] | {"model": "convnet", "width": 4},
        hardware={"world_size": 2},
        budget={"epochs": 3, "report_every_updates": 31},
    )
    spec = make_plan(made).search[0]
    with LocalGroup(made, 2) as group:
        expected = group.run(spec)
        group._all("begin", spec)
        group._all("advance")
        snapshot = snapshot_of(group)
        group._all("halt")
    with LocalGroup(made, 2) as group:
        group._all("begin", spec, snapshot)
        rest = [group._all("advance")[0] for _ in spec.report_at[1:]]
        group._all("halt")
    assert without_times(rest) == without_times(expected[1:])


def test_generators_go_back_to_where_they_stood() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    state = generators()
    first = draw()
    assert draw() != first
    set_generators(state)
    assert draw() == first


class Mischief:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Mischief, "ran", True)


def test_a_snapshot_cannot_run_code() -> None:
    buffer = io.BytesIO()
    torch.save({"updates": 1, "checkpoint": Mischief(), "ranks": [{}]}, buffer)
    with pytest.raises(pickle.UnpicklingError):
        Resumed.read(buffer.getvalue(), 0)
    assert not Mischief.ran
