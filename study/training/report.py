"""What a rank tells at the end of an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


class OutOfMemory(Exception):
    """A trial needs more memory than its device has."""


@dataclass(frozen=True)
class Report:
    """One interval, measured on this rank; losses and accuracies are over all ranks."""

    updates: int
    samples: int
    epochs: float
    lr: float
    train_loss: float
    train_accuracy: float | None  # this and the next: None where a user's own module does not tell
    val_loss: float | None
    val_accuracy: float
    test_accuracy: float | None
    samples_per_s: float
    phases_s: dict[str, float]  # train, validate, probe: cumulative
    final: bool
    probes: dict[str, float] = field(default_factory=dict)  # further measurements, by name
    energy_j: float | None = None  # of this rank's GPU since the trial was ready; None without a meter
    peak_memory_bytes: int | None = None  # of this rank's GPU since the trial began; None on the CPU

    @property
    def diverged(self) -> bool:
        """A loss that is no number cannot become one again."""
        return not all(math.isfinite(loss) for loss in (self.train_loss, self.val_loss) if loss is not None)
