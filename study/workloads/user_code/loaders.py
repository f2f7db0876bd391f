"""Facts about a user's data loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from study.errors import ConfigError

KEY = "workload.data"
DEEPEST = 4  # objects in objects of a batch; they may refer to one another


def single_loader(loader: Any) -> Any:
    """Return the loader itself. Raises ConfigError if there are several."""
    if isinstance(loader, list | tuple | dict) or type(loader).__name__ == "CombinedLoader":
        raise ConfigError("train_dataloader must give one loader, not several", KEY)
    return loader


def is_stream(loader: Any) -> bool:
    """Return whether its samples can be neither counted nor shared out to ranks: anything but a DataLoader that makes
    batches of the samples of a map-style set.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return True
    return loader.batch_sampler is None


def draws_batches(loader: DataLoader[Any]) -> bool:
    """Return whether a batch sampler of the user's own draws a map-style loader's batches."""
    return type(loader.batch_sampler) is not BatchSampler


def sampler_of(loader: DataLoader[Any]) -> Any:
    """Return the sampler of single samples: torch keeps another in `loader.sampler` where a batch sampler was given."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def samples_of(loader: DataLoader[Any]) -> int:
    """Return the samples that all ranks together draw in an epoch of a map-style loader."""
    sampler = sampler_of(loader)
    if isinstance(sampler, DistributedSampler):  # Lightning's, over the set, or over the user's sampler
        sampler = sampler.dataset
    return len(sampler)


def check_batch_size(loader: Any, micro_batch: int, world_size: int = 1) -> bool:
    """Return whether the loader declares a batch size. Raises ConfigError if it is not the micro batch of a rank."""
    declared = getattr(loader, "batch_size", None) or getattr(
        getattr(loader, "batch_sampler", None), "batch_size", None
    )
    if declared is None:
        return False
    if declared != micro_batch:
        remedy = "; workload.batch_size_key names the argument that sets it"
        if declared * world_size == micro_batch:
            remedy = (
                f": it divides batch_size by the {world_size} ranks; with workload.data_batch: global, it is given the "
                "samples of all of them"
            )
        raise ConfigError(
            f"its train_dataloader yields batches of {declared} when a rank takes {micro_batch} samples{remedy}", KEY
        )
    return True


def sizes(batch: Any) -> set[int]:
    """Return the first dimensions of a batch's tensors, one of which is the number of its samples."""
    return {len(leaf) for leaf in _tensors(batch) if leaf.dim()}


def fingerprint(batch: Any) -> str:
    """Return a text that is equal for equal batches: the sums of their tensors."""
    return repr([float(leaf.double().sum()) for leaf in _tensors(batch)])


def _tensors(batch: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch, of tokenizers' mappings and of objects such as graphs too."""
    for leaf in tree_leaves(batch):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif depth < DEEPEST and (isinstance(leaf, Mapping) or hasattr(leaf, "__dict__")):
            yield from _tensors(dict(leaf) if isinstance(leaf, Mapping) else vars(leaf), depth + 1)
