"""A recommendation in sentences and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from study.analysis.records import Constraints
from study.reporting.text.formatting import Unit, cost_unit, interval, noise_words, number, percent, signed

if TYPE_CHECKING:
    from study.analysis.records import ConstraintName, Expected, Interval, Miss, Point, Recommendation, Summary, Trade

# Of each constraint, how a configuration is described, and what is asked for.
_WORDING: dict[ConstraintName, tuple[str, str]] = {
    "max_usd": ("costs {} USD", "at most {} USD"),
    "max_device_hours": ("takes {} device-hours", "at most {} device-hours"),
    "min_accuracy": ("reaches {}", "at least {}"),
    "deadline_h": ("takes {} hours", "at most {} hours"),
    "gpus": ("needs {} GPUs or ranks", "at most {} GPUs or ranks"),
    "max_latency_ms": ("answers in {} ms", "at most {} ms"),
}


def recommendation_lines(summary: Summary, found: Recommendation, limits: Constraints) -> tuple[str, ...]:
    """Return the recommendation in sentences: the choice, the runner-up, and the cheapest that is not worse."""
    unit = cost_unit([point_cost.cost for point_cost in (found.best, *_shown(found))], summary.cost_axis)
    lines = [_asked(limits)] if asdict(limits) != asdict(Constraints()) else []
    paid = (limits.max_usd, limits.max_device_hours, limits.deadline_h)
    if summary.group_setups and any(limit is not None for limit in paid):
        lines.append("Costs that are compared with these limits include the setup of a group that starts for the run.")
    if found.choice is None:
        assert found.nearest_miss is not None
        wanting = " and ".join(_miss(miss) for miss in found.nearest_miss.misses)
        lines += ["No configuration qualifies.", f"Nearest miss: {_described(found.nearest_miss, unit)}; it {wanting}."]
    else:
        chosen = _point(summary.points, found.choice)
        why = "the cheapest" if found.aim == "cheapest" else "the most accurate"
        lines.append(
            f"Choose {_described(found.choice, unit)}: {why} that qualifies. Learning rate {number(chosen.lr)}, "
            f"micro batch {chosen.micro_batch}, accumulation {chosen.accumulation}, {chosen.updates:,} updates."
        )
    if found.runner_up is not None:
        lines.append(_runner_up(found.runner_up, unit))
    elif found.choice is not None:
        lines.append("Runner-up: none; no other configuration qualifies.")
    return *lines, _frugal(found, unit)


def recommendation_record(summary: Summary, found: Recommendation, limits: Constraints) -> dict[str, object]:
    """Return the recommendation as plain values, with the configuration to run, None if no configuration qualifies."""
    chosen = None if found.choice is None else asdict(_point(summary.points, found.choice))
    return {
        "study": summary.study.name,
        "cost_axis": summary.cost_axis,
        "limits": asdict(limits),
        "qualifies": found.choice is not None,
        **asdict(found),
        "configuration": chosen,
    }


def _shown(found: Recommendation) -> list[Expected]:
    return [one for one in (found.choice, found.nearest_miss) if one is not None]


def _point(points: Sequence[Point], expected: Expected) -> Point:
    return next(point for point in points if point.label == expected.label)


def _asked(limits: Constraints) -> str:
    given = asdict(limits)
    asked = [
        words.format(_value(name, given[name])) for name, (_, words) in _WORDING.items() if given[name] is not None
    ]
    return f"Asked for, of one training run: {', '.join(asked)}."


def _miss(miss: Miss) -> str:
    says, allows = _WORDING[miss.limit]
    has, allowed = _value(miss.limit, miss.value), _value(miss.limit, miss.allowed)
    return f"{says.format(has)} where {allows.format(allowed)} is asked for"


def _value(limit: ConstraintName, value: float | None) -> str:
    return percent(value, 2) if limit == "min_accuracy" else number(value)


def _described(one: Expected, unit: Unit) -> str:
    setup = f" and {unit.show(one.setup)} for the setup of a cold group" if one.setup else ""
    return f"{one.label}: {_accuracy(one)} validation accuracy at {_cost(one, unit)} a run{setup}"


def _accuracy(one: Expected) -> str:
    if one.quality_ci is None:
        return percent(one.quality, 2)
    return f"{percent(one.quality, 2)} [{', '.join(percent(bound, 2) for bound in one.quality_ci)}]"


def _cost(one: Expected, unit: Unit) -> str:
    return f"{number(one.cost * unit.scale)}{interval(one.cost_ci, unit.scale)} {unit.label}"


def _runner_up(trade: Trade, unit: Unit) -> str:
    cost = f"{signed(trade.cost * unit.scale)}{_signed(trade.cost_ci, unit.scale)} {unit.label}"
    gain = trade.quality_contrast
    return (
        f"Runner-up: {trade.other.label}: {100 * trade.quality:+.2f} points of accuracy, "
        f"{noise_words(gain)}; for {cost} a run."
    )


def _signed(ci: Interval | None, scale: float) -> str:
    return "" if ci is None else f" [{', '.join(signed(bound * scale) for bound in ci)}]"


def _frugal(found: Recommendation, unit: Unit) -> str:
    best, margin = found.best.label, f"{100 * found.margin:g} point{'' if found.margin == 0.01 else 's'} of accuracy"
    if found.cheapest_not_worse is None:
        return "With one seed for some configuration, none can be shown to be as good as the best."
    if found.cheapest_not_worse.label == best:
        return (
            f"No cheaper configuration is shown to lose less than {margin} to the most accurate, {best} "
            "(tests of all cheaper ones, with Holm's correction)."
        )
    assert found.not_worse_by is not None
    frugal, by = _described(found.cheapest_not_worse, unit), found.not_worse_by
    return (
        f"The cheapest that is shown to lose less than {margin} to the most accurate, {best}: {frugal}; that is "
        f"{100 * by.effect:+.2f} points, {noise_words(by)}."
    )
