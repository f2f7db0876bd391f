"""Work that Lightning does at every step and a trial has no use for, left out (docs/adr/003).

Of these, `cache_entry_points` reaches into Lightning; the others use its extension points. `lean_loop.py` replaces
Lightning's loop.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import pytorch_lightning as pl

from study.workloads.user_code.lightning_package import LightningPackage

TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_NOTHING: AbstractContextManager[None] = nullcontext()

# What Lightning warns people of who write a training script: speed, loggers, and what a study does in its own way. All
# else that it warns of may change a figure.
ADVICE = (
    "does not have many workers",
    "smaller than the logging interval",
    "no logger configured",
    "has shuffling enabled",
    "dataloader is not resumable",
    "LeafSpec",
    "GPU available but not used",
    "tensorboardX",
    "num_workers",
)


class NoProfiler:
    """The methods of Lightning's Profiler, instead of the default one, which builds a generator at each of some 25
    contexts a step.
    """

    def start(self, action_name: str) -> None:
        """Do nothing."""

    def stop(self, action_name: str) -> None:
        """Do nothing."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:
        """Return one shared context that does nothing."""
        return _NOTHING


def overrides(instance: Any, base: type, hook: str) -> bool:
    """Return whether an object has a method of its own in place of that of Lightning's base class."""
    return hook in vars(instance) or getattr(type(instance), hook) is not getattr(base, hook)


def transfers_itself(trainer: Any, lightning: LightningPackage) -> bool:
    """Return whether the module or the data module has hooks of its own for moving a batch to the device."""
    bases = (
        (trainer.lightning_module, lightning.pytorch.LightningModule),
        (
            trainer.datamodule,
            lightning.pytorch.LightningDataModule,
        ),
    )
    return any(overrides(one, base, hook) for one, base in bases if one is not None for hook in TRANSFERS)


def cache_entry_points(lightning: LightningPackage) -> None:
    """Cache the entry points of installed packages, which Lightning reads from disk at each new Trainer: a third of a
    hand-over.

    What is installed does not change while a rank lives.
    """
    registry = lightning.fabric.utilities.registry
    if not hasattr(registry.entry_points, "cache_info"):
        registry.entry_points = cache(registry.entry_points)


class FastHookModule(pl.LightningModule):
    """A LightningModule on which Lightning can note the current hook quickly, as it does many times a
    step in its own loop.

    torch searches parameters, buffers and submodules at each assignment to a module; a name is none of them.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
