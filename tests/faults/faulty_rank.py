"""A user's module that kills, stops or blocks one rank, once in a study, at a given point."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any, Literal

import psutil
import ray
import torch.distributed as dist

from tests.user_code import Batch, Net

At = Literal["", "setup", "hand-over", "step", "validation", "checkpoint", "end"]
FAULTY_RANK = 1


class FaultyModule(Net):
    """The first to reach the point `at` creates the file `once`, and `how` happens to it."""

    built = 0  # instances in this process

    def __init__(self, once: str, at: At, updates: int, how: Literal["KILL", "STOP", "stuck", "KILL driver"]) -> None:
        super().__init__()
        self.once, self.at, self.updates, self.how = Path(once), at, updates, how
        type(self).built += 1
        self._reach("setup" if self.built == 1 else "hand-over", updates)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """Fail before the update."""
        self._reach("step", self.global_step + 1)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Behind the update."""
        self._reach("validation", self.global_step)
        super().validation_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Behind the update."""
        self._reach("checkpoint", self.global_step)

    def on_fit_end(self) -> None:
        """When the group is handed over."""
        self._reach("end", self.global_step)

    def _reach(self, at: At, updates: int) -> None:
        if at != self.at or updates != self.updates or dist.get_rank() != FAULTY_RANK:
            return
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return
        if self.how == "stuck":
            threading.Event().wait()
        if self.how == "KILL driver":  # of the group that is being handed over: a process of the same raylet
            for process in psutil.Process(os.getppid()).children():
                if "TrialRun.reset" in " ".join(process.cmdline()):
                    process.kill()
                    self.once.write_text(f"{process.pid} {ray.get_runtime_context().get_placement_group_id()}")
            return
        os.kill(os.getpid(), getattr(signal, f"SIG{self.how}"))
