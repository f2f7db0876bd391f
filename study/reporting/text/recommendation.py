"""A recommendation in sentences and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from study.analysis.records import Constraints
from study.reporting.text.formatting import Unit, cost_unit, interval, number, signed
from study.reporting.text.quality import (
    bare_text,
    difference_text,
    is_accuracy,
    margin_text,
    named_value,
    noise_words,
    shown_interval,
    the_best,
    value_text,
    with_metric_names,
)
from study.reporting.text.quality import unit as unit_of

if TYPE_CHECKING:
    from study.analysis.records import ConstraintName, Expected, Interval, Miss, Point, Recommendation, Summary, Trade
    from study.config.objective import Objective

# Of each constraint, how a configuration is described, and what is asked for.
_WORDING: dict[ConstraintName, tuple[str, str]] = {
    "max_usd": ("costs {} USD", "at most {} USD"),
    "max_device_hours": ("takes {} device-hours", "at most {} device-hours"),
    "min_quality": ("reaches {}", "at least {}"),
    "deadline_h": ("takes {} hours", "at most {} hours"),
    "gpus": ("needs {} GPUs or ranks", "at most {} GPUs or ranks"),
    "max_latency_ms": ("answers in {} ms", "at most {} ms"),
}


def recommendation_lines(summary: Summary, found: Recommendation, limits: Constraints) -> tuple[str, ...]:
    """Return the recommendation in sentences: the choice, the runner-up, and the cheapest that is not worse."""
    unit = cost_unit([point_cost.cost for point_cost in (found.best, *_shown(found))], summary.cost_axis)
    objective = summary.objective
    lines = [_asked(objective, limits)] if asdict(limits) != asdict(Constraints()) else []
    paid = (limits.max_usd, limits.max_device_hours, limits.deadline_h)
    if summary.group_setups and any(limit is not None for limit in paid):
        lines.append("Costs that are compared with these limits include the setup of a group that starts for the run.")
    if found.choice is None:
        assert found.nearest_miss is not None
        wanting = " and ".join(_miss(objective, miss) for miss in found.nearest_miss.misses)
        lines += [
            "No configuration qualifies.",
            f"Nearest miss: {_described(objective, found.nearest_miss, unit)}; it {wanting}.",
        ]
    else:
        chosen = _point(summary.points, found.choice)
        why = "the cheapest" if found.aim == "cheapest" else the_best(objective)
        lines.append(
            f"Choose {_described(objective, found.choice, unit)}: {why} that qualifies. "
            f"Learning rate {number(chosen.lr)}, micro batch {chosen.micro_batch}, "
            f"accumulation {chosen.accumulation}, {chosen.updates:,} updates."
        )
    if found.runner_up is not None:
        lines.append(_runner_up(objective, found.runner_up, unit))
    elif found.choice is not None:
        lines.append("Runner-up: none; no other configuration qualifies.")
    return *lines, _frugal(objective, found, unit)


def recommendation_record(summary: Summary, found: Recommendation, limits: Constraints) -> dict[str, object]:
    """Return the recommendation as plain values, with the configuration to run, None if no configuration qualifies."""
    chosen = None
    if found.choice is not None:
        chosen = with_metric_names(summary.objective, asdict(_point(summary.points, found.choice)))
    return {
        "study": summary.study.name,
        "cost_axis": summary.cost_axis,
        "limits": _limits(summary.objective, limits),
        "qualifies": found.choice is not None,
        **asdict(found),
        "configuration": chosen,
    }


def _limits(objective: Objective, limits: Constraints) -> dict[str, float | None]:
    """Return the limits by name, the least quality as `target`, a value of the objective."""
    given: dict[str, float | None] = asdict(limits)
    quality = given.pop("min_quality")
    return given | {"target": None if quality is None else objective.value(quality)}


def _shown(found: Recommendation) -> list[Expected]:
    return [one for one in (found.choice, found.nearest_miss) if one is not None]


def _point(points: Sequence[Point], expected: Expected) -> Point:
    return next(point for point in points if point.label == expected.label)


def _asked(objective: Objective, limits: Constraints) -> str:
    given = asdict(limits)
    asked = [_allowed(objective, name, given[name]) for name in _WORDING if given[name] is not None]
    return f"Asked for, of one training run: {', '.join(asked)}."


def _miss(objective: Objective, miss: Miss) -> str:
    has = _WORDING[miss.limit][0].format(_value(objective, miss.limit, miss.value))
    return f"{has} where {_allowed(objective, miss.limit, miss.allowed)} is asked for"


def _allowed(objective: Objective, limit: ConstraintName, value: float | None) -> str:
    words = _WORDING[limit][1]
    if limit == "min_quality" and objective.mode == "min":
        words = "at most {}"
    return words.format(_value(objective, limit, value))


def _value(objective: Objective, limit: ConstraintName, value: float | None) -> str:
    return value_text(objective, value, 2) if limit == "min_quality" else number(value)


def _described(objective: Objective, one: Expected, unit: Unit) -> str:
    setup = f" and {unit.show(one.setup)} for the setup of a cold group" if one.setup else ""
    return f"{one.label}: {_quality(objective, one)} at {_cost(one, unit)} a run{setup}"


def _quality(objective: Objective, one: Expected) -> str:
    """Return the objective with its 95% interval."""
    if one.quality_ci is None:
        return named_value(objective, one.quality, 2)
    if is_accuracy(objective):
        ends = (value_text(objective, bound, 2) for bound in one.quality_ci)
        return f"{value_text(objective, one.quality, 2)} [{', '.join(ends)}] {objective.label}"
    low, high = (number(end, 4) for end in shown_interval(objective, one.quality_ci))
    return f"{objective.label} {bare_text(objective, one.quality)} [{low}, {high}] {unit_of(objective)}".rstrip()


def _cost(one: Expected, unit: Unit) -> str:
    return f"{number(one.cost * unit.scale)}{interval(one.cost_ci, unit.scale)} {unit.label}"


def _runner_up(objective: Objective, trade: Trade, unit: Unit) -> str:
    cost = f"{signed(trade.cost * unit.scale)}{_signed(trade.cost_ci, unit.scale)} {unit.label}"
    gain = trade.quality_contrast
    return (
        f"Runner-up: {trade.other.label}: {difference_text(objective, trade.quality)}"
        f"{' of accuracy' if is_accuracy(objective) else ''}, {noise_words(objective, gain)}; for {cost} a run."
    )


def _signed(ci: Interval | None, scale: float) -> str:
    return "" if ci is None else f" [{', '.join(signed(bound * scale) for bound in ci)}]"


def _frugal(objective: Objective, found: Recommendation, unit: Unit) -> str:
    best, margin = found.best.label, margin_text(objective, found.margin)
    if found.cheapest_not_worse is None:
        return "With one seed for some configuration, none can be shown to be as good as the best."
    if found.cheapest_not_worse.label == best:
        return (
            f"No cheaper configuration is shown to lose less than {margin} to {the_best(objective)}, {best} "
            "(tests of all cheaper ones, with Holm's correction)."
        )
    assert found.not_worse_by is not None
    frugal, by = _described(objective, found.cheapest_not_worse, unit), found.not_worse_by
    return (
        f"The cheapest that is shown to lose less than {margin} to {the_best(objective)}, {best}: {frugal}; that is "
        f"{difference_text(objective, by.effect)}, {noise_words(objective, by)}."
    )
