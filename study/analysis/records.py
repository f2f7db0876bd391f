"""What the reports draw: frozen records, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.analysis.claims.records import ClaimVerdict


@dataclass(frozen=True)
class Cost:
    """What something cost, all attempts included."""

    billed_device_h: float
    billed_gpu_h: float
    usd: float | None  # None without a price


@dataclass(frozen=True)
class CurvePoint:
    """A trial at one of its reports."""

    updates: int
    samples: int
    epochs: float
    lr: float
    train_loss: float
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    samples_per_s: float  # of the interval that ends here, training time only
    device_seconds: float  # cumulative: ranks x (training + validation)
    probes: Mapping[str, float]  # further measurements, by name


@dataclass(frozen=True)
class TrialRecord:
    """One trial with all its attempts."""

    trial_id: str
    phase: str  # "search" or "confirm"
    variant: str  # "" where the study has none
    batch_size: int
    world_size: int
    micro_batch: int
    accumulation: int
    norm_batch: int | None
    lr: float
    seed_index: int
    outcome: str | None  # None while it runs
    error: str | None
    attempts: int
    total_updates: int  # of a whole trial
    audited_from: int | None  # updates after which it would have been stopped, had it not been trained on as a check
    cost: Cost
    phases_s: dict[str, float]  # of all attempts, seconds per device
    final_val_accuracy: float | None  # of a completed trial
    best_val_accuracy: float | None
    test_accuracy: float | None
    samples_per_s: float | None
    curve: tuple[CurvePoint, ...]  # of the last attempt, and of those that it went on from

    @property
    def censored(self) -> bool:
        """Over, but without a final accuracy."""
        return self.outcome is not None and self.outcome != "completed"


@dataclass(frozen=True)
class Point:
    """A batch size on a number of ranks, at its chosen rate, over the confirm seeds that completed."""

    variant: str  # "" where the study has none
    batch_size: int
    lr: float
    world_size: int
    micro_batch: int
    accumulation: int
    norm_batch: int | None
    n_seeds: int
    n_censored: int  # confirm seeds that diverged or failed
    updates: int
    cost: Cost  # mean of a trial
    search_cost: Cost  # all search trials of this batch size and world size
    val_accuracy: float  # mean of the final ones
    val_accuracy_ci: tuple[float, float] | None  # 95%, Student's t; None for one seed
    best_val_accuracy: float
    test_accuracy: float | None
    samples_per_s: float
    on_frontier: bool


@dataclass(frozen=True)
class Spend:
    """Where the device-hours went. Search and confirm add up to the total; censored is a part of it."""

    search_device_h: float
    confirm_device_h: float
    censored_device_h: float
    total_device_h: float
    phases_device_h: dict[str, float]  # adds up to the total


@dataclass(frozen=True)
class Audit:
    """Stopped search trials that were trained to the end all the same."""

    trials: int  # that came to their end
    missed: int  # of these, trials that stopping would have kept off the frontier of the search
    missed_ci: tuple[float, float]  # 95% interval of the share missed (Clopper and Pearson 1934)
    device_s: float  # ranks x (training + validation) past the stop


@dataclass(frozen=True)
class Stopping:
    """What early stopping did to the search, in ranks x seconds of training and validation."""

    trained_device_s: float  # audits apart
    grid_device_s: float  # of the full grid, each cell at the pace of its own trials
    audit: Audit | None  # None while no audited trial is over

    @property
    def grid_fraction(self) -> float:
        """The search's cost as a share of the full grid's."""
        return self.trained_device_s / self.grid_device_s


@dataclass(frozen=True)
class StudyFacts:
    """What the study was, and on what."""

    study_id: str
    name: str
    config: dict[str, object]
    config_hash: str
    hardware: dict[str, object]
    versions: dict[str, str]
    devices: tuple[str, ...]  # names of the devices leased
    started: str  # UTC
    wall_s: float  # while a driver ran


@dataclass(frozen=True)
class Summary:
    """A study, ready to be shown."""

    protocol_version: str
    study: StudyFacts
    cost_axis: str
    cost_tolerance: float  # costs that differ by less count as equal on the frontier
    points: tuple[Point, ...]  # by world size, then batch size
    trials: tuple[TrialRecord, ...]
    spend: Spend
    stopping: Stopping | None  # None without a search
    hypervolume: float | None
    planned_trials: int
    notes: tuple[str, ...]  # what a reader must know before trusting the figures
    claims: tuple[ClaimVerdict, ...] = ()  # all that are known, with those that the study holds no evidence for

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The non-dominated points, cheapest first."""
        chosen = [point for point in self.points if point.on_frontier]
        return tuple(sorted(chosen, key=lambda point: cost_of(point, self.cost_axis)))


def cost_of(point: Point, axis: str) -> float:
    """A point's place on a cost axis. Raises ValueError where it has none."""
    value = getattr(point.cost, axis)
    if value is None:
        raise ValueError(f"{axis} needs a price")
    return float(value)
