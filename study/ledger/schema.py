"""The rows of a ledger.

Durations are monotonic seconds of the one process that writes. `at_s` is the writer's clock in seconds since the
study's first row, without the time between two drivers. Only `written` is wall-clock time, for people.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter

from study.config.sections import LimitName
from study.measurement import NO_READINGS, CurvePoint, Judged, ProbeReadings
from study.safe_text import printable

PROTOCOL_VERSION = "1.6"
PHASES = ("setup", "train", "validate", "checkpoint", "probe", "idle", "teardown", "lost")
# audit: stopped, but trained on to check the stopping; cut: paused because a limit on spending is passed
Decision = Literal["continue", "pause", "stop", "audit", "cut"]
# infeasible: it needs more memory than its device has
Outcome = Literal["completed", "stopped", "diverged", "failed", "infeasible"]
CENSORED: frozenset[Outcome] = frozenset({"stopped", "diverged", "failed", "infeasible"})


# A ledger may come from an untrusted cluster: trial ids name files, and other text may hold control characters.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9+_][A-Za-z0-9+._-]*$", max_length=200)]
Variant = Annotated[str, Field(pattern=r"^([A-Za-z0-9+][A-Za-z0-9+._-]*)?$", max_length=40)]
Line = Annotated[str, AfterValidator(printable)]


class Row(BaseModel):
    """The fields of every row. Metrics may be non-finite, as the loss of a trial that diverged."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", defer_build=True)

    at_s: float
    written: Line  # UTC, ISO 8601
    protocol_version: str = PROTOCOL_VERSION


class StudyRow(Row):
    """Opens the ledger, and again each time a study is resumed."""

    kind: Literal["study"] = "study"
    study_id: Line
    config: dict[str, Any]
    config_hash: str
    hardware: dict[str, Any]
    versions: dict[str, str]


class AttemptRow(Row):
    """One try at a trial begins on one lease: its group is ready to train."""

    kind: Literal["attempt"] = "attempt"
    trial_id: Name
    attempt: int  # from 1
    lease_id: Line
    group_id: Line
    device: Line  # "cpu", or the GPU's name
    nodes: tuple[Line, ...]
    hosts: tuple[Line, ...] = ()  # of the nodes, in their order, for people: name and address
    setup_s: float  # since the lease began
    phase: Literal["search", "confirm"]
    variant: Variant = ""
    batch_size: int  # achieved: world size x micro batch x accumulation; the first of a growing batch
    world_size: int
    devices_per_rank: float = 1.0  # below 1 where ranks share GPUs
    micro_batch: int
    accumulation: int
    norm_batch: int | None  # samples behind one batch-norm statistic; None without batch norm
    base_lr: float
    lr: float
    seed_index: int  # 0 in the search, 1, 2, ... in confirm: the study's own seed stands in its config
    updates_per_epoch: int
    total_updates: int
    from_updates: int = 0  # where the attempt goes on from a checkpoint; 0 for the trial's beginning


class ReportRow(Row, Judged):
    """What a rank group measured over one interval; cumulative figures are those of the attempt."""

    kind: Literal["report"] = "report"
    trial_id: Name
    attempt: int
    updates: int
    samples: int
    epochs: float
    lr: float
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None  # None where a user's own module does not log it
    val_accuracy: float | None  # the same
    metrics: dict[str, float] = {}  # further ones, by the name under which they are logged
    test_accuracy: float | None  # at the end of a confirm trial only
    samples_per_s: float  # of this interval, training time only
    device_seconds: float  # ranks x (training + validation), cumulative over what this attempt goes on from, too
    phases_s: dict[str, float]  # cumulative
    final: bool = False  # the trial has come to its end
    probes: dict[str, float] = {}  # further measurements, by name
    energy_j: float | None = None  # of this attempt so far, all its GPUs; None where no meter was read
    peak_memory_bytes: int | None = None  # of this attempt so far, of the rank that needed most; None on the CPU
    skipped_batches: int = 0  # micro batches of this interval, of all ranks, for which training_step returned no loss

    @property
    def point(self) -> CurvePoint:
        """The report as a point of a learning curve."""
        return CurvePoint(  # field by field: a large ledger holds a million of them
            updates=self.updates,
            samples=self.samples,
            epochs=self.epochs,
            lr=self.lr,
            train_loss=self.train_loss,
            train_accuracy=self.train_accuracy,
            val_loss=self.val_loss,
            val_accuracy=self.val_accuracy,
            metrics=self.metrics,
            test_accuracy=self.test_accuracy,
            samples_per_s=self.samples_per_s,
            skipped_batches=self.skipped_batches,
            probes=ProbeReadings.from_stored(self.probes) if self.probes else NO_READINGS,
            device_seconds=self.device_seconds,
        )


class DecisionRow(Row):
    """The scheduler's decision on a report, written before anything acts on it."""

    kind: Literal["decision"] = "decision"
    trial_id: Name
    attempt: int
    updates: int
    decision: Decision


class LeaseRow(Row):
    """The bill of one attempt: from lease to release or hand-over."""

    kind: Literal["lease"] = "lease"
    lease_id: Line
    group_id: Line
    trial_id: Name
    attempt: int
    device: Line
    devices: float  # ranks x devices per rank
    nodes: tuple[Line, ...]
    hosts: tuple[Line, ...] = ()  # see AttemptRow
    reason: Literal["hand_over", "released", "lost"]
    billed_s: float  # per device
    phases_s: dict[str, float]  # adds up to billed_s
    why: Line = ""  # what its group died of, for people; empty if it did not die

    @property
    def billed_device_h(self) -> float:
        """Return devices times billed hours, for devices of any kind."""
        return self.devices * self.billed_s / 3600

    @property
    def billed_gpu_h(self) -> float:
        """Billed GPU-hours: the device-hours if the devices are GPUs, else 0."""
        return 0.0 if self.device == "cpu" else self.billed_device_h


class EndRow(Row):
    """A trial has ended, for good unless a MistakeRow and then a StudyRow follow."""

    kind: Literal["end"] = "end"
    trial_id: Name
    attempts: int
    outcome: Outcome
    # The objective at the last report, at the best, and on the test set, as logged; before 1.5 always accuracies.
    final: float | None = Field(validation_alias=AliasChoices("final", "final_val_accuracy"))
    best: float | None = Field(validation_alias=AliasChoices("best", "best_val_accuracy"))
    test: float | None = Field(validation_alias=AliasChoices("test", "test_accuracy"))
    error: Line | None
    mistake: bool = False  # failed by an error in its code, not because a process or a machine was lost


class SeedRow(Row):
    """A confirm trial beyond the first seeds is to be run: it is open whether a configuration is good enough."""

    kind: Literal["seed"] = "seed"
    trial_id: Name
    open: Line  # the configuration of which it is open: that of the trial, or one that the trial's is compared with
    probability: float | None  # that it is within the margin of the best; None where a seed that failed is replaced


class MistakeRow(Row):
    """At least one trial of every batch size failed with the same mistake, and no trial got further: the study ends.

    The next StudyRow begins all trials again, from their beginning, since their code has changed. What they cost before
    stays on the bill, and attempts are counted on.
    """

    kind: Literal["mistake"] = "mistake"
    error: Line  # of the first of them
    failed: int  # trials that failed with it


class LimitRow(Row):
    """A limit is passed: nothing starts after this row, and running trials end at their next report. The next StudyRow,
    of a driver that may spend more, lifts it.
    """

    kind: Literal["limit"] = "limit"
    limit: LimitName
    allowed: float
    spent: float  # when the driver noticed it, open leases included


class PulseRow(Row):
    """The driver is alive, and had nothing else to write for some time (docs/adr/017)."""

    kind: Literal["pulse"] = "pulse"


class WaitRow(Row):
    """The cluster has no room for a single trial of what comes next: the study waits. The next attempt ends it."""

    kind: Literal["wait"] = "wait"
    ranks: int  # that the cluster holds
    needed: int  # by one trial

    @property
    def why(self) -> str:
        """Why the study waits, in one line."""
        return f"a trial needs {self.needed} rank{'s' * (self.needed > 1)}, the cluster has room for {self.ranks}"


AnyRow = Annotated[
    StudyRow
    | AttemptRow
    | ReportRow
    | DecisionRow
    | LeaseRow
    | EndRow
    | SeedRow
    | MistakeRow
    | LimitRow
    | PulseRow
    | WaitRow,
    Field(discriminator="kind"),
]
ROW: TypeAdapter[Any] = TypeAdapter(AnyRow)
