"""The small sections of a study file: prices, limits, reports, recovery from faults, and experiment trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from study.errors import ConfigError
from study.safe_text import masked

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e12)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a network's layers, which grow with its square
Fraction = Annotated[float, Field(ge=0, le=1)]

CostAxis = Literal["billed_device_h", "billed_gpu_h", "usd", "wall_h", "energy_j", "samples", "updates"]
OneOrTwoCostAxes = Annotated[
    Annotated[CostAxis, Tag("one")]
    | Annotated[tuple[CostAxis, ...], Field(min_length=1, max_length=2), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
LimitName = Literal["device_hours", "usd", "wall_h", "wait_h"]
Purchase = Literal["on_demand", "spot", "reserved"]
MOST_USD_PER_DEVICE_HOUR = 1e6


class Section(BaseModel):
    """A part of the study file: unknown keys, infinities and later changes are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Price(Section):
    """The price of a leased device: a figure, or a GPU type to look up in a price list."""

    usd_per_device_hour: float | None = Field(
        None,
        ge=0,
        le=MOST_USD_PER_DEVICE_HOUR,
        description="US dollars; left out, looked up for gpu_type, and without one no dollars are shown",
    )
    source: str | None = Field(None, description="source of the price, and its date")
    gpu_type: str | None = Field(None, description="GPU to look up, e.g. H100-SXM-80GB; `study prices` lists them")
    purchase: Purchase = Field("on_demand", description="how it is rented: on_demand, spot or reserved")
    provider: str | None = Field(None, description="provider whose price counts, where several offer the GPU")
    file: str | None = Field(None, description="your price list, relative to the study file; it takes precedence")

    @model_validator(mode="after")
    def _named(self) -> Price:
        if self.gpu_type is None and (self.provider or self.file):
            raise ValueError("provider and file go with gpu_type, which says what to look up")
        return self


class LimitsConfig(Section):
    """Limits on spending. Past one the study is cut: nothing starts, and running trials end at their next report."""

    device_hours: PositiveFloat | None = Field(None, description="billed device-hours of all trials and drivers")
    usd: PositiveFloat | None = Field(None, description="US dollars for these device-hours; needs a price")
    wall_h: PositiveFloat | None = Field(None, description="hours in which a driver of the study runs")
    wait_h: PositiveFloat | None = Field(
        None,
        description="hours in a row to wait for a cluster that can hold a trial; left out, without limit",
    )

    def against(
        self, device_h: float, wall_h: float, usd_per_device_hour: float | None, wait_h: float | None = None
    ) -> dict[LimitName, tuple[float, float]]:
        """Return (spent, allowed) of each limit that is set; `wait_h` is None where the time of waiting is unknown.

        Raises ConfigError for dollars without a price.
        """
        spent: dict[LimitName, float] = {"device_hours": device_h, "wall_h": wall_h}
        if self.usd is not None:
            if usd_per_device_hour is None:
                raise ConfigError("needs a price: give price.usd_per_device_hour or price.gpu_type", "limits.usd")
            spent["usd"] = device_h * usd_per_device_hour
        if wait_h is not None:
            spent["wait_h"] = wait_h
        limits: dict[LimitName, float | None] = {
            "device_hours": self.device_hours,
            "usd": self.usd,
            "wall_h": self.wall_h,
            "wait_h": self.wait_h,
        }
        return {name: (spent[name], allowed) for name, allowed in limits.items() if name in spent and allowed}


class ReportConfig(Section):
    """The costs, target and margin that the report uses."""

    cost: OneOrTwoCostAxes = Field(
        "billed_device_h",
        description="cost axis of the frontier, or a list of two: the report also names the second frontier",
    )
    cost_tolerance: Fraction = Field(
        0.05, description="costs within this share count as equal on the frontier: noise of the clock"
    )
    target: float | None = Field(
        None,
        ge=-1e12,
        le=1e12,
        description="value of the objective that updates are counted to, for the critical batch size; left out, the "
        "best that all reach",
    )
    target_val_accuracy: Fraction | None = Field(None, description="the same, where the objective is the accuracy")
    include_setup: bool = Field(
        False, description="compare costs with the setup of cold groups in them, which is billed either way"
    )
    margin: Fraction = Field(
        0.01, description="difference of the objective too small to matter; objective.margin takes precedence"
    )

    @model_validator(mode="after")
    def _different(self) -> ReportConfig:
        if len(set(self.costs)) < 2:
            raise ValueError("cost lists the same cost twice")
        return self

    @property
    def costs(self) -> tuple[CostAxis, CostAxis | None]:
        """The frontier's cost axis, and the second one or None."""
        if isinstance(self.cost, str):
            return self.cost, None
        return self.cost[0], self.cost[1] if len(self.cost) > 1 else None


class Recovery(Section):
    """Recovery from faults. A resumed study may change this section."""

    checkpoint_every_s: float = Field(
        60.0,
        ge=0,
        le=1e9,
        description="seconds between the checkpoints of a trial, taken at its reports; 0: at every report",
    )
    checkpoints: PositiveInt = Field(2, description="newest checkpoints kept of each unfinished trial")
    silent_s: float = Field(
        60.0,
        ge=1,
        le=1e9,
        description="seconds without an answer after which a rank is lost: a stopped process or machine",
    )
    stuck_s: float = Field(
        1800.0,
        ge=1,
        le=1e9,
        description="seconds without progress after which a group is lost that still answers",
    )


class Tracking(Section):
    """Experiment trackers that get a copy of events. A resumed study may change this section."""

    mlflow: str | None = Field(
        None, min_length=1, description="address of an MLflow server; each trial is a run there (extra: tracking)"
    )
    tensorboard: str | None = Field(
        None,
        min_length=1,
        description="a folder for TensorBoard, a run for each trial; relative to the study's folder, or absolute",
    )

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, uri: str | None) -> str | None:
        if uri is not None and masked(uri) != uri:
            raise ValueError(
                "must not hold what authorizes: MLflow takes it from MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return uri

    @field_validator("tensorboard")
    @classmethod
    def _stays_within(cls, folder: str | None) -> str | None:
        if folder is not None and ".." in Path(folder).parts:
            raise ValueError("must not climb out with ..; an absolute path may lie anywhere")
        return folder
