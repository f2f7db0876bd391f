"""What is told of a trial, whoever is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from study.ledger.schema import AttemptRow, EndRow, LeaseRow, ReportRow

METRICS = ("train_loss", "val_loss", "val_accuracy", "samples_per_s", "device_seconds")
PARAMS = ("phase", "variant", "batch_size", "world_size", "micro_batch", "accumulation", "base_lr", "lr", "seed_index")


@dataclass(frozen=True)
class TrialEvent:
    """A row of a trial, and what the rows before it say of the trial."""

    row: AttemptRow | ReportRow | EndRow | LeaseRow
    study_id: str
    attempt: AttemptRow  # the last that began
    updates: int  # that the trial has come to
    billed_device_h: float  # of all its bills since the study began, or began again, this row included
    restarts: int = 0  # of the study, after mistakes (see MistakeRow)

    @property
    def trial_id(self) -> str:
        """The trial; after a mistake, one of another name, so that nothing of what other code did stands beside it."""
        return f"{self.row.trial_id}.{self.restarts + 1}" if self.restarts else self.row.trial_id

    @property
    def params(self) -> dict[str, str | int | float]:
        """What the trial was given."""
        return {name: getattr(self.attempt, name) for name in PARAMS}

    @property
    def metrics(self) -> dict[str, float]:
        """What a report has measured."""
        return {name: value for name in METRICS if (value := getattr(self.row, name)) is not None}

    @property
    def at_s(self) -> float:
        """When the row was written, Unix time."""
        return datetime.fromisoformat(self.row.written).timestamp()
