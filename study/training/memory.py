"""What a rank takes of its device's memory: how much of it, where its data lies, what is left after a trial."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from study.training.place import Place
from study.training.report import OutOfMemory
from study.workloads.data import Splits

DATA_SHARE = 0.5  # of the free memory, at most: the rest is for weights and activations

T = TypeVar("T")


def keep_to_share(place: Place) -> None:
    """A rank with a part of a GPU may take that part of its memory, so that it is never its neighbour that runs out."""
    if place.device == "cuda" and place.gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(place.gpu_share, place.torch_device)


def free_bytes(place: Place) -> int:
    """What a rank may still take of its GPU's memory."""
    free, total = torch.cuda.mem_get_info(place.torch_device)
    return min(free, int(place.gpu_share * total) - torch.cuda.memory_reserved(place.torch_device))


def lay_out(splits: Splits, place: Place) -> Splits:
    """The data on the device if there is ample room for it, else on the host, from where batches are copied."""
    if place.device == "cpu" or splits.nbytes <= DATA_SHARE * free_bytes(place):
        return splits.to(place.torch_device)
    return splits.streamed_to(place.torch_device)


def start_measuring(place: Place) -> None:
    """From here on counts for `peak_bytes`."""
    if place.device == "cuda":
        torch.cuda.reset_peak_memory_stats(place.torch_device)


def peak_bytes(place: Place) -> int | None:
    """Most that tensors took of the GPU since `start_measuring`, data that lies there included.

    None on the CPU, where a process's memory is torch and Python more than the trial.
    """
    return torch.cuda.max_memory_allocated(place.torch_device) if place.device == "cuda" else None


def give_back(place: Place) -> None:
    """Free what the last trial left behind. Trainer and module hold each other, so only the collector finds them."""
    if place.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def within_memory(act: Callable[[], T]) -> T:
    """What `act` returns. Raises OutOfMemory, which holds on to nothing, where the device's memory runs out."""
    try:
        return act()
    except torch.OutOfMemoryError as error:
        text = str(error).partition(". ")[0].splitlines()[0]
        # The stack holds the activations of the step that failed.
        traceback.clear_frames(error.__traceback__)
    raise OutOfMemory(text)
