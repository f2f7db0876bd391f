"""Shares the batches of a stream out to ranks, which Lightning cannot do: it gives every rank the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch.distributed as dist

from study.errors import ConfigError
from study.training.distributed.topology import RankTopology
from study.workloads.user_code.loaders import KEY, fingerprint, sizes


def whole_batches(batches: Iterable[Any], asked: int) -> Iterator[Any]:
    """Yield the batches of the size asked for, up to a smaller one at the end. Raises ConfigError if the first is not
    whole.
    """
    for number, batch in enumerate(batches):
        found = sizes(batch)
        if found and asked not in found:
            if number == 0:
                raise ConfigError(
                    f"its train_dataloader yields a batch of {min(found)} when batch_size is {asked}; samples are "
                    "counted by the rows of tensors, unless the loader is a DataLoader with a batch_size",
                    KEY,
                )
            return
        yield batch


def rank_batches(batches: Iterable[Any], topology: RankTopology) -> Iterator[Any]:
    """Yield this rank's batches: of W ranks, rank r takes batches r, r + W, r + 2W and so on.

    An update so sees the same samples on any number of ranks. All ranks draw all batches, so that they come to the end
    together. Every rank must draw at the same time. Raises ConfigError if the ranks' streams differ.
    """
    source = iter(batches)
    first = True
    while len(group := list(islice(source, topology.world_size))) == topology.world_size:
        if first:
            _check_same(group[0], topology.world_size)
        first = False
        yield group[topology.rank]


def _check_same(batch: Any, world_size: int) -> None:
    prints: list[Any] = [None] * world_size
    dist.all_gather_object(prints, fingerprint(batch))
    if len(set(prints)) > 1:
        raise ConfigError(
            "its training stream yields the ranks different samples: it must yield the same on all, in the same order, "
            "and a study shares them out",
            KEY,
        )
