"""The objective of a study: the metric that is judged, which direction is better, and how it is shown.

Analysis works with qualities, of which more is always better: a metric itself, or its negative where less is better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, ValidationError, model_validator

from study.config.sections import Section
from study.errors import ConfigError, did_you_mean

Mode = Literal["max", "min"]
Shown = Literal["percent", "number", "exp", "bits"]
MetricName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]

_LESS_IS_BETTER = re.compile(
    "bpb|bpc|bpd|brier|ce|cer|crossentropy|distance|divergence|ece|entropy|eer|epe|err|error|errors|fid|kl|logloss|loss|"
    "losses|lpips|mae|mape|mcd|mse|msle|nll|perplexity|ppl|regret|rmse|rmsle|smape|ter|wer",
    re.IGNORECASE,
)
_MORE_IS_BETTER = re.compile(
    "acc|accuracy|ap|auc|auroc|auprc|bleu|dice|f1|f1score|fscore|iou|map|mcc|miou|ndcg|precision|psnr|r2|recall|rouge|"
    "ssim|top1|top5",
    re.IGNORECASE,
)
PRESETS: dict[str, dict[str, Any]] = {
    "accuracy": {"metric": "val_accuracy", "mode": "max", "show": "percent"},
    "loss": {"metric": "val_loss", "mode": "min", "unit": "nats"},
    "perplexity": {"metric": "val_loss", "mode": "min", "unit": "nats", "show": "exp"},
    "bits_per_byte": {"metric": "val_loss", "mode": "min", "unit": "nats", "show": "bits"},
    "rmse": {"metric": "val_rmse", "mode": "min"},
    "f1": {"metric": "val_f1", "mode": "max"},
}
# Names of columns and fields that a study writes itself.
RESERVED = frozenset((
    "train_loss", "train_accuracy", "updates", "samples", "epochs", "lr", "samples_per_s", "device_seconds",
    "skipped_batches", "metrics", "probes", "trial_id", "phase", "variant", "batch_size", "world_size", "micro_batch",
    "accumulation", "norm_batch", "seed_index", "outcome", "error", "attempts", "total_updates", "audited_from",
    "devices_per_rank", "cost", "cost_ci", "cost_ci_low", "cost_ci_high", "compared", "quality", "further", "n_seeds",
    "n_censored", "on_frontier", "p_on_front", "peak_memory_bytes", "billed_device_h", "billed_gpu_h", "usd", "wall_h",
    "energy_j", "tokens", "tokens_per_s", "setup_s", "train_s", "validate_s", "checkpoint_s", "probe_s", "idle_s",
    "teardown_s", "lost_s",
))  # fmt: skip
RESERVED_PREFIXES = ("probe_", "test_", "search_", "cold_setup_", "compared_")
_LABELS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}


class Measured(Protocol):
    """What holds metrics by name: a report, or a point of a learning curve."""

    def value(self, metric: str) -> float | None:
        """Return a metric by the name under which it was logged; None where it was not."""


@dataclass(frozen=True)
class Target:
    """A value of a metric as logged that a trial trains to, and on which side of it the trial has met it."""

    metric: str
    value: float
    mode: Mode  # max: met at the value or above; min: at the value or below

    def met_by(self, value: float) -> bool:
        """Return whether a value of the metric meets the target; NaN does not."""
        return value >= self.value if self.mode == "max" else value <= self.value


class Objective(Section):
    """The metric that is judged; also a preset by name: accuracy, loss, perplexity, bits_per_byte, rmse or f1."""

    metric: MetricName = Field(
        "val_accuracy", description="name under which it is logged; workloads of the package log val_accuracy, val_loss"
    )
    mode: Mode = Field("max", description="max: more is better; min: less is better; left out, as the name says")
    unit: str = Field(
        "", max_length=20, pattern=r"^[^\x00-\x1f\x7f]*$", description="unit of the metric as logged, such as nats"
    )
    show: Shown = Field(
        "number",
        description="percent of a share from 0 to 1, the number, exp of it (perplexity of a loss), or bits of nats",
    )
    margin: float | None = Field(
        None, ge=0, le=1e12, description="difference too small to matter, as logged; left out, report.margin"
    )
    also: tuple[MetricName, ...] = Field(
        (), max_length=20, description="further metrics that an own module logs, recorded and shown beside it"
    )
    insist: bool = Field(False, description="true accepts a mode that the metric's name contradicts")

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given not in PRESETS:
                raise ValueError(
                    f"{given} is no preset; presets: {', '.join(PRESETS)}{did_you_mean(given, PRESETS)}; "
                    "or give metric and mode"
                )
            return PRESETS[given]
        if not isinstance(given, dict):
            return given
        metric = given.get("metric", "val_accuracy")
        known = next((preset for preset in PRESETS.values() if preset["metric"] == metric), {})
        given = {**known, **given}
        if isinstance(given.get("also"), list):
            given["also"] = tuple(given["also"])
        if "mode" not in given and isinstance(metric, str):
            says = direction(metric)
            if says is None:
                raise ValueError(f"mode is required, max or min: the name {metric} does not say which is better")
            given["mode"] = says
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Objective:
        says = direction(self.metric)
        if says is not None and says != self.mode and not self.insist:
            better = {"max": "more", "min": "less"}
            raise ValueError(
                f"mode is {self.mode}, but {self.metric} sounds like a metric of which {better[says]} is better; "
                f"set mode: {says}, or insist: true if {better[self.mode]} is better after all"
            )
        if self.metric in self.also or len(set(self.also)) != len(self.also):
            raise ValueError("also lists a metric twice, or the objective itself")
        for name in (self.metric, *self.also):
            part = re.sub("^(last|best|final)_|_ci(_low|_high)?$", "", name)
            others = {"epochs", "updates", "val_accuracy", "val_loss", self.metric, *self.also}
            of_another = part != name and part in others
            if name in RESERVED or name.startswith(RESERVED_PREFIXES) or of_another:
                raise ValueError(f"{name} is a name that a study's own figures have; log the metric under another one")
        if self.show == "percent" and self.margin is not None and self.margin > 1:
            raise ValueError(f"margin is {self.margin:g}, and what is shown in percent is a share from 0 to 1")
        return self

    @property
    def label(self) -> str:
        """The metric's name for people: `validation accuracy`, `validation perplexity`, or as it is logged."""
        if self.show == "exp":
            return "validation perplexity" if self.metric == "val_loss" else f"exp({self.metric})"
        return _LABELS.get(self.metric, self.metric)

    @property
    def logged_label(self) -> str:
        """The name of the metric as logged, for people, where values are not converted as `shown` does."""
        return _LABELS.get(self.metric, self.metric)

    @property
    def beside(self) -> tuple[str, ...]:
        """Metrics that are shown beside the objective, where they were recorded."""
        return self.also if self.metric == "val_accuracy" else tuple(dict.fromkeys((*self.also, "val_accuracy")))

    @property
    def test_metric(self) -> str:
        """The name of the same metric on the test set: `test_loss` for `val_loss`."""
        return f"test_{self.metric.removeprefix('val_')}"

    @property
    def floor(self) -> float | None:
        """The least quality that a share from 0 to 1 can have; None for other metrics."""
        if self.show != "percent":
            return None
        return 0.0 if self.mode == "max" else -1.0

    def reference(self, qualities: Iterable[float]) -> float:
        """Return the quality that the area of a frontier is measured from: the least there can be, or else a tenth of
        the range of the points below the worst of them, so that the worst point counts too.
        """
        if self.floor is not None:
            return self.floor
        known = list(qualities)
        worst, best = min(known, default=0.0), max(known, default=0.0)
        return worst - (best - worst) / 10

    def quality(self, value: float) -> float:
        """Return a value of the metric as a quality, of which more is better."""
        return value if self.mode == "max" else -value

    def value(self, quality: float) -> float:
        """Return a quality as the metric's value."""
        return quality if self.mode == "max" else -quality

    def of(self, measured: Measured) -> float:
        """Return the quality of a report or a point of a curve. Raises ConfigError where the metric is missing."""
        found = measured.value(self.metric)
        if found is None:
            raise ConfigError(f"{self.metric} was not recorded", "objective.metric")
        return self.quality(found)

    @property
    def difference_scale(self) -> float:
        """What differences of the metric are multiplied by to be shown: points of a percentage, bits, or as logged."""
        return {"percent": 100.0, "bits": 1 / math.log(2)}.get(self.show, 1.0)

    def shown(self, value: float) -> float:
        """Return a value of the metric as people see it: in percent, as exp, in bits, or as it is."""
        if self.show == "percent":
            return 100 * value
        if self.show == "exp":
            return math.exp(value) if value < 700 else math.inf
        return value / math.log(2) if self.show == "bits" else value


def named_objective(name: str) -> Objective:
    """Return the preset of a name, or the objective of a metric whose name says its direction. Raises ConfigError."""
    try:
        return Objective.model_validate(name if name in PRESETS else {"metric": name})
    except ValidationError as error:
        says = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{says}; presets: {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}", "--objective"
        ) from None


def direction(metric: str) -> Mode | None:
    """Return which direction of a metric is better by the words in its name; None if they do not say, or disagree."""
    more = any(_MORE_IS_BETTER.fullmatch(word) for word in _words(metric))
    if (less_is_better_word(metric) is not None) == more:
        return None
    return "max" if more else "min"


def less_is_better_word(metric: str) -> str | None:
    """Return the first word in a metric's name that stands for something of which less is better; None without any."""
    return next((word for word in _words(metric) if _LESS_IS_BETTER.fullmatch(word)), None)


def _words(metric: str) -> list[str]:
    return re.findall(r"[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*(?![a-z])|[0-9]+", metric)


ACCURACY = Objective.model_validate("accuracy")
