"""A user's module whose rank is killed once in a study, for the contract test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from torch import Tensor

from tests.linear import LinearModule


class DiesOnce(LinearModule):
    """Kills its process before update `at`, unless the file `marker` exists already."""

    def __init__(self, at: int, marker: str) -> None:
        super().__init__()
        self.at, self.marker = at, Path(marker)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Die, or train."""
        if self.global_step + 1 == self.at and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)
