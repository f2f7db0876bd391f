"""A module that fails in the way its arguments name, for the tests of training that goes wrong."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tests.linear import LinearData, LinearModule

MEGABYTE = 10**6
Batch = tuple[Tensor, Tensor]


class Unpicklable(Exception):
    """Holds on to what no other process can have."""

    def __init__(self, text: str) -> None:
        super().__init__(text, lambda: None)


class Mute(Exception):
    """Raises where its text is asked for."""

    def __str__(self) -> str:
        raise ArithmeticError("no text")


class Foreign(BaseException):
    """Of the user's own, and no Exception."""


def raises(error: BaseException) -> Callable[[], None]:
    """What raises it."""

    def act() -> None:
        raise error

    return act


def fork_goes_on() -> None:
    """A child that never ends."""
    if os.fork() == 0:
        while True:
            time.sleep(60)


def prints() -> None:
    """A megabyte on either stream."""
    for stream in (sys.stdout, sys.stderr):
        stream.write(("printed by the module " * 4 + "\n") * (MEGABYTE // 89))
        stream.flush()


ACTS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "raise": raises(ArithmeticError("the module broke")),
    "unpicklable": raises(Unpicklable("it holds a lambda")),
    "mute": raises(Mute()),
    "megabyte": raises(ArithmeticError("\x1b[31m\x07" + "m" * MEGABYTE)),
    "base": raises(Foreign("of its own")),
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "interrupt": raises(KeyboardInterrupt()),
    "generator": raises(GeneratorExit()),
    "memory": raises(MemoryError()),
    "cuda": raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")),
    "cpu": lambda: torch.empty(10**15) and None,
    "fork": fork_goes_on,
    "print": prints,
}


class Misbehaving(LinearModule):
    """Does `act` in the hook called `where` once it was called `after` times, on `only_rank` if that is given.

    `loss` is then added to the training loss and `weight` to every weight; `val_loss` and `val_acc` to what it logs, in
    all validations. It logs no loss if `val_loss` is None.
    """

    def __init__(
        self,
        act: str = "nothing",
        where: str = "training_step",
        after: int = 2,
        only_rank: int | None = None,
        loss: float | str = 0.0,
        val_loss: float | str | None = 0.0,
        weight: float | str = 0.0,
        val_acc: float | str = 0.0,
    ) -> None:
        super().__init__()
        self.act, self.where, self.after, self.at_rank = act, where, after, only_rank
        # As text too, since a study file may not hold NaN.
        self.add = {"loss": float(loss), "weight": float(weight), "acc": float(val_acc)}
        self.add_val_loss = None if val_loss is None else float(val_loss)
        self.calls = 0
        self._perhaps("__init__")

    def _perhaps(self, where: str) -> bool:
        """Act, if it is time."""
        if where != self.where:
            return False
        self.calls += 1
        if where != "__init__" and (self.calls <= self.after or self.at_rank not in (None, self.global_rank)):
            return False
        ACTS[self.act]()
        return True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a loss that may be NaN."""
        due = self._perhaps("training_step")
        loss = super().training_step(batch, batch_idx)
        if due and self.add["weight"]:
            with torch.no_grad():
                self.layer.weight += self.add["weight"]
        return loss + self.add["loss"] if due and self.add["loss"] else loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log an accuracy that may be NaN, and perhaps no loss."""
        self._perhaps("validation_step")
        x, y = batch
        logits = self.layer(x)
        self.log("acc", (logits.argmax(1) == y).float().mean() + self.add["acc"], sync_dist=True)
        if self.add_val_loss is not None:
            loss = torch.nn.functional.cross_entropy(logits, y)
            self.log("loss", loss + self.add_val_loss, sync_dist=True)

    def on_train_end(self) -> None:
        """When the last report has been given."""
        self._perhaps("on_train_end")

    def configure_optimizers(self) -> Any:
        """Plain."""
        self._perhaps("configure_optimizers")
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stream(IterableDataset[Any]):
    """The samples that it is given, and no more of them after so many times."""

    def __init__(self, samples: Any, times: int) -> None:
        self.samples, self.times = samples, times

    def __iter__(self) -> Any:
        self.times -= 1
        return iter(self.samples if self.times >= 0 else ())


class MisbehavingData(LinearData):
    """It validates on a set (`val` "set"), an empty one ("none"), or a stream that can be read `val` times; `workers`
    draw the batches.
    """

    def __init__(self, batch_size: int, samples: int = 64, val: str | int = "set", workers: int = 0) -> None:
        super().__init__(batch_size, samples)
        self.val, self.workers = val, workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled, perhaps by workers."""
        return DataLoader(self.data, self.batch_size, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        """What it was told."""
        if self.val == "none":
            return DataLoader([], 32)  # type: ignore[arg-type]
        return super().val_dataloader() if self.val == "set" else DataLoader(Stream(self.data, int(self.val)), 32)
