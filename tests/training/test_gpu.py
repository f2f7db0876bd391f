"""On a real GPU: `pytest -m gpu` (docs/gpu.md)."""

from typing import Any

import pytest
import torch

from study.plan.trials import make_plan
from study.training.localgroup import LocalGroup
from study.training.report import Report
from study.training.snapshot import join_parts
from study.workloads.crops import crop, draw_crops
from tests.conftest import TINY, make_config

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices for nccl")
pytestmark = [pytest.mark.gpu, needs_a_gpu]
CONVNET = TINY["workload"] | {"model": "convnet", "width": 4}


def run(gpus: int, world_size: int, precision: str = "32", workload: dict[str, Any] = CONVNET) -> list[Report]:
    config = make_config(
        workload=workload, hardware={"world_size": world_size, "gpus_per_rank": gpus, "precision": precision}
    )
    with LocalGroup(config, world_size) as group:
        return group.run(make_plan(config).search[0])


def test_a_trial_on_the_gpu_is_the_one_on_the_cpu() -> None:
    cpu, gpu = run(0, 1), run(1, 1)
    assert [report.val_loss for report in gpu] == pytest.approx([report.val_loss for report in cpu], rel=1e-2)


def test_bf16_learns_as_well() -> None:
    assert run(1, 1, "bf16-mixed")[-1].val_loss == pytest.approx(run(1, 1)[-1].val_loss, rel=0.1)


def test_contrastive_learning_sees_the_same_views_on_the_gpu() -> None:
    workload = {"kind": "contrastive", "width": 16}
    cpu, gpu = run(0, 1, workload=workload), run(1, 1, workload=workload)
    assert [report.train_loss for report in gpu] == pytest.approx([report.train_loss for report in cpu], rel=1e-2)


def test_cropped_images_are_the_same_on_the_gpu() -> None:
    x = torch.rand(8, 3, 32, 32)
    by = draw_crops(8, 4, torch.Generator().manual_seed(0))
    assert torch.equal(crop(x.cuda(), by, 4).cpu(), crop(x, by, 4))


@needs_two
def test_two_gpus_over_nccl_give_the_curve_of_one() -> None:
    one, two = run(1, 1), run(1, 2)
    assert [report.train_loss for report in two] == pytest.approx([report.train_loss for report in one], rel=2e-2)


def test_a_paused_trial_goes_on_close_to_one_that_did_not() -> None:
    # Not to the last bit: cuDNN may choose other kernels.
    config = make_config(workload=CONVNET, hardware={"gpus_per_rank": 1})
    spec = make_plan(config).search[0]
    with LocalGroup(config, 1) as group:
        whole = group.run(spec)
        group._all("begin", spec)
        group._all("advance")
        snapshot = join_parts(group._all("snapshot"))
        group._all("halt")
        group._all("begin", spec, snapshot)
        rest = [group._all("advance")[0] for _ in spec.report_at[1:]]
        group._all("halt")
    assert [report.val_loss for report in rest] == pytest.approx([report.val_loss for report in whole[1:]], rel=1e-2)
