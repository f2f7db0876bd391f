"""What a rank tells at the end of an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from study.errors import ClusterError, StudyError


class OutOfMemory(StudyError):
    """A trial needs more memory than its device has."""


class Mistake(StudyError):
    """What a trial did wrong, in one line: any process can read it, whatever was raised."""


class PeerLost(ClusterError):
    """A rank lost the connection to another of its group."""


@dataclass(frozen=True)
class RankReport:
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
    skipped_batches: int = 0  # micro batches of all ranks in this interval for which training_step returned no loss

    @property
    def diverged(self) -> bool:
        """A figure that is no number cannot become one again, and a trial cannot be judged by it."""
        figures = (self.train_loss, self.val_loss, self.val_accuracy)
        return not all(math.isfinite(figure) for figure in figures if figure is not None)
