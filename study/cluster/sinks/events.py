"""What sinks receive: the rows of a trial, each with what the rows before it say of the trial."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow
from study.ledger.state import StudyState

METRICS = ("train_loss", "val_loss", "val_accuracy", "samples_per_s", "device_seconds")  # beside a module's own
PARAMS = ("phase", "variant", "batch_size", "world_size", "micro_batch", "accumulation", "base_lr", "lr", "seed_index")


@dataclass(frozen=True)
class TrialEvent:
    """A row of a trial, and the trial's state once that row is applied."""

    row: AttemptRow | ReportRow | EndRow | LeaseRow
    study_id: str
    attempt: AttemptRow  # the last that began
    updates: int  # that the last attempt has come to
    billed_device_h: float  # of all its leases since the study began, or began again, this row included
    restarts: int = 0  # of the study, after mistakes (see MistakeRow)
    objective: str = "val_accuracy"  # the metric that the study is judged by

    @classmethod
    def of(cls, row: AnyRow, state: StudyState) -> TrialEvent | None:
        """Return the event of the row that was applied to `state` last; None for a row of no trial, or of one that was
        not begun because its group could not be started.
        """
        if not isinstance(row, AttemptRow | ReportRow | EndRow | LeaseRow):
            return None
        trial = state.trial(row.trial_id)
        if trial.attempt is None or not trial.begun:
            return None
        return cls(
            row=row,
            study_id=state.last_opened.study_id if state.last_opened else "",
            attempt=trial.attempt,
            updates=trial.updates,
            billed_device_h=sum(lease.billed_device_h for lease in trial.current_leases),
            restarts=state.restarts,
            objective=state.objective.metric,
        )

    @property
    def trial_id(self) -> str:
        """The trial's id; after a mistake with a number, so that results of other code are not shown as its own."""
        return f"{self.row.trial_id}.{self.restarts + 1}" if self.restarts else self.row.trial_id

    @property
    def params(self) -> dict[str, str | int | float]:
        """The trial's parameters, PARAMS, from its attempt."""
        return {name: getattr(self.attempt, name) for name in PARAMS}

    @property
    def metrics(self) -> dict[str, float]:
        """The METRICS of a report that have a value, and the further ones that its module logged."""
        known = {name: value for name in METRICS if (value := getattr(self.row, name)) is not None}
        return known | (self.row.metrics if isinstance(self.row, ReportRow) else {})

    @property
    def at_s(self) -> float:
        """When the row was written, Unix time in seconds."""
        return datetime.fromisoformat(self.row.written).timestamp()
