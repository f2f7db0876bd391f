"""A user's callbacks, without those whose work a study does in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from study.errors import ConfigError
from study.workloads.user_code.lightning_package import LightningPackage

_LEFT_OUT = {
    ("EarlyStopping", "Timer"): "a study decides when a trial ends",
    ("Checkpoint",): "a study keeps checkpoints of its own",
    ("ProgressBar", "ModelSummary"): "what a trial prints is not shown",
    ("BatchSizeFinder", "LearningRateFinder"): "a study sets batch sizes and rates",
}


def kept_callbacks(made: Any, owner: str, lightning: LightningPackage, notes: list[str]) -> list[Any]:
    """Return the callbacks of an `owner`, such as "the module", that a trial calls; add a note for each other one.

    `made` is one or several. Raises ConfigError for a callback of another package than the module.
    """
    known = lightning.pytorch.callbacks
    kept = []
    for callback in made if isinstance(made, Sequence) else [made]:
        name = type(callback).__name__
        if not isinstance(callback, known.Callback):
            raise ConfigError(
                f"its configure_callbacks gives {name}, which is no Callback of {lightning.name}, the package that the "
                "module is of",
                "workload.module",
            )
        if reason := _reason_to_leave_out(callback, known):
            notes.append(f"{name} of {owner} is left out: {reason}")
            continue
        if isinstance(callback, known.StochasticWeightAveraging):
            notes.append(f"{name} averages weights after the last validation: figures are of weights not averaged")
        kept.append(callback)
    return kept


def _reason_to_leave_out(callback: Any, known: Any) -> str | None:
    for names, reason in _LEFT_OUT.items():
        if isinstance(callback, tuple(getattr(known, name) for name in names)):
            return reason
    return None
