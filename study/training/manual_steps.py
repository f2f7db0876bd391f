"""Counting updates of a module that optimizes by hand: one training batch, after which every optimizer has stepped."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from study.errors import ConfigError


class ManualSteps:
    """Checks that every training batch is one update: each makes the same steps with the same optimizers.

    Where steps are left out (gradients accumulated by hand, optimizers that take turns), the samples of an update are
    not those of the study's batch size, and updates cannot be counted.
    """

    def __init__(self) -> None:
        # Of every batch, known from the first one on: places in configure_optimizers, and steps in `global_step`.
        self.each: dict[str, Any] | None = None
        self._optimizers: set[int] = set()  # that stepped in the current batch

    def begin(self, trainer: pl.Trainer, each: dict[str, Any] | None) -> None:
        """Begin an attempt, from `each` of the attempt before."""
        self._before, self.each = trainer.global_step, each

    def note(self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> None:
        """Note an optimizer that is about to step."""
        self._optimizers.add(trainer.optimizers.index(optimizer))

    def check(self, trainer: pl.Trainer) -> None:
        """Compare the steps of the batch that ended with those of the first. Raises ConfigError."""
        made = {"optimizers": sorted(self._optimizers), "steps": trainer.global_step - self._before}
        self._before, self._optimizers = trainer.global_step, set()
        self.each = self.each or made
        if not made["steps"]:
            raise ConfigError(
                "it optimizes by hand, and made no step in a training batch: an update of a study is one batch; call "
                "step() of what self.optimizers() returns in each",
                "workload.module",
            )
        if made != self.each:
            raise ConfigError(
                f"it optimizes by hand, and made {_text(self.each)} in one batch and {_text(made)} in another: "
                "an update of a study is one batch, in which every optimizer steps, always equally often",
                "workload.module",
            )


def _text(made: dict[str, Any]) -> str:
    return f"{made['steps']} step{'s' * (made['steps'] > 1)} (optimizers {', '.join(map(str, made['optimizers']))})"
