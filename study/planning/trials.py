"""The exact list of trials that a study config means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from study.config.schema import VARIABLE, AshaConfig, Optimizer, RidgeConfig, Schedule, StudyConfig
from study.config.workloads import Contrastive, Custom, Embedded, train_samples
from study.errors import ConfigError
from study.planning.batch_split import BatchPlan, split_batch
from study.planning.growth import growth_stages
from study.planning.learning_rates import base_rates, n_rates, scaled_rate
from study.planning.tried import TriedModule

Phase = Literal["search", "confirm"]
MAX_TRIALS = 10_000
MAX_RIDGE_TRIALS = 1_000  # of a world size: the policy compares all of them with all
MAX_REPORTS = 2_000_000  # of all trials together, each a row of the ledger


@dataclass(frozen=True)
class Cell:
    """One configuration that a study compares: a batch size on a number of ranks, in one variant."""

    batch_size: int
    world_size: int
    variant: str = ""  # "" where the study has none

    @property
    def label(self) -> str:
        """The name of the configuration in frontiers and recommendations, e.g. `batch 32 on 2 ranks`."""
        name = f"batch {self.batch_size} on {self.world_size} rank{'' if self.world_size == 1 else 's'}"
        return f"{self.variant}, {name}" if self.variant else name


@dataclass(frozen=True)
class Stage:
    """A part of a trial with one global batch size."""

    start_update: int
    updates: int
    batch: BatchPlan
    updates_per_epoch: int
    lr_factor: float  # multiplies the trial's rate, in addition to the schedule

    @property
    def end_update(self) -> int:
        """The first update after the stage."""
        return self.start_update + self.updates


@dataclass(frozen=True)
class TrialSpec:
    """Everything that one trial needs; plain data, so that it can be sent to any process."""

    trial_id: str
    phase: Phase
    cell: Cell
    stages: tuple[Stage, ...]  # one, unless the batch grows
    base_lr: float  # at the base batch, before the rule
    lr: float  # peak rate of the schedule
    seed_index: int
    seed: tuple[int, int]  # (study, index): entropy for every random choice of the trial
    report_at: tuple[int, ...]  # updates after which it validates and reports; the last is total_updates

    @property
    def batch(self) -> BatchPlan:
        """The split of the batch that the trial begins with."""
        return self.stages[0].batch

    @property
    def updates_per_epoch(self) -> int:
        """Updates per epoch of the batch that the trial begins with."""
        return self.stages[0].updates_per_epoch

    @property
    def total_updates(self) -> int:
        """The updates of the whole trial."""
        return self.stages[-1].end_update

    @property
    def report_shares(self) -> tuple[float, ...]:
        """The points at which the trial reports, as shares of its updates."""
        return tuple(updates / self.total_updates for updates in self.report_at)

    def samples_at(self, updates: int) -> int:
        """Return the samples trained on after so many updates."""
        return sum(done * stage.batch.global_batch for stage, done in self._done(updates))

    def epochs_at(self, updates: int) -> float:
        """Return the passes over the training set after so many updates; an incomplete last batch counts as passed."""
        return sum(done / stage.updates_per_epoch for stage, done in self._done(updates))

    def micro_batches_at(self, updates: int) -> int:
        """Return the micro batches that a rank has taken after so many updates."""
        return sum(done * stage.batch.accumulation for stage, done in self._done(updates))

    def stage_at(self, update: int) -> Stage:
        """Return the stage of update number `update`, counted from 0; the last stage for any later number."""
        return next((stage for stage in self.stages if update < stage.end_update), self.stages[-1])

    def _done(self, updates: int) -> list[tuple[Stage, int]]:
        return [
            (stage, min(updates, stage.end_update) - stage.start_update)
            for stage in self.stages
            if updates > stage.start_update
        ]


@dataclass(frozen=True)
class Plan:
    """A config and everything derived from it before a study runs."""

    config: StudyConfig
    variants: Mapping[str, StudyConfig]  # by name; one named "" where the study has none
    train_samples: int
    cells: tuple[Cell, ...]
    tried: tuple[TriedModule, ...] = ()  # the user's own modules, where some updates were trained with them first

    @cached_property
    def search(self) -> tuple[TrialSpec, ...]:
        """The search trials, of cells with more than one rate: else there is nothing to choose."""
        return tuple(spec for cell in self.cells for spec in self._search_trials(cell))

    def _search_trials(self, cell: Cell) -> Iterator[TrialSpec]:
        config = self.variants[cell.variant]
        if self.n_search(cell):
            course, seeds = _course(config, self.train_samples, cell), range(config.search.seeds)
            for i, rate in enumerate(base_rates(config.search, config.seed)):
                for seed in seeds:
                    suffix = f"r{i}" + (f"s{seed}" if len(seeds) > 1 else "")
                    yield _trial(config, course, "search", cell, rate, seed, suffix)

    def n_search(self, cell: Cell) -> int:
        """Return the number of search trials of a cell, without drawing their rates."""
        search = self.variants[cell.variant].search
        return n_rates(search) * search.seeds if n_rates(search) > 1 else 0

    @property
    def n_trials(self) -> int:
        """Return how many search and confirm trials there are together."""
        return sum(map(self.n_search, self.cells)) + self.n_confirm

    @property
    def n_confirm(self) -> int:
        """The number of confirm trials that are always run: one for each cell and first seed."""
        return len(self.cells) * self.config.confirm.seeds

    def confirm_trials(self, cell: Cell, base_lr: float) -> tuple[TrialSpec, ...]:
        """Return the most confirm trials of a cell, at the rate `base_lr` that the search chose. The first
        `confirm.seeds` of them are always run.
        """
        config = self.variants[cell.variant]
        # Seeds that no search trial of any variant has seen, the same for all of them.
        first = max(variant.search.seeds for variant in self.variants.values())
        course = _course(config, self.train_samples, cell)
        return tuple(
            _trial(config, course, "confirm", cell, base_lr, first + i, f"s{i + 1}") for i in range(config.confirm.most)
        )

    def rates(self, cell: Cell) -> tuple[float, ...]:
        """Return the rates tried in a cell, at the base batch."""
        config = self.variants[cell.variant]
        return base_rates(config.search, config.seed)


def make_plan(config: StudyConfig) -> Plan:
    """Derive the trials of a config. Raises ConfigError, blaming a key, for a config that cannot run."""
    variants = {name: config.variant(name) for name in config.variant_names}
    _check_size(variants)
    samples = train_samples(config.workload)
    plan = Plan(
        config,
        variants,
        samples,
        tuple(
            Cell(batch_size, world_size, name)
            for world_size in config.hardware.world_sizes
            for name, variant in variants.items()
            for batch_size in variant.batch_sizes
        ),
    )
    reports = 0
    for cell in plan.cells:
        variant = variants[cell.variant]
        with _of_variant(cell.variant):
            _check_workload(variant)
            if (tokens := variant.tokens_per_sample) != config.tokens_per_sample:
                raise ConfigError(f"has {tokens} tokens in a sample, the study {config.tokens_per_sample}", "workload")
            if (variant_samples := train_samples(variant.workload)) != samples:
                raise ConfigError(f"has {variant_samples} training samples, the study {samples}", "workload")
            course = _course(variant, samples, cell)
            reports += (plan.n_search(cell) + config.confirm.most) * len(course.report_at)
            if reports > MAX_REPORTS:
                raise _too_many_reports(reports)
    _check_scheduler(plan)
    if config.confirm.until == "decided" and len(config.hardware.world_sizes) > 1:
        raise ConfigError(
            "decided needs one world size: several run one after the other, and none is returned to", "confirm.until"
        )
    return plan


def _check_size(variants: Mapping[str, StudyConfig]) -> None:
    """Refuse a study of too many trials before they are listed."""
    trials = sum(
        len(config.hardware.world_sizes)
        * len(config.batch_sizes)
        * (n_rates(config.search) * config.search.seeds + config.confirm.most)
        for config in variants.values()
    )
    if trials > MAX_TRIALS:
        raise ConfigError(
            f"{trials:,} trials are more than the {MAX_TRIALS:,} of a study: "
            "batch sizes x world sizes x (rates x seeds + confirm.seeds, or at_most), over all variants",
            "search",
        )


def by_cell(specs: Iterable[TrialSpec]) -> dict[Cell, list[TrialSpec]]:
    """Return the trials of each cell, in order; cells without a trial are left out."""
    found: dict[Cell, list[TrialSpec]] = defaultdict(list)
    for spec in specs:
        found[spec.cell].append(spec)
    return found


@contextmanager
def _of_variant(variant: str) -> Iterator[None]:
    """Within, put the variant in front of the key that a ConfigError blames."""
    try:
        yield
    except ConfigError as error:
        if not variant or error.key.split(".")[0] not in VARIABLE:
            raise
        raise error.with_key(f"variants.{variant}.{error.key}") from None


@dataclass(frozen=True)
class _Course:
    """The stages and reports that all trials of a cell share."""

    stages: tuple[Stage, ...]
    report_at: tuple[int, ...]


def _course(config: StudyConfig, samples: int, cell: Cell) -> _Course:
    stages = _stages(config, samples, cell)
    return _Course(stages, _reports(stages, config.budget.report_every_updates))


def _trial(
    config: StudyConfig, course: _Course, phase: Phase, cell: Cell, base_lr: float, seed_index: int, suffix: str
) -> TrialSpec:
    variant = f"-{cell.variant}" if cell.variant else ""
    return TrialSpec(
        trial_id=f"{phase}{variant}-b{cell.batch_size}-w{cell.world_size}-{suffix}",
        phase=phase,
        cell=cell,
        stages=course.stages,
        base_lr=base_lr,
        lr=scaled_rate(base_lr, cell.batch_size, config.search),
        seed_index=seed_index,
        seed=(config.seed, seed_index),
        report_at=course.report_at,
    )


def _stages(config: StudyConfig, samples: int, cell: Cell) -> tuple[Stage, ...]:
    budget = config.budget
    if config.growth is None:
        parts = [(cell.batch_size, 1.0, budget.epochs or 0)]
    else:
        parts = [
            (stage.batch, stage.lr_factor, stage.epochs)
            for stage in growth_stages(cell.batch_size, budget.epochs or 0, config.growth, samples)
        ]
    stages: list[Stage] = []
    for batch_size, lr_factor, epochs in parts:
        if batch_size > samples:
            raise ConfigError(f"{batch_size} is above the {samples} training samples", "batch_sizes")
        batch = split_batch(batch_size, cell.world_size, config.hardware)
        if config.ghost_batch is not None and batch.micro_batch % config.ghost_batch:
            raise ConfigError(
                f"{config.ghost_batch} does not divide the micro batch, {batch.micro_batch}", "ghost_batch"
            )
        if isinstance(config.workload, Contrastive) and batch.accumulation > 1:
            raise ConfigError(
                f"{batch.accumulation} parts: contrastive learning compares within one, so a batch must not be split",
                "hardware.micro_batch" if config.hardware.accumulation is None else "hardware.accumulation",
            )
        per_epoch = samples // batch_size
        updates = budget.updates or per_epoch * epochs
        if budget.regime_batch is not None:
            if budget.regime_batch > samples:
                raise ConfigError(
                    f"{budget.regime_batch} is above the {samples} training samples", "budget.regime_batch"
                )
            updates = samples // budget.regime_batch * epochs
        if stages and batch.accumulation != stages[0].batch.accumulation:
            raise ConfigError("a growing batch cannot be accumulated in parts of a fixed size", "hardware.micro_batch")
        start = stages[-1].end_update if stages else 0
        stages.append(Stage(start, updates, batch, per_epoch, lr_factor))
    return tuple(stages)


def _reports(stages: Sequence[Stage], every: int | None) -> tuple[int, ...]:
    """Return the updates of the reports: after each epoch or every `every` updates, and at the end."""
    end = stages[-1].end_update
    reports = end // every if every else sum(stage.updates // stage.updates_per_epoch for stage in stages)
    if reports > MAX_REPORTS:
        raise _too_many_reports(reports)
    if every is not None:
        return (*range(every, end, every), end)
    epochs = (
        update
        for stage in stages
        for update in range(stage.start_update + stage.updates_per_epoch, stage.end_update + 1, stage.updates_per_epoch)
    )
    return tuple(sorted({*epochs, end}))


def _too_many_reports(reports: int) -> ConfigError:
    return ConfigError(
        f"{reports:,} reports are more than the {MAX_REPORTS:,} of a study; train for less, or report less often "
        "(report_every_updates)",
        "budget",
    )


def in_unit(scheduler: AshaConfig, spec: TrialSpec, updates: int, device_seconds: float) -> float:
    """Return the progress of a trial after so many updates, in the unit of the scheduler's rungs."""
    units: dict[str, float] = {
        "epochs": spec.epochs_at(updates),
        "updates": updates,
        "samples": spec.samples_at(updates),
        "device_seconds": device_seconds,
    }
    return units[scheduler.unit]


def whole_in_unit(scheduler: AshaConfig, spec: TrialSpec) -> float:
    """Return the whole length of a trial, in the unit of the scheduler's rungs."""
    return in_unit(scheduler, spec, spec.total_updates, scheduler.max_device_seconds or math.inf)


def _check_workload(config: StudyConfig) -> None:
    workload = config.workload
    if not isinstance(workload, Embedded) and any(config.probes.model_dump().values()):
        raise ConfigError(f"are for the classifiers of the package; leave them out for {workload.kind}", "probes")
    if isinstance(workload, Custom) and config.growth is not None:
        # Its data module is given one batch size, when a trial begins.
        raise ConfigError("is for the workloads of the package; leave it out with workload.kind: custom", "growth")
    if isinstance(workload, Custom) and workload.optimizer == "module":
        text = "comes from the module with workload.optimizer: module; leave it out"
        clipping = Optimizer(clip_norm=config.optimizer.clip_norm, clip_value=config.optimizer.clip_value)
        if config.optimizer != clipping:
            raise ConfigError(f"{text}; clip_norm and clip_value may stay", "optimizer")
        if config.schedule != Schedule():
            raise ConfigError(text, "schedule")


def _check_scheduler(plan: Plan) -> None:
    scheduler = plan.config.scheduler
    trials = sum(map(plan.n_search, plan.cells)) // len(plan.config.hardware.world_sizes)
    if isinstance(scheduler, RidgeConfig) and trials > MAX_RIDGE_TRIALS:
        raise ConfigError(
            f"ridge chooses among {MAX_RIDGE_TRIALS:,} search trials of a world size at most, these are {trials:,}; "
            "search fewer rates, or take frontier_asha",
            "scheduler.kind",
        )
    if isinstance(scheduler, AshaConfig) and plan.search:
        longest = max(whole_in_unit(scheduler, spec) for spec in plan.search)
        if scheduler.grace > longest:
            raise ConfigError(
                f"{scheduler.grace:g} {scheduler.unit} is past the end of a trial, {longest:g}", "scheduler.grace"
            )
