"""Frozen records of a study, computed once from its ledger: all that reports draw and print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from study.config.objective import Objective
from study.config.sections import CostAxis, LimitName
from study.measurement import CurvePoint
from study.planning.trials import Cell

if TYPE_CHECKING:  # the statistics import SciPy, which what only shows records does without
    from study.analysis.claims.records import ClaimVerdict
    from study.analysis.statistics.critical import CriticalBatch, StepsToTarget
    from study.analysis.statistics.hypotheses import Contrast
    from study.analysis.statistics.stepmodel import StepModel, StepTime
    from study.analysis.statistics.uncertainty import Frontier
    from study.ledger.schema import Outcome
    from study.planning.trials import Phase

COST_AXES: tuple[CostAxis, ...] = get_args(CostAxis)
TIME_AXES: tuple[CostAxis, ...] = ("billed_device_h", "billed_gpu_h", "usd", "wall_h")  # setup is a part of these
Interval = tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """Time, money and energy over all attempts, and the samples and updates that were reached."""

    billed_device_h: float
    billed_gpu_h: float
    usd: float | None  # None without a price
    wall_h: float = 0.0  # hours from lease to release or hand-over, one after the other
    energy_j: float | None = None  # of training and validation; None where no GPU's meter was read
    samples: float = 0.0  # trained on, without those that a crash lost; a mean over trials need not be whole
    updates: float = 0.0

    def on(self, axis: CostAxis) -> float | None:
        """Return the figure on a cost axis; None where it is unknown."""
        figures: dict[CostAxis, float | None] = {
            "billed_device_h": self.billed_device_h,
            "billed_gpu_h": self.billed_gpu_h,
            "usd": self.usd,
            "wall_h": self.wall_h,
            "energy_j": self.energy_j,
            "samples": self.samples,
            "updates": self.updates,
        }
        return figures[axis]

    def plus(self, time: Cost, times: float = 1.0) -> Cost:
        """Return this cost plus `times` the device time, money and hours of `time`; other figures stay as they are."""
        return replace(
            self,
            billed_device_h=self.billed_device_h + times * time.billed_device_h,
            billed_gpu_h=self.billed_gpu_h + times * time.billed_gpu_h,
            usd=None if self.usd is None else self.usd + times * (time.usd or 0.0),
            wall_h=self.wall_h + times * time.wall_h,
        )


NO_COST = Cost(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class TrialRecord:
    """One trial over all its attempts."""

    trial_id: str
    phase: Phase
    variant: str  # "" where the study has none
    batch_size: int
    world_size: int
    micro_batch: int
    accumulation: int
    norm_batch: int | None
    lr: float
    seed_index: int
    outcome: Outcome | None  # None while it runs
    error: str | None
    attempts: int
    total_updates: int  # of a whole trial
    audited_from: int | None  # updates at which it would have been stopped; it trained on to check the stopping
    cost: Cost  # billed
    phases_s: dict[str, float]  # of all attempts, seconds per device
    final_quality: float | None  # the objective of a completed trial; more is better (see study.config.objective)
    best_quality: float | None
    test_quality: float | None
    samples_per_s: float | None
    curve: tuple[CurvePoint, ...]  # of the last attempt, and of the attempts whose checkpoints it continued
    peak_memory_bytes: int | None = None  # of a GPU, over all attempts; None on the CPU
    devices_per_rank: float = 1.0  # below 1 where ranks share GPUs
    cold_setup: Cost = NO_COST  # the part of `cost` for starting groups; a later trial on a warm group does not pay it
    cold_starts: int = 0  # groups that started for this trial

    @property
    def cell(self) -> Cell:
        """The configuration that the trial is evidence for."""
        return Cell(self.batch_size, self.world_size, self.variant)

    def compared(self, include_setup: bool) -> Cost:
        """Return the cost that axes show: as billed, but without the setup of cold groups unless it is included."""
        return self.cost if include_setup else self.cost.plus(self.cold_setup, -1)

    @property
    def diverged(self) -> bool:
        """Whether it ended because a metric was not finite (see `study.measurement.Judged`), or, in ledgers of protocol
        1.0, though its last accuracy was not.
        """
        final = self.final_quality
        return self.outcome == "diverged" or (final is not None and not math.isfinite(final))

    @property
    def censored(self) -> bool:
        """True of a trial that ended without a final objective: stopped, diverged, failed or infeasible."""
        return self.outcome is not None and self.outcome != "completed"


@dataclass(frozen=True)
class Point:
    """A batch size on a number of ranks at its chosen rate: means over the confirm seeds that completed."""

    variant: str  # "" where the study has none
    batch_size: int
    lr: float
    world_size: int
    micro_batch: int
    accumulation: int
    norm_batch: int | None
    n_seeds: int
    n_censored: int  # confirm seeds that diverged, failed or did not fit
    updates: int
    cost: Cost  # mean of a trial, as billed
    cold_setup: Cost  # the part of `cost` that is setup of cold groups
    compared: Cost  # the cost that axes show: `cost` without `cold_setup`, or with it if the config includes setup
    cost_ci: tuple[float, float] | None  # 95% on the summary's cost axis, Student's t; None under 3 seeds
    search_cost: Cost  # billed; all search trials of this batch size and world size
    search_cold_setup: Cost  # the part of `search_cost` that is setup of cold groups
    quality: float  # mean of the final ones
    quality_ci: tuple[float, float] | None  # 95%, Student's t; None for one seed
    best_quality: float
    test_quality: float | None
    samples_per_s: float
    on_frontier: bool
    p_on_front: float | None  # None if any point has under 3 seeds
    peak_memory_bytes: int | None = None  # of a GPU, over the seeds; None on the CPU
    further: Mapping[str, float] = field(default_factory=dict)  # other metrics as logged: means of the last reports
    tokens_per_sample: int | None = None  # None where samples are not of tokens

    @property
    def cell(self) -> Cell:
        """The configuration, without its rate and its seeds."""
        return Cell(self.batch_size, self.world_size, self.variant)

    @property
    def batch_tokens(self) -> int | None:
        """Tokens of an update; None where samples are not of tokens."""
        return None if self.tokens_per_sample is None else self.batch_size * self.tokens_per_sample

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens trained on in a second; None where samples are not of tokens."""
        return None if self.tokens_per_sample is None else self.samples_per_s * self.tokens_per_sample

    def cost_per_billion_tokens(self, axis: CostAxis) -> float | None:
        """Return what a billion tokens cost at the trials' mean; None where that is unknown."""
        cost = self.compared.on(axis)
        if cost is None or self.tokens_per_sample is None or not self.cost.samples:
            return None
        return cost / (self.cost.samples * self.tokens_per_sample / 1e9)

    @property
    def label(self) -> str:
        """The name of the configuration in frontiers and recommendations, e.g. `batch 32 on 2 ranks`."""
        return self.cell.label


@dataclass(frozen=True)
class Spend:
    """Device-hours by phase of the study. Search and confirm add up to the total; censored is a part of it."""

    search_device_h: float
    confirm_device_h: float
    censored_device_h: float
    total_device_h: float
    phases_device_h: dict[str, float]  # adds up to the total


@dataclass(frozen=True)
class Audit:
    """A check of early stopping: search trials that it stopped and that were trained to the end nevertheless."""

    trials: int  # audited trials that completed
    missed: int  # of these, trials that stopping would have kept off the frontier of the search
    missed_ci: tuple[float, float]  # 95% interval of the share missed (Clopper and Pearson 1934)
    device_s: float  # ranks x (training + validation) past the stop


@dataclass(frozen=True)
class Stopping:
    """The search under early stopping against the full grid, in ranks x seconds of training and validation."""

    trained_device_s: float  # without what audits trained past the stop
    grid_device_s: float  # of the full grid, each cell at the pace of its trials
    audit: Audit | None  # None while no audited trial has completed

    @property
    def grid_fraction(self) -> float:
        """The cost of the search as a share of the full grid's."""
        return self.trained_device_s / self.grid_device_s


@dataclass(frozen=True)
class Critical:
    """Updates to a target quality by batch size, and the law of McCandlish et al. fitted to them."""

    variant: str  # "" where the study has none
    target_quality: float | None  # None where only the steps are known
    target_why: str  # how the target was chosen, for people
    runs: tuple[StepsToTarget, ...]  # confirm trials; one that never reached the target is a bound
    fit: CriticalBatch
    n_unreported: int = 0  # trials that ended without a report; `runs` leaves them out


@dataclass(frozen=True)
class LimitCut:
    """A limit on spending that ended a study before all its trials were finished."""

    limit: LimitName  # its unit is that of the three figures
    allowed: float
    noticed: float  # spent when the limit was noticed; nothing started afterwards
    spent: float  # up to now: running trials went on to their next report
    running: int  # trials whose lease is open
    ended_early: int  # trials that began and have not finished; a resume continues them
    not_run: int
    unconfirmed: tuple[Cell, ...]  # planned, and without a completed confirm trial


@dataclass(frozen=True)
class Mistaken:
    """A mistake that ended a study: trials of every batch size failed with the same error, and none got further."""

    error: str  # of the first of them
    failed: int  # trials that failed with it
    not_run: int  # trials that never began


ConstraintName = Literal["max_usd", "max_device_hours", "min_quality", "deadline_h", "gpus", "max_latency_ms"]


@dataclass(frozen=True)
class Constraints:
    """Limits that a user sets on a configuration; None is no limit."""

    max_usd: float | None = None
    max_device_hours: float | None = None
    min_quality: float | None = None
    deadline_h: float | None = None
    gpus: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class Miss:
    """One limit that a configuration does not meet, or a quality that it does not reach surely enough."""

    limit: ConstraintName
    allowed: float
    value: float | None  # None if unknown
    probability: float | None = None  # of reaching the quality; None for other limits, and where it is unknown

    @property
    def by(self) -> float:
        """The excess as a share of the allowed value, of a quality the shortfall; infinite if the value is unknown."""
        if self.value is None:
            return math.inf
        if self.limit == "min_quality" and self.value >= self.allowed:  # reached on average, and not surely enough
            return 0.0
        return abs(self.value - self.allowed) / max(abs(self.allowed), 1e-12)


@dataclass(frozen=True)
class Expected:
    """The expected cost and quality of a configuration: means and 95% intervals, which are None for one seed."""

    label: str
    cost: float
    cost_ci: Interval | None
    quality: float
    quality_ci: Interval | None
    misses: tuple[Miss, ...]  # empty if it meets every limit
    setup: float | None = None  # see Candidate


@dataclass(frozen=True)
class Trade:
    """Another configuration against the chosen one."""

    other: Expected
    cost: Contrast  # ratio of the other's cost to the chosen one's
    quality: Contrast  # positive: the other one is better


@dataclass(frozen=True)
class Standing:
    """How good a configuration within the limits is likely to be, on fresh seeds."""

    label: str
    probability: float  # that it is what is asked for: within the margin of the best, or at least the quality asked for
    expected_loss: float  # quality that choosing it loses against the best, on average
    cost: float
    cost_ratio: float  # to the cost of the best; nan where that is 0
    rival: str | None  # the configuration that most often is the best of the others; None without others


@dataclass(frozen=True)
class ToSettle:
    """A configuration of which it is undecided whether it is good enough, and what would decide it: the choice itself,
    or one that costs less.
    """

    label: str
    probability: float
    more_seeds: int | None  # of each that is to be measured; None if a thousand are too few
    rival: str | None  # to be measured too; None where only its own quality is asked for
    device_h: float | None  # of these seeds


Aim = Literal["within_margin", "reaches"]


@dataclass(frozen=True)
class Recommendation:
    """The configuration to choose; where none meets the limits, `choice` is None and `nearest_miss` the closest.

    The choice is the cheapest that is what is asked for with at least a probability of `confidence`: within `margin` of
    the best, or of the quality asked for. Where none is within the margin so surely, it is the one with the least
    expected loss, and `sure` is False.
    """

    aim: Aim
    choice: Expected | None
    sure: bool
    runner_up: Trade | None
    nearest_miss: Expected | None
    best: Expected  # the best mean of the configurations within the limits; of all where none is
    standings: tuple[Standing, ...]  # of those within the limits, cheapest first; empty with one seed somewhere
    to_settle: ToSettle | None
    margin: float  # loss of quality that counts as not worse
    confidence: float


@dataclass(frozen=True)
class StudyFacts:
    """Provenance of a study: its config, software and hardware."""

    study_id: str
    name: str
    config: dict[str, object]
    config_hash: str
    hardware: dict[str, object]
    versions: dict[str, str]
    devices: tuple[str, ...]  # names of the devices leased
    started: str  # UTC
    wall_s: float  # while a driver ran
    hosts: tuple[str, ...] = ()  # names and addresses of the machines; empty where the ledger does not say

    @property
    def of_bytes(self) -> bool:
        """Whether a byte is what is predicted, so that a loss is of bytes."""
        workload = self.config.get("workload")
        return isinstance(workload, dict) and workload.get("kind") == "text"


@dataclass(frozen=True)
class BestRate:
    """The best rate of a batch size, where the surface of scores has its top; with a 95% interval."""

    batch_size: int
    lr: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class RateRidge:
    """The best rates of a variant, and the power of the batch size that they follow: 0 is no scaling, 0.5 the square
    root, 1 linear scaling.
    """

    variant: str
    rates: tuple[BestRate, ...]
    power: float
    power_ci: tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Everything that a study's ledger says, computed once and ready to be shown."""

    protocol_version: str
    study: StudyFacts
    objective: Objective  # by which qualities become values of its metric, and are shown
    cost_axis: CostAxis
    include_setup: bool  # costs on axes include the setup of cold groups
    group_setups: Mapping[int, Cost]  # mean setup of one cold group, by world size
    second_cost_axis: CostAxis | None  # where the config asks for two
    cost_tolerance: float  # costs that differ by less count as equal on the frontier
    points: tuple[Point, ...]  # by world size, then batch size
    trials: tuple[TrialRecord, ...]
    spend: Spend
    stopping: Stopping | None  # None without a search
    hypervolume: float | None
    hypervolume_ci: tuple[float, float] | None  # None if any point has under 3 seeds
    frontiers: Mapping[CostAxis, Frontier]  # by cost axis, each that all points have a cost on; points as in `points`
    critical: Critical | None  # of the first variant that has one
    other_criticals: tuple[Critical, ...]  # of the further variants
    critical_missing: str | None  # why there is no `critical`, for people
    noise_scale: float | None  # samples, B_simple as measured (McCandlish et al. 2018); None if not measured
    step_times: tuple[StepTime, ...]  # data of the throughput model, one for each trial that reported
    throughput_model: StepModel | None  # None for fewer than two micro batches
    recommendation: Recommendation | None  # without limits; None without points
    planned_trials: int
    notes: tuple[str, ...]  # caveats for people, a sentence each
    cut: LimitCut | None = None  # None unless a limit has ended the study early
    mistaken: Mistaken | None = None  # None unless a mistake has ended the study
    claims: tuple[ClaimVerdict, ...] = ()  # every claim, also those that the study holds no evidence for
    steps: tuple[Contrast, ...] = ()  # quality of each point of `frontier` against the one before it
    ridges: tuple[RateRidge, ...] = ()  # of each variant that tried enough rates
    seeds_added: int = 0  # confirm trials beyond the first seeds, run to decide which configuration to choose
    span: Contrast | None = None  # of the last against the first; None for fewer than two points

    @property
    def tokens_per_sample(self) -> int | None:
        """Tokens of a sample; None where samples are not of tokens, and without points."""
        return self.points[0].tokens_per_sample if self.points else None

    @property
    def leaves_out_setup(self) -> bool:
        """True if costs on the axes of `TIME_AXES` are less than the bill, by the setup of cold groups."""
        return not self.include_setup and bool(self.group_setups)

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The non-dominated points, cheapest first."""
        chosen = [point for point in self.points if point.on_frontier]
        return tuple(sorted(chosen, key=lambda point: cost_of(point, self.cost_axis)))


def cost_of(point: Point, axis: CostAxis) -> float:
    """Return a point's cost on an axis. Raises ValueError where it is unknown."""
    value = point.compared.on(axis)
    if value is None:
        raise ValueError(f"{axis} needs a {'price' if axis == 'usd' else 'meter'}")
    return value
