"""The order in which a user's map-style loader is drawn, and each rank's share of it.

Lightning would replace the samplers of several ranks by one of its own, with the same seed in every trial. Here the
loader keeps the samplers that the user gave it. They are drawn under a seed of the trial and the epoch, alike on every
rank, and each rank takes its part: the order of the data depends on the trial's seed, and not on the number of ranks.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler, SequentialSampler

from study.errors import ConfigError
from study.training.distributed.topology import RankTopology
from study.workloads.data.batching import derived_seed
from study.workloads.user_code.loaders import KEY, fingerprint, sampler_of, samples_of

_ORDER, _VALIDATION = 2, 3  # set these draws apart from those of weights, and from one another


class TrainShare(Sampler[list[int]]):
    """The indices of this rank's micro batches, epoch by epoch; replaces the loader's batch sampler.

    Of a sampler's order, each run of world size x micro batch samples is one micro batch for every rank, so that an
    update sees the same samples on any number of ranks. Of a user's own batch sampler each rank takes every W-th batch.
    torch's DistributedSampler has taken this rank's share already. Raises ConfigError.
    """

    def __init__(
        self, loader: DataLoader[Any], topology: RankTopology, seed: Sequence[int], micro_batch: int, batches: int
    ) -> None:
        self.sampler, self.batch_sampler = sampler_of(loader), loader.batch_sampler
        self.topology, self.seed, self.micro_batch, self.batches = topology, tuple(seed), micro_batch, batches
        self.epoch = 0
        self.drawn = b""  # digest of all that was drawn in this attempt
        if isinstance(self.sampler, DistributedSampler):
            meant = self.sampler.num_replicas, self.sampler.rank
            if meant != (topology.world_size, topology.rank):
                raise ConfigError(
                    f"its DistributedSampler is for rank {meant[1]} of {meant[0]}, on rank {topology.rank} of "
                    f"{topology.world_size}; leave num_replicas and rank out, or the sampler",
                    KEY,
                )
        _replace_batch_sampler(self, loader)

    def __len__(self) -> int:
        """Return the micro batches that this rank takes in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        seed = derived_seed(*self.seed, self.epoch, _ORDER)
        _prepare([self.sampler, self.batch_sampler], seed, self.epoch)
        ranks, rank = self.topology.world_size, self.topology.rank
        shared = isinstance(self.sampler, DistributedSampler)
        count = self.batches if shared else self.batches * ranks
        with _seeded(seed):
            if type(self.batch_sampler) is BatchSampler:
                drawn = _cut(list(islice(self.sampler, count * self.micro_batch)), self.micro_batch)
            else:
                assert self.batch_sampler is not None
                drawn = [list(batch) for batch in islice(self.batch_sampler, count)]
                check_sizes(drawn, self.micro_batch)
        if shared:
            yield from drawn
            return
        first, self.drawn = not self.drawn, _digest((self.drawn, drawn))
        if first:
            self.check_alike()
        yield from drawn[: len(drawn) - len(drawn) % ranks][rank::ranks]

    def check_alike(self) -> None:
        """Raise ConfigError if the ranks' samplers drew differently, in any epoch so far. Every rank must call it.

        Called at the first epoch, and before each report. At each epoch it would be as slow as a step or two, and a
        small training set has an epoch every few steps.
        """
        _check_alike(self.drawn, "its training sampler gives the ranks different samples")


class ValidationShare(Sampler[list[int]]):
    """This rank's share of a validation set, without padding: each sample is on exactly one rank.

    Every rank has a batch, and all have the same number of them while there are enough samples: a module may gather
    after each. Of more than `most` batches it yields the first ones and the last; a rank that has fewer than others
    still has. Raises ConfigError if there are fewer samples (or batches, of the user's own batch sampler) than ranks.
    """

    def __init__(
        self, loader: DataLoader[Any], topology: RankTopology, seed: Sequence[int], most: int | None = None
    ) -> None:
        self.sampler, self.batch_sampler, self.topology = sampler_of(loader), loader.batch_sampler, topology
        self.most = most
        self.samples = 0  # that this rank drew last
        if type(self.sampler) is DistributedSampler:  # which would pad
            self.sampler = SequentialSampler(self.sampler.dataset)  # type: ignore[arg-type]
        self.seed = derived_seed(*seed, _VALIDATION)
        batches: Any = self.batch_sampler
        standard = type(batches) is BatchSampler
        self.batch_size: int | None = batches.batch_size if standard else None
        self.total = self._count(self.sampler if standard else batches)
        if self.batch_size is not None and batches.drop_last:
            self.total -= self.total % self.batch_size
        if self.total == 0:
            raise ConfigError("its validation set is empty", KEY)
        if self.total < topology.world_size:
            found = f"{self.total} {'samples' if standard else 'batches'}"
            raise ConfigError(
                f"its validation set has {found} for {topology.world_size} ranks, fewer than one each", KEY
            )
        _replace_batch_sampler(self, loader)

    def _count(self, source: Any) -> int:
        """Return how many samples or batches are drawn."""
        if hasattr(source, "__len__"):
            return len(source)
        _prepare([self.sampler, self.batch_sampler], self.seed, 0)
        with _seeded(self.seed):
            return sum(1 for _ in source)

    def __len__(self) -> int:
        """Return the number of batches that this rank draws."""
        if self.most is None or self._batches(0) <= self.most:
            return self._batches(self.topology.rank)
        return self.most - (self._batches(0) - self._batches(self.topology.rank))

    def _batches(self, rank: int) -> int:
        """Return the batches of a rank: as many as the rank with most samples has, but not more than it has samples."""
        own = len(range(rank, self.total, self.topology.world_size))
        return (
            own if self.batch_size is None else min(-(-self.total // (self.topology.world_size * self.batch_size)), own)
        )

    def __iter__(self) -> Iterator[list[int]]:
        _prepare([self.sampler, self.batch_sampler], self.seed, 0)
        source: Any = self.sampler if self.batch_size is not None else self.batch_sampler
        with _seeded(self.seed):
            drawn = list(islice(source, self.total))
        if not isinstance(source, SequentialSampler):
            _check_alike(drawn, "its validation sampler gives the ranks different samples")
        own = drawn[self.topology.rank :: self.topology.world_size]
        batches = own if self.batch_size is None else _cut(own, self.batch_size)
        count = self._batches(self.topology.rank)
        if len(batches) < count:  # another rank has one sample more, and so a batch more
            batches = [[own[i] for i in part] for part in np.array_split(np.arange(len(own)), count)]
        if len(self) < len(batches):
            batches = [*batches[: len(self) - 1], batches[-1]]
        self.samples = sum(len(batch) for batch in batches)
        yield from batches


def check_sizes(batches: Sequence[Sequence[int]], micro_batch: int) -> None:
    """Raise ConfigError if a user's batch sampler yields a batch that is not a micro batch."""
    for number, batch in enumerate(batches):
        if len(batch) != micro_batch:
            raise ConfigError(
                f"its batch sampler yields {len(batch)} samples in batch {number} of an epoch, when a rank takes "
                f"{micro_batch}: all must be of batch_size",
                KEY,
            )


def check_same_data(loader: DataLoader[Any], what: str) -> None:
    """Raise ConfigError if the ranks hold different data: a part each, which would be shared out once more.

    Compares the number of samples and the first one, unless a generator of the set's own augments it. Every rank must
    call it.
    """
    if not dist.is_initialized():
        return
    found = set()
    with suppress(Exception):  # an empty set, or one whose keys are not numbers: only the size is compared
        for _ in range(8):
            with _seeded(0):  # it may be augmented
                found.add(fingerprint(loader.collate_fn([loader.dataset[0]])))
    says = f"its {what} set is not the same on all ranks"
    _check_alike(samples_of(loader), says)
    if _everywhere(len(found) == 1):
        _check_alike(found, says)


def _replace_batch_sampler(share: Sampler[list[int]], loader: DataLoader[Any]) -> None:
    """Set `batch_sampler` behind torch's back.

    torch refuses to change a loader's sampler once it is made, and making another would have to know all the arguments
    of the user's class; both its iterators ask for `batch_sampler` when they start.
    """
    object.__setattr__(loader, "batch_sampler", share)


def _prepare(samplers: Sequence[Any], seed: int, epoch: int) -> None:
    """Give samplers what they take: the epoch, and a seed for their generator or their own seed."""
    inner = [getattr(sampler, "sampler", None) for sampler in samplers]
    for sampler in {id(one): one for one in (*samplers, *inner) if one is not None}.values():
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)
        if isinstance(getattr(sampler, "generator", None), torch.Generator):
            sampler.generator.manual_seed(seed)
        if type(getattr(sampler, "seed", None)) is int:
            sampler.seed = seed % 2**31


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Start the global generators from the seed inside; restore them afterwards."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _cut(order: Sequence[int], size: int) -> list[list[int]]:
    """Return the order in runs of `size`, the last one with what is left."""
    return [list(order[i : i + size]) for i in range(0, len(order), size)]


def _everywhere(fact: bool) -> bool:
    """Return whether the fact is true on every rank."""
    if not dist.is_initialized():
        return fact
    facts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(facts, fact)
    return all(facts)


def _digest(drawn: Any) -> bytes:
    return hashlib.sha256(pickle.dumps(drawn)).digest()


def _check_alike(drawn: Any, says: str) -> None:
    if not dist.is_initialized():
        return
    digests: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(digests, _digest(drawn))
    if len(set(digests)) > 1:
        raise ConfigError(f"{says}: it must be the same on all ranks, and a study gives each rank its share", KEY)
