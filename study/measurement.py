"""What a trial measures at a report: the record that ranks, ledger rows and learning curves share.

Every room may import this module. It holds the one rule for what has diverged, and the one mapping between probe
readings and the keys that a ledger stores them under.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

_SHARPNESS = re.compile(r"sharpness_(full|subspace)_(\d{1,2}e-\d{1,2})")
_SERVING = re.compile(r"serving_(\d{1,9})_predictions_per_s")


class _HasMetrics(Protocol):
    @property
    def train_loss(self) -> float: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def val_accuracy(self) -> float | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def non_finite(self) -> str | None: ...


class Judged:
    """How a trial is judged by its metrics; a mixin of `Metrics` and of the ledger's `ReportRow`."""

    __slots__ = ()

    def value(self: _HasMetrics, metric: str) -> float | None:
        """Return a metric by the name under which it was logged; None where it was not."""
        if metric in _NAMED:
            found: float | None = getattr(self, metric)
            return found
        return self.metrics.get(metric)

    @property
    def loss(self: _HasMetrics) -> float:
        """What decides between equal objectives: the validation loss, or the training loss where there is none."""
        return self.train_loss if self.val_loss is None else self.val_loss

    @property
    def non_finite(self: _HasMetrics) -> str | None:
        """The first metric that is not finite, as `train_loss is nan`; None if all are."""
        named = {"train_loss": self.train_loss, "val_loss": self.val_loss, "val_accuracy": self.val_accuracy}
        for name, value in (*named.items(), *self.metrics.items()):
            if name.startswith("test_"):
                continue  # the end of a trial; no part of its training
            if value is not None and not math.isfinite(value):
                return f"{name} is {value}"
        return None

    @property
    def diverged(self: _HasMetrics) -> bool:
        """Whether a metric is not finite: it cannot become finite again, so the trial ends here."""
        return self.non_finite is not None


@dataclass(slots=True, kw_only=True)
class Metrics(Judged):
    """Metrics at one validation, over all ranks. Losses are in nats, accuracies are fractions of 1."""

    train_loss: float
    train_accuracy: float | None  # None where a user's own module does not log it
    val_loss: float | None  # the same
    val_accuracy: float | None  # the same
    metrics: Mapping[str, float] = field(default_factory=dict)  # further ones, by the name under which they are logged
    skipped_batches: int = 0  # micro batches of the interval, of all ranks, for which training_step returned no loss


@dataclass(frozen=True, slots=True)
class ServingPoint:
    """Predictions in batches of one size, one batch after the other."""

    batch_size: int
    predictions_per_s: float
    p50_ms: float  # of a whole batch, which is the time that each of its requests waits for it
    p99_ms: float


@dataclass(frozen=True, slots=True)
class ProbeReadings:
    """Measurements beside the metrics, as far as the config asks for them."""

    noise_b_simple: float | None = None  # gradient noise scale, in samples
    parameters: float | None = None  # trainable ones
    sharpness_full: Mapping[float, float] = field(default_factory=dict)  # percent, by the size of the box
    sharpness_subspace: Mapping[float, float] = field(default_factory=dict)
    hessian_top: float | None = None  # largest eigenvalue
    serving: tuple[ServingPoint, ...] = ()  # by batch size, ascending

    def serving_at(self, batch_size: int) -> ServingPoint | None:
        """Return the point of one request batch, if it was measured."""
        return next((point for point in self.serving if point.batch_size == batch_size), None)

    def as_stored(self) -> dict[str, float]:
        """Return the readings as a ledger row stores them."""
        stored: dict[str, float] = {}
        if self.noise_b_simple is not None:
            stored["noise_b_simple"] = self.noise_b_simple
        if self.parameters is not None:
            stored["parameters"] = self.parameters
        for eps, value in self.sharpness_full.items():
            stored[f"sharpness_full_{power(eps)}"] = value
            if eps in self.sharpness_subspace:
                stored[f"sharpness_subspace_{power(eps)}"] = self.sharpness_subspace[eps]
        if self.hessian_top is not None:
            stored["hessian_top"] = self.hessian_top
        for point in self.serving:
            at = f"serving_{point.batch_size}"
            stored[f"{at}_predictions_per_s"] = point.predictions_per_s
            stored[f"{at}_p50_ms"], stored[f"{at}_p99_ms"] = point.p50_ms, point.p99_ms
        return stored

    @classmethod
    def from_stored(cls, stored: Mapping[str, float]) -> ProbeReadings:
        """Read what `as_stored` wrote. Unknown keys, of a later version, are left out."""
        if not stored:
            return NO_READINGS
        boxes: dict[str, dict[float, float]] = {"full": {}, "subspace": {}}
        serving = []
        for name, value in stored.items():
            if match := _SHARPNESS.fullmatch(name):
                boxes[match[1]][float(match[2])] = value
            elif match := _SERVING.fullmatch(name):
                p50_ms, p99_ms = (stored.get(f"serving_{match[1]}_{part}_ms") for part in ("p50", "p99"))
                if p50_ms is not None and p99_ms is not None:
                    serving.append(ServingPoint(int(match[1]), value, p50_ms, p99_ms))
        return cls(
            noise_b_simple=stored.get("noise_b_simple"),
            parameters=stored.get("parameters"),
            sharpness_full=boxes["full"],
            sharpness_subspace=boxes["subspace"],
            hessian_top=stored.get("hessian_top"),
            serving=tuple(sorted(serving, key=lambda point: point.batch_size)),
        )


NO_READINGS = ProbeReadings()


def power(eps: float) -> str:
    """Write a size of the box with one digit: 1e-3 and 5e-4 rather than 0.001 and 0.0005."""
    mantissa, exponent = f"{eps:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@dataclass(slots=True, kw_only=True)
class Measurement(Metrics):
    """One interval of a trial, from one report to the next."""

    updates: int  # of the trial so far, as are the next two
    samples: int
    epochs: float
    lr: float
    test_accuracy: float | None = None  # at the end of a confirm trial only
    samples_per_s: float  # of this interval, training time only
    probes: ProbeReadings = NO_READINGS

    def as_stored(self) -> dict[str, Any]:
        """Return the fields as a ledger's ReportRow has them; `ReportRow.point` is the way back."""
        return dict(zip(STORED, read_stored(self), strict=True)) | {"probes": self.probes.as_stored()}


@dataclass(slots=True, kw_only=True)
class CurvePoint(Measurement):
    """A trial at one of its reports. It is not frozen, nor are its bases: that would take four times as long to create,
    and a large ledger has a million reports.
    """

    device_seconds: float  # cumulative: ranks x (training + validation)


# Fields that a ledger's ReportRow has as they are.
_NAMED = frozenset({"train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy"})
STORED = tuple(name for name in Measurement.__dataclass_fields__ if name != "probes")
read_stored = attrgetter(*STORED)
