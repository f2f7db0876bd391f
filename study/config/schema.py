"""The study file: one frozen pydantic model, every field with its unit and meaning.

The field descriptions are the reference: `study init` writes them into a commented file.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from study.config.objective import ACCURACY, MetricName, Objective, Target, direction
from study.config.sections import (
    Fraction,
    LimitsConfig,
    PositiveFloat,
    PositiveInt,
    Price,
    Recovery,
    ReportConfig,
    Section,
    Seed,
    Tracking,
)
from study.config.workloads import Custom, Digits, Text, Workload

# A part of the names of trials, and so of files.
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9+][A-Za-z0-9+._-]{0,39}$")]


class LogUniform(Section):
    """A range of learning rates, sampled evenly in the logarithm."""

    low: PositiveFloat = Field(description="smallest rate")
    high: PositiveFloat = Field(description="largest rate")

    @model_validator(mode="after")
    def _ordered(self) -> LogUniform:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]
LrGrid = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
LrSpace = Annotated[
    Annotated[LrGrid, Tag("list")] | Annotated[LogUniform, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | LogUniform) else "list"),
]
MicroBatch = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[PositiveInt, Tag("samples")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "samples"),
]
WorldSizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
WorldSize = Annotated[
    Annotated[PositiveInt, Tag("one")] | Annotated[WorldSizes, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class Search(Section):
    """The learning rates tried at every batch size."""

    lr: LrSpace = Field(description="a list of rates, or {low, high} to sample log-uniformly")
    samples: PositiveInt | None = Field(None, description="rates drawn from {low, high}; 4 when left out")
    seeds: PositiveInt = Field(1, description="seeds that each rate is tried on")
    lr_rule: Literal["none", "linear", "sqrt"] = Field(
        "none", description="how a rate scales with the batch: none, linear B/B0, sqrt sqrt(B/B0)"
    )
    base_batch: PositiveInt | None = Field(None, description="B0 of the rule: the batch the rates are meant for")

    @model_validator(mode="after")
    def _consistent(self) -> Search:
        if isinstance(self.lr, tuple):
            if self.samples is not None:
                raise ValueError("samples belongs to a range {low, high}; a list of rates is tried whole")
            if len(set(self.lr)) != len(self.lr):
                raise ValueError("lr lists a rate twice")
        if (self.lr_rule == "none") != (self.base_batch is None):
            raise ValueError("base_batch goes with lr_rule linear or sqrt, and only with them")
        return self


class Optimizer(Section):
    """The optimizer; its learning rate comes from the search."""

    kind: Literal["sgd", "adamw", "lars", "lamb"] = Field("sgd", description="sgd is with Nesterov momentum")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and lars; 0 is plain SGD")
    weight_decay: float = Field(0.0, ge=0, le=1e6, description="coupled for sgd and lars, decoupled for adamw and lamb")
    betas: tuple[Beta, Beta] | None = Field(
        None, description="of adamw and lamb: decay of the two moving averages; [0.9, 0.999] when left out"
    )
    eps: float | None = Field(
        None, gt=0, le=1, description="of adamw and lamb: added to the divisor; 1e-8 for adamw, 1e-6 for lamb"
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="gradients of an update are scaled down to this norm, over all parameters of the optimizer"
    )
    clip_value: PositiveFloat | None = Field(
        None, description="each entry of an update's gradients is cut to this absolute value, instead of clip_norm"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Optimizer:
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("give clip_norm or clip_value, not both")
        if self.kind not in ("adamw", "lamb") and (self.betas is not None or self.eps is not None):
            raise ValueError(f"betas and eps are of adamw and lamb; {self.kind} has none")
        return self


class Schedule(Section):
    """The course of the learning rate over a trial."""

    kind: Literal["cosine", "step", "constant"] = Field("cosine", description="after the warm-up")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the updates with a linear warm-up")
    step_fractions: tuple[Fraction, ...] = Field((0.5, 0.75), max_length=100, description="step: where the rate drops")
    step_factor: float = Field(0.1, gt=0, lt=1, description="step: what the rate is multiplied by")


class TargetConfig(Section):
    """A value of a metric at which a trial has learnt enough."""

    metric: MetricName | None = Field(None, description="name of the metric; left out, the objective's")
    value: float = Field(ge=-1e12, le=1e12, description="value to reach, as logged")


class Budget(Section):
    """The length of a trial: the same epochs or updates at every batch size, or until a target is met."""

    epochs: PositiveInt | None = Field(None, description="passes over the training set")
    updates: PositiveInt | None = Field(None, description="optimizer steps")
    regime_batch: PositiveInt | None = Field(
        None, description="regime adaptation: epochs x B / this, so that every batch has the updates of this one"
    )
    device_seconds: PositiveFloat | None = Field(
        None,
        description="a trial also ends at the first report past so many ranks x seconds of train and validate",
    )
    target: TargetConfig | None = Field(
        None, description="a trial also ends at the first report that meets this, e.g. {value: 1.9}"
    )
    target_val_accuracy: Fraction | None = Field(
        None, description="the same for the validation accuracy, whatever the objective"
    )
    target_train_loss: PositiveFloat | None = Field(None, description="the same for the training loss")
    report_every_updates: PositiveInt | None = Field(
        None, description="updates between validations; one epoch when left out"
    )

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("give exactly one of epochs and updates")
        if self.regime_batch is not None and self.epochs is None:
            raise ValueError("regime_batch goes with epochs: updates are the same for every batch size anyway")
        return self


class Growth(Section):
    """A batch that grows where a step schedule would divide the rate; past the largest, the rate is divided."""

    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100)] = Field(
        description="shares of the epochs at which the batch is multiplied, or the rate divided"
    )
    factor: int = Field(2, ge=2, le=1000, description="by how much")
    largest_batch: PositiveInt = Field(description="the batch does not grow past it; the first batch: only decay")


class Probes(Section):
    """Further measurements in confirm trials; their time counts as phase probe, not in samples per second."""

    noise_scale: bool = Field(False, description="gradient noise scale, at every report")
    sharpness: bool = Field(False, description="Keskar's sharpness of the minimum, at the end")
    curvature: bool = Field(False, description="largest eigenvalue of the training loss's Hessian, at the end")
    serving: bool = Field(False, description="predictions a second and their latency by request batch, at the end")


class FrontierAshaConfig(Section):
    """Halving within each batch size, so that the frontier keeps all of them; stopped trials pause and can resume."""

    kind: Literal["frontier_asha"] = Field("frontier_asha", description="a bracket for each batch size and world size")
    profile: Literal["balanced", "quick"] = Field(
        "balanced", description="how strict the brackets are: about a third or a fifth of the full grid's cost"
    )
    min_completions: PositiveInt = Field(2, description="trials of each bracket that train to the end, at least")
    synchronous: bool = Field(
        True, description="a rung waits for all on their way to it; false promotes at once (ASHA as published)"
    )
    audit: Fraction = Field(0.0, description="share of the stopped trials trained to the end, to check the stopping")


class RidgeConfig(Section):
    """A search that learns across batch sizes: it trains few rates far, and predicts the others from a surface."""

    kind: Literal["ridge"] = Field(description="the report that improves the choices most per second comes next")
    profile: Literal["balanced", "careful"] = Field(
        "balanced", description="ends after 1.5 or 2 full runs for each batch size at the latest"
    )
    audit: Fraction = Field(0.0, description="share of the stopped trials trained to the end, to check the stopping")


class AshaConfig(Section):
    """Asynchronous halving of all batch sizes together; a stopped trial cannot resume."""

    kind: Literal["asha", "mo_asha"] = Field(
        description="asha is that of Ray, on accuracy; mo_asha ranks by cost and accuracy at once"
    )
    unit: Literal["epochs", "samples", "updates", "device_seconds"] = Field(
        "epochs", description="what the rungs are counted in"
    )
    grace: float = Field(1, ge=1e-6, le=1e12, description="first rung, in the unit: nothing stops before it")
    eta: float = Field(3, ge=1.01, le=1e6, description="one in eta goes on at each rung, and rungs are eta apart")
    max_device_seconds: PositiveFloat | None = Field(
        None, description="with unit device_seconds: where the last rung may lie"
    )
    audit: Fraction = Field(0.0, description="share of the stopped trials trained to the end, to check the stopping")

    @model_validator(mode="after")
    def _bounded(self) -> AshaConfig:
        if (self.unit == "device_seconds") != (self.max_device_seconds is not None):
            raise ValueError("max_device_seconds goes with unit device_seconds, and only with it")
        return self


class GridConfig(Section):
    """No early stopping: every search trial trains to the end, as `study replay` needs it."""

    kind: Literal["grid"] = Field(description="nothing is stopped early")


def _scheduler_tag(value: Any) -> str:
    kind = value.get("kind", "frontier_asha") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind)


Scheduler = Annotated[
    Annotated[FrontierAshaConfig, Tag("frontier_asha")]
    | Annotated[RidgeConfig, Tag("ridge")]
    | Annotated[AshaConfig, Tag("asha")]
    | Annotated[AshaConfig, Tag("mo_asha")]
    | Annotated[GridConfig, Tag("grid")],
    Discriminator(_scheduler_tag),
]


class Confirm(Section):
    """The trials behind the frontier: chosen rates, fresh seeds, trained to the end."""

    seeds: PositiveInt = Field(3, description="fresh seeds for each batch size and world size")
    at_most: PositiveInt | None = Field(None, description="with until: decided, the most seeds of a batch size")
    until: Literal["seeds", "decided"] = Field(
        "seeds",
        description="decided: further seeds, one by one, where they help to decide which configuration to choose",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Confirm:
        if (self.until == "decided") != (self.at_most is not None):
            raise ValueError("at_most goes with until: decided, and only with it")
        if self.at_most is not None and not 2 <= self.seeds < self.at_most:
            raise ValueError("until: decided needs two seeds or more to begin with, and an at_most above them")
        return self

    @property
    def most(self) -> int:
        """The most seeds that a configuration can get."""
        return self.at_most or self.seeds


class Hardware(Section):
    """The ranks, devices and precision of one trial."""

    world_size: WorldSize = Field(1, description="DDP ranks of a trial, or a list of sizes to compare")
    cpus_per_rank: PositiveInt = Field(1, description="logical CPUs leased for each rank")
    gpus_per_rank: float = Field(
        0.0,
        ge=0,
        le=1,
        description="1 trains on a GPU with nccl, 0 on the CPU; a fraction shares GPUs between ranks, with gloo",
    )
    micro_batch: MicroBatch | None = Field(
        None,
        description="most samples a rank takes at once, a larger local batch is accumulated in equal parts; "
        "auto: as many as fit on a GPU",
    )
    accumulation: PositiveInt | None = Field(None, description="fixes the number of parts instead")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="Lightning's precision")
    placement: Literal["pack", "spread"] = Field(
        "pack", description="ranks of a trial on as few machines as will hold them, or on as many as there are"
    )
    channels_last: bool = Field(False, description="images and weights in the order that tensor cores like")
    compile: bool = Field(False, description="torch.compile, warmed up for each trial before its clock starts")

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        if self.micro_batch is not None and self.accumulation is not None:
            raise ValueError("give micro_batch or accumulation, not both")
        if self.precision == "16-mixed" and not self.on_gpu:
            raise ValueError("precision 16-mixed needs a GPU; use 32 or bf16-mixed on the CPU")
        if len(set(self.world_sizes)) != len(self.world_sizes):
            raise ValueError("world_size lists a size twice")
        return self

    @property
    def on_gpu(self) -> bool:
        """True if ranks train on GPUs."""
        return self.gpus_per_rank > 0

    @property
    def shares_gpus(self) -> bool:
        """True if each rank has a part of a GPU: its speed then depends on the ranks that share it."""
        return 0 < self.gpus_per_rank < 1

    @property
    def devices_per_rank(self) -> float:
        """Devices that the bill counts for a rank: one CPU or GPU, or the part of a GPU that it leases."""
        return self.gpus_per_rank if self.shares_gpus else 1.0

    @property
    def world_sizes(self) -> tuple[int, ...]:
        """The world sizes to run, one or several."""
        return self.world_size if isinstance(self.world_size, tuple) else (self.world_size,)


class StudyConfig(Section):
    """The validated content of a study file."""

    name: str = Field(min_length=1, max_length=80, description="shown on the report")
    seed: Seed = Field(0, description="root of every random choice: rates drawn, initial weights, order of data")
    workload: Workload = Field(default_factory=Digits, description="what is trained")
    objective: Objective = Field(
        ACCURACY, description="metric that is judged, e.g. accuracy, loss, perplexity, or {metric: val_f1, mode: max}"
    )
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description="global batch sizes to compare"
    )
    search: Search = Field(description="learning rates tried at every batch size")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="optimizer")
    schedule: Schedule = Field(default_factory=Schedule, description="learning-rate schedule")
    budget: Budget = Field(description="length of a trial")
    growth: Growth | None = Field(None, description="batches that grow during a trial")
    ghost_batch: PositiveInt | None = Field(
        None, description="batch norm over ghost batches of this size; over the micro batch when left out"
    )
    probes: Probes = Field(default_factory=Probes, description="further measurements")
    variants: dict[VariantName, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=100,
        description="name: keys that it changes; each is searched and confirmed like a study",
    )
    scheduler: Scheduler = Field(default_factory=FrontierAshaConfig, description="early stopping of search trials")
    confirm: Confirm = Field(default_factory=Confirm, description="runs the frontier is drawn from")
    hardware: Hardware = Field(default_factory=Hardware, description="what a trial runs on")
    price: Price = Field(default_factory=Price, description="cost of a device")
    limits: LimitsConfig = Field(
        default_factory=LimitsConfig, description="what may be spent; a study that was cut goes on once they are raised"
    )
    report: ReportConfig = Field(default_factory=ReportConfig, description="how the result is shown")
    recovery: Recovery = Field(default_factory=Recovery, description="recovery from faults; may change on a resume")
    tracking: Tracking = Field(default_factory=Tracking, description="experiment trackers; may change on a resume")
    max_retries: int = Field(1, ge=0, le=1000, description="further attempts at a trial whose process died")

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError("batch_sizes lists a size twice")
        if "usd" in self.report.costs and self.price.usd_per_device_hour is None and self.price.gpu_type is None:
            raise ValueError("report.cost is usd, but neither price.usd_per_device_hour nor price.gpu_type is given")
        if self.limits.usd is not None and self.price.usd_per_device_hour is None and self.price.gpu_type is None:
            raise ValueError("limits.usd is given, but neither price.usd_per_device_hour nor price.gpu_type")
        if "billed_gpu_h" in self.report.costs and not self.hardware.on_gpu:
            raise ValueError("report.cost is billed_gpu_h, but hardware.gpus_per_rank is 0")
        if "energy_j" in self.report.costs and self.hardware.gpus_per_rank < 1:
            raise ValueError(
                "report.cost is energy_j, which needs the meter of a whole GPU, "
                f"but hardware.gpus_per_rank is {self.hardware.gpus_per_rank:g}"
            )
        if not isinstance(self.workload, Custom) and self.objective.metric not in MEASURED:
            raise ValueError(
                f"objective.metric is {self.objective.metric}, but workload {self.workload.kind} measures "
                f"{' and '.join(MEASURED)}"
            )
        if not isinstance(self.workload, Custom) and self.objective.also:
            raise ValueError("objective.also goes with an own module: other workloads record all that they measure")
        measured = {*MEASURED, "train_loss"}
        if isinstance(self.workload, Custom):
            measured = {*MEASURED, "train_loss", self.objective.metric, *self.objective.also}
        shares = [(target.value, "budget.target") for target in self.targets if target.metric == self.objective.metric]
        shares += [(self.report.target, "report.target")] if self.report.target is not None else []
        for value, key in shares:
            if self.objective.show == "percent" and not 0 <= value <= 1:
                raise ValueError(f"{key} is {value:g}, and {self.objective.metric} is a share from 0 to 1")
        for target in self.targets:
            if target.metric not in measured:
                raise ValueError(
                    f"budget.target.metric is {target.metric}, which no report holds; objective.also adds it"
                )
        if self.growth is not None:
            if self.budget.epochs is None or self.budget.regime_batch is not None:
                raise ValueError("growth needs budget.epochs, without regime_batch")
            if self.schedule.kind != "constant":
                raise ValueError("growth sets the course of the rate: schedule.kind must be constant")
        for name, changes in self.variants.items():
            for key in changes:
                if key not in VARIABLE:
                    raise ValueError(f"variants.{name}.{key} cannot vary; allowed: {', '.join(VARIABLE)}")
        return self

    @property
    def tokens_per_sample(self) -> int | None:
        """Tokens that a sample holds, the same in every variant; None where samples are not of tokens."""
        if isinstance(self.workload, Text):
            return self.workload.context
        return self.workload.tokens_per_sample if isinstance(self.workload, Custom) else None

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that end a trial."""
        budget, objective = self.budget, self.objective
        found = [Target("val_accuracy", value, "max") for value in (budget.target_val_accuracy,) if value is not None]
        found += [Target("train_loss", value, "min") for value in (budget.target_train_loss,) if value is not None]
        if budget.target is not None:
            metric = budget.target.metric or objective.metric
            mode = objective.mode if metric == objective.metric else direction(metric)
            if mode is None:
                raise ValueError(f"budget.target.metric: the name {metric} does not say whether more or less is better")
            found.append(Target(metric, budget.target.value, mode))
        return tuple(found)

    @property
    def quality_target(self) -> float | None:
        """The quality that updates are counted to: report's target, or that of the budget on the objective."""
        objective, report = self.objective, self.report
        given = [report.target, report.target_val_accuracy if objective.metric == "val_accuracy" else None]
        given += [target.value for target in self.targets if target.metric == objective.metric]
        return next((objective.quality(value) for value in given if value is not None), None)

    @property
    def margin(self) -> float:
        """The difference of the objective that is too small to matter, as logged."""
        return self.report.margin if self.objective.margin is None else self.objective.margin

    @property
    def variant_names(self) -> tuple[str, ...]:
        """The names of the variants; one empty name where the study has none."""
        return tuple(self.variants) or ("",)

    def variant(self, name: str) -> StudyConfig:
        """Return the config of one variant. Raises pydantic's ValidationError."""
        if not name:
            return self
        plain = self.model_dump(mode="json", exclude={"variants"}, exclude_unset=True)
        return StudyConfig.model_validate_json(json.dumps(merged(plain, self.variants[name])))


MEASURED = ("val_accuracy", "val_loss")  # by the workloads of the package
# Keys that a variant may change; the others hold for the whole study.
VARIABLE = ("batch_sizes", "search", "optimizer", "schedule", "budget", "growth", "ghost_batch", "workload")


def merged(base: Any, changes: Any) -> Any:
    """Return `base` with `changes` applied, key by key where both are mappings."""
    if isinstance(base, dict) and isinstance(changes, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}
    return changes
