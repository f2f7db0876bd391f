"""The study file: one frozen pydantic model, every field with its unit and meaning.

The field descriptions are the reference: `study init` writes them into a commented file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Metric = Literal["billed_device_h", "billed_gpu_h", "usd", "wall_h", "energy_j", "samples", "updates"]
Metrics = Annotated[tuple[Metric, ...], Field(min_length=1, max_length=2)]
Cost = Annotated[
    Annotated[Metric, Tag("one")] | Annotated[Metrics, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
Purchase = Literal["on_demand", "spot", "reserved"]
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Section(BaseModel):
    """A part of the study file: unknown keys, infinities and later changes are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Digits(Section):
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels in 10 classes, always at hand."""

    kind: Literal["digits"] = "digits"
    model: Literal["mlp", "convnet"] = Field("mlp", description="network to train")
    width: PositiveInt = Field(64, description="hidden units (mlp) or channels of the first stage (convnet)")
    val_samples: PositiveInt = Field(300, description="samples held apart for validation")
    test_samples: PositiveInt = Field(300, description="samples held apart for the test")
    data_seed: int = Field(0, ge=0, description="fixes the three splits, whatever the trial's seed")


class Teacher(Section):
    """Gaussian inputs labelled by a random two-layer network, with some labels redrawn at random."""

    kind: Literal["teacher"]
    model: Literal["mlp"] = Field("mlp", description="network to train")
    width: PositiveInt = Field(64, description="hidden units of the network to train")
    train_samples: PositiveInt = Field(4096, description="samples to train on")
    val_samples: PositiveInt = Field(1024, description="samples held apart for validation")
    test_samples: PositiveInt = Field(1024, description="samples held apart for the test")
    features: PositiveInt = Field(32, description="inputs of a sample")
    classes: int = Field(10, ge=2, description="number of labels")
    label_noise: Fraction = Field(0.1, description="share of training labels redrawn uniformly over the classes")
    teacher_width: PositiveInt = Field(32, description="hidden units of the labelling network")
    data_seed: int = Field(0, ge=0, description="fixes teacher, samples and splits")


class Custom(Section):
    """Your own LightningModule and LightningDataModule, by import path."""

    kind: Literal["custom"] = "custom"
    module: ImportPath = Field(description="LightningModule, as package.module:Class")
    data: ImportPath = Field(description="LightningDataModule, as package.module:Class; it is given batch_size")
    module_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the module")
    data_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the data module")
    train_samples: PositiveInt = Field(description="samples in the training set; checked when a trial starts")
    val_accuracy: str = Field("val_accuracy", description="name under which the module logs its accuracy")
    val_loss: str = Field("val_loss", description="name under which the module logs its validation loss")


def _workload_tag(value: Any) -> str | None:
    if isinstance(value, Section):
        return str(getattr(value, "kind", None))
    if not isinstance(value, dict):
        return None
    return str(value.get("kind", "custom" if "module" in value else "digits"))


Workload = Annotated[
    Annotated[Digits, Tag("digits")] | Annotated[Teacher, Tag("teacher")] | Annotated[Custom, Tag("custom")],
    Discriminator(_workload_tag),
]


class LogUniform(Section):
    """A range of learning rates, sampled evenly in the logarithm."""

    low: PositiveFloat = Field(description="smallest rate")
    high: PositiveFloat = Field(description="largest rate")

    @model_validator(mode="after")
    def _ordered(self) -> LogUniform:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


LrGrid = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
LrSpace = Annotated[
    Annotated[LrGrid, Tag("list")] | Annotated[LogUniform, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | LogUniform) else "list"),
]
WorldSizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
WorldSize = Annotated[
    Annotated[PositiveInt, Tag("one")] | Annotated[WorldSizes, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class Search(Section):
    """Which learning rates are tried at every batch size."""

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
    weight_decay: float = Field(0.0, ge=0, description="coupled for sgd and lars, decoupled for adamw and lamb")


class Schedule(Section):
    """The course of the learning rate over a trial."""

    kind: Literal["cosine", "step", "constant"] = Field("cosine", description="after the warm-up")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the updates with a linear warm-up")
    step_fractions: tuple[Fraction, ...] = Field((0.5, 0.75), description="step: where the rate drops")
    step_factor: float = Field(0.1, gt=0, lt=1, description="step: what the rate is multiplied by")


class Budget(Section):
    """How long each trial trains: the same epochs, or the same updates, at every batch size."""

    epochs: PositiveInt | None = Field(None, description="passes over the training set")
    updates: PositiveInt | None = Field(None, description="optimizer steps")
    report_every_updates: PositiveInt | None = Field(
        None, description="updates between validations; one epoch when left out"
    )

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("give exactly one of epochs and updates")
        return self


class FrontierAsha(Section):
    """Halving within each batch size, so that the frontier keeps them all; stopped trials are paused, not killed."""

    kind: Literal["frontier_asha"] = Field("frontier_asha", description="a bracket for each batch size and world size")
    profile: Literal["balanced", "quick"] = Field(
        "balanced", description="how strict the brackets are: about a third or a fifth of the full grid's cost"
    )
    min_completions: PositiveInt = Field(2, description="trials of each bracket that train to the end, at least")
    synchronous: bool = Field(
        True, description="a rung waits for all on their way to it; false promotes at once (ASHA as published)"
    )
    audit: Fraction = Field(0.0, description="share of the stopped trials trained to the end, to check the stopping")


class RungAsha(Section):
    """Asynchronous halving of all batch sizes together; a stopped trial is gone."""

    kind: Literal["asha", "mo_asha"] = Field(
        description="asha is Ray's own, on accuracy; mo_asha ranks by cost and accuracy at once"
    )
    unit: Literal["epochs", "samples", "updates", "device_seconds"] = Field(
        "epochs", description="what the rungs are counted in"
    )
    grace: PositiveFloat = Field(1, description="first rung, in the unit: nothing stops before it")
    eta: float = Field(3, gt=1, description="one in eta goes on at each rung, and rungs are eta apart")
    max_device_seconds: PositiveFloat | None = Field(
        None, description="with unit device_seconds: where the last rung may lie"
    )
    audit: Fraction = Field(0.0, description="share of the stopped trials trained to the end, to check the stopping")

    @model_validator(mode="after")
    def _bounded(self) -> RungAsha:
        if (self.unit == "device_seconds") != (self.max_device_seconds is not None):
            raise ValueError("max_device_seconds goes with unit device_seconds, and only with it")
        return self


class FullGrid(Section):
    """Every search trial trains to the end: what `study replay` needs."""

    kind: Literal["grid"] = Field(description="nothing is stopped early")


def _scheduler_tag(value: Any) -> str:
    kind = value.get("kind", "frontier_asha") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind)


Scheduler = Annotated[
    Annotated[FrontierAsha, Tag("frontier_asha")]
    | Annotated[RungAsha, Tag("asha")]
    | Annotated[RungAsha, Tag("mo_asha")]
    | Annotated[FullGrid, Tag("grid")],
    Discriminator(_scheduler_tag),
]


class Confirm(Section):
    """The runs the frontier is drawn from: chosen rates, fresh seeds, to the end."""

    seeds: PositiveInt = Field(3, description="fresh seeds for each batch size and world size")


class Hardware(Section):
    """What one trial runs on."""

    world_size: WorldSize = Field(1, description="DDP ranks of a trial, or a list of sizes to compare")
    cpus_per_rank: PositiveInt = Field(1, description="logical CPUs leased for each rank")
    gpus_per_rank: int = Field(0, ge=0, le=1, description="1 trains on a GPU with nccl, 0 on the CPU with gloo")
    micro_batch: PositiveInt | None = Field(
        None,
        description="most samples a rank takes at once; a larger local batch is accumulated in equal parts",
    )
    accumulation: PositiveInt | None = Field(None, description="fixes the number of parts instead")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="Lightning's precision")

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        if self.micro_batch is not None and self.accumulation is not None:
            raise ValueError("give micro_batch or accumulation, not both")
        if self.precision == "16-mixed" and self.gpus_per_rank == 0:
            raise ValueError("precision 16-mixed needs a GPU; use 32 or bf16-mixed on the CPU")
        if len(set(self.world_sizes)) != len(self.world_sizes):
            raise ValueError("world_size lists a size twice")
        return self

    @property
    def world_sizes(self) -> tuple[int, ...]:
        """Every world size to run."""
        return self.world_size if isinstance(self.world_size, tuple) else (self.world_size,)


class Price(Section):
    """What a leased device costs: the figure itself, or what to look up in a price list."""

    usd_per_device_hour: float | None = Field(
        None, ge=0, description="US dollars; left out, looked up for gpu_type, and without one no dollars are shown"
    )
    source: str | None = Field(None, description="where the price is from, and its date")
    gpu_type: str | None = Field(None, description="GPU to look up, e.g. H100-SXM-80GB; `study prices` lists them")
    purchase: Purchase = Field("on_demand", description="how it is rented: on_demand, spot or reserved")
    provider: str | None = Field(None, description="whose price, where several ask for the GPU")
    file: str | None = Field(None, description="a price list of your own that wins, beside the study file")

    @model_validator(mode="after")
    def _named(self) -> Price:
        if self.gpu_type is None and (self.provider or self.file):
            raise ValueError("provider and file go with gpu_type, which says what to look up")
        return self


class Report(Section):
    """How the result is shown."""

    cost: Cost = Field(
        "billed_device_h", description="the frontier's cost axis, or a list of two: a second frontier is told beside it"
    )
    cost_tolerance: Fraction = Field(
        0.05, description="costs this close count as equal on the frontier: the clock's own noise"
    )
    target_val_accuracy: Fraction | None = Field(
        None, description="accuracy that updates are counted to, for the critical batch size; the most that all reach"
    )
    margin: Fraction = Field(0.01, description="accuracy too small to matter: not worse is to lose less than this")

    @model_validator(mode="after")
    def _different(self) -> Report:
        if len(set(self.costs)) < 2:
            raise ValueError("cost lists the same cost twice")
        return self

    @property
    def costs(self) -> tuple[Metric, Metric | None]:
        """The frontier's cost axis, and the second one if there is one."""
        if isinstance(self.cost, str):
            return self.cost, None
        return self.cost[0], self.cost[1] if len(self.cost) > 1 else None


class StudyConfig(Section):
    """A whole study."""

    name: str = Field(min_length=1, max_length=80, description="shown on the report")
    seed: int = Field(0, ge=0, description="root of every random choice: rates drawn, initial weights, order of data")
    workload: Workload = Field(default_factory=Digits, description="what is trained")
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description="global batch sizes to compare"
    )
    search: Search = Field(description="learning rates tried at every batch size")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="optimizer")
    schedule: Schedule = Field(default_factory=Schedule, description="learning-rate schedule")
    budget: Budget = Field(description="length of a trial")
    scheduler: Scheduler = Field(default_factory=FrontierAsha, description="early stopping of search trials")
    confirm: Confirm = Field(default_factory=Confirm, description="runs the frontier is drawn from")
    hardware: Hardware = Field(default_factory=Hardware, description="what a trial runs on")
    price: Price = Field(default_factory=Price, description="cost of a device")
    report: Report = Field(default_factory=Report, description="how the result is shown")
    max_retries: int = Field(1, ge=0, description="further attempts at a trial whose process died")

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError("batch_sizes lists a size twice")
        if "usd" in self.report.costs and self.price.usd_per_device_hour is None and self.price.gpu_type is None:
            raise ValueError("report.cost is usd, but neither price.usd_per_device_hour nor price.gpu_type is given")
        if "billed_gpu_h" in self.report.costs and self.hardware.gpus_per_rank == 0:
            raise ValueError("report.cost is billed_gpu_h, but hardware.gpus_per_rank is 0")
        if "energy_j" in self.report.costs and self.hardware.gpus_per_rank == 0:
            raise ValueError("report.cost is energy_j, which a GPU's meter tells, but hardware.gpus_per_rank is 0")
        return self
