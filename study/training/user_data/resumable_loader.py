"""A user's data loader that can go on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from study.training.snapshot import State, generators, set_generators


class ResumableLoader:
    """The first `limit` batches of a loader in each epoch, as `draw` makes them; keeps the generators' state of the
    epoch's start.

    A loader shuffles and augments by global generators, so an epoch that begins from the same state yields the same
    batches again: those that had been trained on are drawn and thrown away.
    """

    def __init__(self, loader: Any, limit: int, draw: Callable[[Any], Iterator[Any]] = iter) -> None:
        self.loader, self.limit, self.draw = loader, limit, draw
        self.began: State = {}
        self._skip = 0

    def __getattr__(self, name: str) -> Any:
        """Pass on what Lightning asks of the loader: its dataset and its sampler."""
        return getattr(self.loader, name)

    def __len__(self) -> int:
        """Return the limit, for streams too: Lightning then draws no batch ahead, which would move the generators."""
        return self.limit

    def go_on(self, skip: int, began: State, now: State) -> None:
        """Begin the next epoch from the state `began`, behind its first `skip` batches, with generators as `now`."""
        self._skip, self.began, self._now = skip, began, now

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        if skip:
            set_generators(self.began)
        else:
            self.began = generators()
        batches = islice(self.draw(self.loader), self.limit)
        if skip:
            for _ in islice(batches, skip):
                pass
            set_generators(self._now)
        yield from batches
