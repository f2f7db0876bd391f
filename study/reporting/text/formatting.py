"""Numbers, units and names as figures, tables and sentences write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.analysis.records import Point, TrialRecord
    from study.config.sections import CostAxis, LimitName

Series = tuple[str, int]  # a variant, "" where there is none, and a world size
AXIS_NAMES: dict[CostAxis, str] = {
    "billed_device_h": "device time",
    "billed_gpu_h": "GPU time",
    "usd": "US dollars",
    "wall_h": "wall-clock time",
    "energy_j": "energy",
    "samples": "samples",
    "updates": "updates",
}
LIMIT_AXES: dict[LimitName, CostAxis] = {
    "device_hours": "billed_device_h",
    "usd": "usd",
    "wall_h": "wall_h",
    "wait_h": "wall_h",
}
_UNITS: dict[CostAxis, str] = {
    "usd": "USD",
    "samples": "samples",
    "updates": "updates",
}  # axes whose unit is always the same
NOTHING = "–"  # shown where there is no value  # noqa: RUF001


@dataclass(frozen=True)
class Unit:
    """A unit to show costs in; `scale` converts from the unit in which they are recorded."""

    label: str
    scale: float

    def show(self, cost: float) -> str:
        """Return a recorded cost (hours, US dollars, joules, samples or updates) in this unit, to three digits."""
        return f"{number(cost * self.scale)} {self.label}"


def cost_unit(costs: Iterable[float], axis: CostAxis = "billed_device_h") -> Unit:
    """Return one unit that is readable for all of the costs: below 0.1 hours minutes or seconds."""
    if axis in _UNITS:
        return Unit(_UNITS[axis], 1.0)
    most = max((cost for cost in costs if math.isfinite(cost)), default=0.0)
    if axis == "energy_j":
        return Unit("kWh", 1 / 3.6e6) if most >= 3.6e5 else Unit("kJ", 1e-3) if most >= 1e3 else Unit("J", 1.0)
    noun = "GPU-" if axis == "billed_gpu_h" else "" if axis == "wall_h" else "device-"
    if most >= 0.1:
        return Unit(f"{noun}hours", 1.0)
    if most * 60 >= 1:
        return Unit(f"{noun}minutes", 60.0)
    return Unit(f"{noun}seconds", 3600.0)


def of_limit(limit: LimitName, spent: float, allowed: float) -> str:
    """Return what is spent of a limit, both in its unit: `1.2 of 2 device-hours`."""
    unit = cost_unit([allowed], LIMIT_AXES[limit])
    return f"{number(spent * unit.scale)} of {unit.show(allowed)}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to `digits` significant digits, with commas between thousands; NOTHING if it is not finite."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def column(values: Iterable[float]) -> list[str]:
    """Return numbers with equal decimals, so that the smallest shows three digits, with four decimals at most."""
    values = list(values)
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    decimals = min(4, max(0, 2 - math.floor(math.log10(min(sizes))))) if sizes else 0
    return [f"{value:,.{decimals}f}" if math.isfinite(value) else NOTHING for value in values]


def percent(fraction: float | None, decimals: int = 1) -> str:
    """Return a fraction in percent, with its sign; NOTHING if it is not finite."""
    if fraction is None or not math.isfinite(fraction):
        return NOTHING
    return f"{100 * fraction:.{decimals}f}%"


def signed(value: float) -> str:
    """Return a difference with its sign, to three digits."""
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def interval(ci: tuple[float, float] | None, scale: float = 1.0, digits: int = 3) -> str:
    """Return ` [low, high]`, bounds multiplied by `scale`, with a space before it; nothing without an interval."""
    return "" if ci is None else f" [{', '.join(_bound(bound * scale, digits) for bound in ci)}]"


def _bound(value: float, digits: int) -> str:
    return f"{'-' if value < 0 else ''}∞" if math.isinf(value) else number(value, digits)


def pace(point: Point) -> str:
    """Return a point's samples per second, and its tokens per second where samples are of tokens."""
    tokens = "" if point.tokens_per_s is None else f", {number(point.tokens_per_s)} tokens/s"
    return f"{number(point.samples_per_s)} samples/s{tokens}"


def half_interval(ci: tuple[float, float] | None, scale: float = 1.0) -> str:
    """Return ` ± x`, half the width of an interval, which lies evenly around its mean as Student's t does."""
    return "" if ci is None else f" ± {number((ci[1] - ci[0]) / 2 * scale, 2)}"


def ranks(world_size: int) -> str:
    """Return `1 rank`, `2 ranks`, and so on."""
    return f"{world_size} rank{'' if world_size == 1 else 's'}"


def series_of(item: Point | TrialRecord) -> Series:
    """Return the series that a point or trial belongs to: figures draw a line for each."""
    return item.variant, item.world_size


def series_name(series: Series) -> str:
    """Return the name of a series: `2 ranks`, or `adam, 2 ranks`."""
    variant, world_size = series
    return f"{variant}, {ranks(world_size)}" if variant else ranks(world_size)


def duration(seconds: float) -> str:
    """Return seconds as a readable duration: `0.3 s`, `8 s`, `3 min`, `2 h 05 min`."""
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
