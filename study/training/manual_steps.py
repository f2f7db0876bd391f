"""Counting updates of a module that optimizes by hand: one training batch, after which every optimizer has stepped."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_lightning as pl
import torch

from study.errors import ConfigError


@dataclass(frozen=True)
class _Steps:
    """The optimizer steps of one training batch."""

    optimizers: frozenset[int]  # their places in configure_optimizers
    count: int  # of steps, as Lightning counts them in `trainer.global_step`

    def __str__(self) -> str:
        which = f" of optimizer {', '.join(map(str, sorted(self.optimizers)))}" if self.optimizers else ""
        return f"{self.count} steps{which}"


class ManualSteps:
    """Checks that every training batch is one update: each makes the same steps with the same optimizers.

    Where steps are left out (gradients accumulated by hand, optimizers that take turns), the samples of an update are
    not those of the study's batch size, and updates cannot be counted.
    """

    def __init__(self) -> None:
        self._each: _Steps | None = None  # of every batch, known from the first one on
        self._optimizers: set[int] = set()  # that stepped in the current batch

    def begin(self, trainer: pl.Trainer) -> None:
        """Note how many steps an attempt begins with."""
        self._before = trainer.global_step

    def note(self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> None:
        """Note an optimizer that is about to step."""
        self._optimizers.add(trainer.optimizers.index(optimizer))

    def check(self, trainer: pl.Trainer) -> None:
        """Compare the steps of the batch that ended with those of the first. Raises ConfigError."""
        made = _Steps(frozenset(self._optimizers), trainer.global_step - self._before)
        self._before, self._optimizers = trainer.global_step, set()
        each = self._each = self._each or made
        if not made.count:
            raise ConfigError(
                "it optimizes by hand, and made no step in a training batch: an update of a study is one batch; call "
                "step() of what self.optimizers() returns in each",
                "workload.module",
            )
        if made != each:
            raise ConfigError(
                f"it optimizes by hand, and made {each} in one training batch and {made} in another: an update of a "
                "study is one batch, in which every optimizer steps, each as often as in any other batch",
                "workload.module",
            )
