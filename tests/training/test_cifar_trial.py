"""Images from files, as trials."""

from collections.abc import Callable
from pathlib import Path

import pytest

from study.config.schema import StudyConfig
from study.planning.trials import make_plan
from study.training.distributed.topology import RankTopology
from study.training.rank import Rank
from tests.workloads.data import test_idx
from tests.workloads.data.test_cifar import PER_FILE, write_binary

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")


def test_a_resnet_learns_which_images_are_bright(config: Callable[..., StudyConfig], tmp_path: Path) -> None:
    write_binary(tmp_path)
    workload = {
        "kind": "cifar10", "path": str(tmp_path), "depth": 8, "width": 8, "images": 5 * PER_FILE, "val_samples": 4,
    }  # fmt: skip
    plan = make_plan(config(workload=workload, batch_sizes=[8], budget={"epochs": 40, "report_every_updates": 40}))
    spec = plan.confirm_trials(plan.cells[0], 0.1)[0]
    rank = Rank(ALONE, plan.config)
    assert rank.begin(spec) == 8
    first, last = rank.advance(), rank.advance()
    rank.halt()
    assert last.train_loss < 0.9 * first.train_loss
    assert last.train_accuracy > 0.5
    assert last.test_accuracy is not None


@pytest.mark.parametrize("model", ["resnet", "convnet", "mlp"])
def test_grey_images_of_28_pixels_train_each_network(
    config: Callable[..., StudyConfig], tmp_path: Path, model: str
) -> None:
    test_idx.write(tmp_path, "-ubyte.gz")
    workload = {
        "kind": "mnist", "path": str(tmp_path), "model": model, "depth": 8, "width": 4, "images": test_idx.TRAIN,
        "val_samples": 4,
    }  # fmt: skip
    plan = make_plan(config(workload=workload, batch_sizes=[4], budget={"epochs": 30, "report_every_updates": 30}))
    spec = plan.confirm_trials(plan.cells[0], 0.02)[0]
    rank = Rank(ALONE, plan.config)
    rank.begin(spec)
    first, last = rank.advance(), rank.advance()
    rank.halt()
    assert last.train_loss < 0.9 * first.train_loss
