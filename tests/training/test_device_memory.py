"""A device's memory, on fakes of it: what does not fit, and what is left afterwards."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from study.config.schema import StudyConfig
from study.planning.batch_split import BatchPlan
from study.planning.trials import Stage, TrialSpec, make_plan
from study.training import rank as rank_module
from study.training.device_memory import DATA_SHARE, peak_bytes, place_splits, within_memory
from study.training.distributed.topology import RankTopology
from study.training.messages import OutOfMemory, RankReport
from study.training.rank import Rank
from study.workloads.data.batching import EvalBatches, TrainBatches
from study.workloads.data.splits import Part, Splits, load_splits

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Make = Callable[..., StudyConfig]


def with_linear(config: Make, **arguments: object) -> StudyConfig:
    workload = {
        "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss", "module_args": arguments,
    }  # fmt: skip
    return config(workload=workload, batch_sizes=[8, 32])


def first(config: StudyConfig, batch_size: int) -> TrialSpec:
    plan = make_plan(config)
    cell = next(cell for cell in plan.cells if cell.batch_size == batch_size)
    return plan.confirm_trials(cell, 0.1)[0]


def run(rank: Rank, spec: TrialSpec) -> list[RankReport]:
    rank.begin(spec)
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    return reports


def test_a_rank_that_ran_out_of_memory_is_as_good_as_new(config: Make) -> None:
    made = with_linear(config, most=16)
    rank = Rank(ALONE, made)
    rank.begin(first(made, 32))
    module = weakref.ref(rank._trial.job.module)
    with pytest.raises(OutOfMemory, match=r"^CUDA out of memory$"):
        rank.advance()
    rank.halt()
    gc.collect()
    assert module() is None  # or its tensors would still take the device's memory
    reports, fresh = run(rank, first(made, 8)), run(Rank(ALONE, made), first(made, 8))
    assert [report.val_loss for report in reports] == [report.val_loss for report in fresh]
    assert {report.peak_memory_bytes for report in reports} == {None}


class Big:
    """Stands for activations."""


def test_what_is_raised_holds_on_to_nothing_of_the_step() -> None:
    alive: list[weakref.ref[Big]] = []

    def step() -> None:
        activations = Big()
        alive.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    with pytest.raises(OutOfMemory) as told:
        within_memory(step)
    assert alive[0]() is None
    assert told.value.__context__ is None
    assert str(told.value) == "CUDA out of memory"


def test_a_mistake_of_the_trials_own_stays_what_it_is() -> None:
    def step() -> None:
        raise ArithmeticError("the module broke down")

    with pytest.raises(ArithmeticError, match="the module broke down"):
        within_memory(step)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    """Sets what a fake GPU says of its memory: free, total, reserved by this process. Tensors on it are `meta`."""

    def says(free: int, total: int, reserved: int) -> None:
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total))
        monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: reserved)
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: reserved)

    monkeypatch.setattr(RankTopology, "torch_device", property(lambda topology: torch.device("meta")))
    return says


@pytest.mark.parametrize(
    ("free", "total", "reserved", "share", "resident"),
    [
        (201, 1000, 0, 1.0, True),
        (199, 1000, 0, 1.0, False),
        (1000, 1000, 0, 0.25, True),  # a quarter of 1000 is enough
        (1000, 1000, 100, 0.25, False),  # but not with what was taken of it already
        (150, 1000, 0, 0.25, False),  # nor where the neighbours took more than theirs
    ],
)
def test_data_lies_on_the_gpu_if_half_of_the_free_memory_holds_it(
    gpu: Callable[[int, int, int], None], free: int, total: int, reserved: int, share: float, resident: bool
) -> None:
    assert DATA_SHARE == 0.5
    gpu(free, total, reserved)
    part = Part(torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))  # 64 + 32 bytes
    empty = Part(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    tiny = Part(torch.zeros(1), torch.zeros(0, dtype=torch.int64))
    splits = Splits(part, empty, tiny, 10)
    assert splits.nbytes == 100
    placed = place_splits(splits, replace(ALONE, device="cuda", gpu_share=share))
    assert (placed.train.x.device.type == "meta") is resident
    assert placed.train.used_on == (None if resident else torch.device("meta"))


def test_peak_memory_is_the_gpus_own_count(gpu: Callable[[int, int, int], None]) -> None:
    gpu(0, 0, 123)
    assert peak_bytes(replace(ALONE, device="cuda")) == 123
    assert peak_bytes(ALONE) is None


@pytest.mark.parametrize("crop_px", [0, 2])
def test_streamed_batches_are_the_resident_ones(crop_px: int) -> None:
    chance = torch.Generator().manual_seed(0)
    part = Part(torch.rand(50, 1, 8, 8, generator=chance), torch.arange(50), crop_px)
    streamed = replace(part, used_on=torch.device("cpu"))
    stages = [Stage(0, 5, BatchPlan(16, 2, 4, 2), 3, 1.0)]
    for rank in range(2):
        pairs = list(
            zip(TrainBatches(part, stages, rank, (1, 2)), TrainBatches(streamed, stages, rank, (1, 2)), strict=True)
        )
        assert len(pairs) == 10
        pairs += zip(EvalBatches(part, rank, 2, 7), EvalBatches(streamed, rank, 2, 7), strict=True)
        assert len(pairs) == 14
        for one, other in pairs:
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_a_trial_on_streamed_data_is_the_same_to_the_last_bit(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config()
    spec = first(made, 16)
    resident = run(Rank(ALONE, made), spec)
    monkeypatch.setattr(rank_module, "place_splits", lambda splits, topology: splits.streamed_to(torch.device("cpu")))
    streamed = run(Rank(ALONE, made), spec)
    assert [(r.train_loss, r.val_loss, r.test_accuracy) for r in streamed] == [
        (r.train_loss, r.val_loss, r.test_accuracy) for r in resident
    ]


def test_channels_last_reaches_weights_and_batches(config: Make) -> None:
    workload = {"kind": "digits", "model": "convnet", "width": 4, "val_samples": 21, "test_samples": 1000}
    plain, last = (config(workload=workload, hardware={"channels_last": on}) for on in (False, True))
    seen: list[bool] = []
    rank = Rank(ALONE, last)
    spec = first(last, 16)
    rank.begin(spec)
    convolution = next(m for m in rank._trial.job.module.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    convolution.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    assert seen
    assert all(seen)
    expected = run(Rank(ALONE, plain), spec)
    assert [r.val_loss for r in reports] == pytest.approx([r.val_loss for r in expected], rel=1e-4)


def test_the_splits_of_a_workload_know_their_size(config: Make) -> None:
    splits = load_splits(config().workload)
    samples = 776 + 21 + 1000
    assert splits.nbytes == samples * (64 * 4 + 8)
