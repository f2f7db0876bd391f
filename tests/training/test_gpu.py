"""On a real GPU: `pytest -m gpu` (docs/gpu.md)."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from study.planning.trials import make_plan
from study.training import device_memory as memory
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.messages import OutOfMemory, RankReport
from study.training.preflight.micro_batch import largest_micro_batch
from study.training.rank import Rank
from study.training.snapshot import join_parts
from study.workloads.data.augment import crop, draw_crops
from study.workloads.data.discovery import with_sample_counts
from tests.conftest import TINY, make_config

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices for nccl")
pytestmark = [pytest.mark.gpu, needs_a_gpu]
GPU = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cuda")
CONVNET = TINY["workload"] | {"model": "convnet", "width": 4}
WIDE = CONVNET | {"width": 512}
TEXT = {"kind": "text", "context": 16, "width": 16, "heads": 2, "train_samples": 512, "val_fraction": 0.01}


def run(
    gpus: float, world_size: int, precision: str = "32", workload: dict[str, Any] = CONVNET, **more: Any
) -> list[RankReport]:
    hardware = {"world_size": world_size, "gpus_per_rank": gpus, "precision": precision} | more
    config = with_sample_counts(make_config(workload=workload, hardware=hardware))
    with LocalGroup(config, world_size) as group:
        return group.run(make_plan(config).search[0])


def test_a_trial_on_the_gpu_is_the_one_on_the_cpu() -> None:
    cpu, gpu = run(0, 1), run(1, 1)
    assert [report.val_loss for report in gpu] == pytest.approx([report.val_loss for report in cpu], rel=1e-2)


def test_a_language_model_on_the_gpu_is_the_one_on_the_cpu() -> None:
    cpu = [report.val_loss for report in run(0, 1, workload=TEXT)]
    for more in ({}, {"precision": "bf16-mixed"}, {"compile": True}):
        assert [report.val_loss for report in run(1, 1, workload=TEXT, **more)] == pytest.approx(cpu, rel=2e-2)


def test_channels_last_and_compile_leave_the_curve_where_it_is() -> None:
    plain = [report.val_loss for report in run(1, 1)]
    assert [r.val_loss for r in run(1, 1, channels_last=True)] == pytest.approx(plain, rel=2e-2)
    assert [r.val_loss for r in run(1, 1, compile=True)] == pytest.approx(plain, rel=2e-2)


def test_peak_memory_is_measured_for_each_trial() -> None:
    # Wide, for cuBLAS has tens of megabytes for itself, which count.
    config = make_config(workload=WIDE, batch_sizes=[16, 512], hardware={"gpus_per_rank": 1})
    plan = make_plan(config)
    small, large = (next(s for s in plan.search if s.cell.batch_size == size) for size in (16, 512))
    with LocalGroup(config, 1) as group:
        peaks = [group.run(spec)[-1].peak_memory_bytes for spec in (small, large, small)]
    assert peaks[0] == pytest.approx(peaks[2], rel=0.05)  # the large one has left nothing behind
    assert peaks[1] > 2 * peaks[0]


def test_two_ranks_share_a_gpu_over_gloo() -> None:
    one, two = run(1, 1), run(0.5, 2)
    assert [report.train_loss for report in two] == pytest.approx([report.train_loss for report in one], rel=2e-2)
    assert {report.energy_j for report in two} == {None}


def test_data_that_does_not_fit_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(workload=CONVNET, hardware={"gpus_per_rank": 1})
    spec = make_plan(config).search[0]
    curves = []
    for free in (memory.free_bytes, lambda topology: 0):
        monkeypatch.setattr(memory, "free_bytes", free)
        rank = Rank(GPU, config)
        rank.begin(spec)
        curves.append([rank.advance().val_loss for _ in spec.report_at])
        rank.halt()
    assert curves[1] == pytest.approx(curves[0], rel=1e-2)


def test_the_largest_micro_batch_fits_and_a_larger_one_does_not() -> None:
    # A hundredth of the memory, so that this small network can be too large at all.
    config = make_config(batch_sizes=[512], workload=WIDE, hardware={"gpus_per_rank": 1, "micro_batch": "auto"})
    share = 6e8 / torch.cuda.get_device_properties(0).total_memory
    found, tried = largest_micro_batch(make_plan(config), replace(GPU, gpu_share=share))
    assert 1 <= found < 512
    assert tried <= 8
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_trial_that_does_not_fit_leaves_a_clean_gpu() -> None:
    config = make_config(batch_sizes=[16, 512], workload=WIDE, hardware={"gpus_per_rank": 1})
    plan = make_plan(config)
    small, large = (next(s for s in plan.search if s.cell.batch_size == size) for size in (16, 512))
    share = 6e8 / torch.cuda.get_device_properties(0).total_memory
    rank = Rank(replace(GPU, gpu_share=share), config)
    rank.begin(small)
    rank.advance()
    rank.halt()
    before = torch.cuda.memory_allocated()
    rank.begin(large)
    with pytest.raises(OutOfMemory):
        rank.advance()
    rank.halt()
    assert torch.cuda.memory_allocated() < before + 1e6
    rank.begin(small)
    assert rank.advance().peak_memory_bytes
    rank.halt()
    torch.cuda.set_per_process_memory_fraction(1.0)


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
