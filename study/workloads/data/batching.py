"""Whole batches out of tensors, the same for every number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from study.planning.trials import Stage
from study.workloads.data.augment import crop, draw_crops
from study.workloads.data.splits import Part

Batch = tuple[Tensor, Tensor]
_CROPS = 1  # sets their draws apart from those of the order


def derived_seed(*entropy: int) -> int:
    """Return a 63-bit seed from several numbers, each of which matters."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class TrainBatches:
    """A rank's micro batches of a whole trial, or of what is left of it after `done_updates`.

    Every epoch has its own permutation, drawn from (seed, epoch) and so the same on every rank. A global batch is
    a run of it, cut into accumulation x world size micro batches: whatever the split, an update sees the same
    samples, augmented alike. The samples that do not fill a last batch are dropped, other ones each time.
    """

    def __init__(
        self, part: Part, stages: Sequence[Stage], rank: int, seed: tuple[int, ...], done_updates: int = 0
    ) -> None:
        self.part, self.stages, self.rank, self.seed = part, tuple(stages), rank, seed
        self.done_updates = done_updates

    def __len__(self) -> int:
        """Return the micro batches of the whole trial: Lightning counts on from where a trial was."""
        return sum(stage.updates * stage.batch.accumulation for stage in self.stages)

    def indices(self, epoch: int, stage: Stage) -> Tensor:
        """Return sample numbers of this rank, (updates x accumulation, micro batch)."""
        generator = torch.Generator().manual_seed(derived_seed(*self.seed, epoch))
        batch = stage.batch
        used = stage.updates_per_epoch * batch.global_batch
        order = torch.randperm(len(self.part), generator=generator)[:used]
        shape = (stage.updates_per_epoch * batch.accumulation, batch.world_size, batch.micro_batch)
        return order.view(shape)[:, self.rank]

    def crops(self, epoch: int, stage: Stage) -> Tensor:
        """Return the crop of each of `indices`, (updates x accumulation, micro batch, 3)."""
        generator = torch.Generator().manual_seed(derived_seed(*self.seed, epoch, _CROPS))
        batch = stage.batch
        drawn = draw_crops(stage.updates_per_epoch * batch.global_batch, self.part.crop_px, generator)
        return drawn.view(-1, batch.world_size, batch.micro_batch, 3)[:, self.rank]

    def __iter__(self) -> Iterator[Batch]:
        epoch = 0
        for stage in self.stages:
            for first in range(stage.start_update, stage.end_update, stage.updates_per_epoch):
                last = min(first + stage.updates_per_epoch, stage.end_update)
                begin = min(max(self.done_updates, first), last) - first
                if first + begin < last:
                    yield from self._epoch(epoch, stage, begin, last - first)
                epoch += 1

    def _epoch(self, epoch: int, stage: Stage, begin: int, end: int) -> Iterator[Batch]:
        """Yield the micro batches of an epoch's updates from `begin` to `end`."""
        accumulation, size = stage.batch.accumulation, stage.batch.micro_batch
        micro_batches = slice(begin * accumulation, end * accumulation)
        indices = self.indices(epoch, stage)[micro_batches].to(self.part.x.device)
        if self.part.crop_px:
            yield from self._cropped(indices, self.crops(epoch, stage)[micro_batches])
            return
        if self.part.used_on is not None:
            yield from map(self.part.take, indices)
            return
        # One gather an epoch costs less than one a batch; views are then free.
        x, y = self.part.x[indices.flatten()], self.part.y[indices.flatten()]
        yield from zip(x.split(size), y.split(size), strict=True)

    def _cropped(self, indices: Tensor, crops: Tensor) -> Iterator[Batch]:
        """Yield augmented micro batches, one at a time: photographs of a whole epoch would fill the memory twice."""
        for chosen, by in zip(indices, crops, strict=True):
            x, y = self.part.take(chosen)
            yield crop(x, by, self.part.crop_px), y


class EvalBatches:
    """A rank's share of a part, unpadded: each sample is on exactly one rank.

    A rank left without samples still yields one empty batch, since all ranks must take part in the reduction.
    """

    def __init__(self, part: Part, rank: int, world_size: int, batch_size: int) -> None:
        self.part, self.own, self.batch_size = part, slice(rank, None, world_size), batch_size

    def __len__(self) -> int:
        return max(-(-len(self.part.y[self.own]) // self.batch_size), 1)

    def __iter__(self) -> Iterator[Batch]:
        if self.part.used_on is not None:
            yield from map(self.part.take, torch.arange(len(self.part))[self.own].split(self.batch_size))
            return
        x, y = self.part.x[self.own], self.part.y[self.own]
        yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)
