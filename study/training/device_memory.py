"""How much of its device's memory a rank takes, where its data lie, and how it is freed after a trial."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from study.errors import StudyError
from study.training.distributed.topology import RankTopology
from study.training.messages import OutOfMemory
from study.workloads.data.splits import Splits
from study.workloads.user_code.build import text_of

DATA_SHARE = 0.5  # of the free memory, at most: the rest is for weights and activations

_ON_CPU = "DefaultCPUAllocator: "  # torch's words, in a RuntimeError

T = TypeVar("T")


def limit_memory_to_share(topology: RankTopology) -> None:
    """Limit a rank with a share of a GPU to that share of its memory, so that its neighbour does not run out for it."""
    if topology.device == "cuda" and topology.gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(topology.gpu_share, topology.torch_device)


def free_bytes(topology: RankTopology) -> int:
    """Return how much of its GPU's memory a rank may still take."""
    free, total = torch.cuda.mem_get_info(topology.torch_device)
    return min(free, int(topology.gpu_share * total) - torch.cuda.memory_reserved(topology.torch_device))


def place_splits(splits: Splits, topology: RankTopology) -> Splits:
    """Return the data on the device if there is ample room for them, else on the host: batches are then copied."""
    if topology.device == "cpu" or splits.nbytes <= DATA_SHARE * free_bytes(topology):
        return splits.to(topology.torch_device)
    return splits.streamed_to(topology.torch_device)


def start_measuring(topology: RankTopology) -> None:
    """Start the interval whose peak `peak_bytes` returns."""
    if topology.device == "cuda":
        torch.cuda.reset_peak_memory_stats(topology.torch_device)


def peak_bytes(topology: RankTopology) -> int | None:
    """Return the most that tensors took of the GPU since `start_measuring`, data that lie there included.

    None on the CPU, where a process's memory is torch and Python more than the trial.
    """
    return torch.cuda.max_memory_allocated(topology.torch_device) if topology.device == "cuda" else None


def give_back(topology: RankTopology) -> None:
    """Free what the last trial left. Trainer and module refer to each other, so only the collector finds them."""
    if topology.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def within_memory(act: Callable[[], T]) -> T:
    """Return what `act` returns. Raises OutOfMemory, which refers to no tensor, where the device's memory runs out, or
    what Python, NumPy or torch on a CPU may take.
    """
    try:
        return act()
    except Exception as raised:
        # A module that raises while it is built is blamed for it.
        error = raised.__cause__ if isinstance(raised, StudyError) and raised.__cause__ else raised
        said = text_of(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _ON_CPU not in said:
            raise
        text = said.rpartition(_ON_CPU)[2].partition("\n")[0].partition(". ")[0] or "out of memory"
        # The stack holds the activations of the step that failed.
        traceback.clear_frames(raised.__traceback__)
        traceback.clear_frames(error.__traceback__)
    raise OutOfMemory(text)
