"""A recommendation in sentences and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from study.analysis.records import Constraints
from study.reporting.text.formatting import NOTHING, Unit, cost_unit, interval, number, percent
from study.reporting.text.json_records import strict_json
from study.reporting.text.quality import (
    bare_text,
    difference_text,
    is_accuracy,
    loss_text,
    margin_text,
    named_value,
    noise_words,
    shown_interval,
    the_best,
    value_text,
    with_metric_names,
)
from study.reporting.text.quality import unit as unit_of
from study.reporting.text.tables import TextTable

if TYPE_CHECKING:
    from study.analysis.records import ConstraintName, Expected, Miss, Point, Recommendation, Summary, Trade
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


def decision_sentences(summary: Summary) -> tuple[str, ...]:
    """Return what to choose without limits, and what is undecided, in at most two sentences; none without points."""
    found = summary.recommendation
    if found is None or found.choice is None or len(summary.points) < 2:
        return ()
    return (f"Choose {found.choice.label}: {_why(summary.objective, found)}", *_undecided(summary.objective, found))


def recommendation_lines(summary: Summary, found: Recommendation, limits: Constraints) -> tuple[str, ...]:
    """Return the recommendation in sentences: the choice, why, what is undecided, and the runner-up."""
    unit = cost_unit([point_cost.cost for point_cost in (found.best, *_shown(found))], summary.cost_axis)
    objective = summary.objective
    lines = [_asked(objective, limits, found.confidence)] if asdict(limits) != asdict(Constraints()) else []
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
        why = _why(objective, found)
        lines += [
            f"Choose {_described(objective, found.choice, unit)}. Learning rate {number(chosen.lr)}, micro batch "
            f"{chosen.micro_batch}, accumulation {chosen.accumulation}, {chosen.updates:,} updates.",
            why[0].upper() + why[1:],
        ]
    lines += _undecided(objective, found)
    if found.runner_up is not None:
        lines.append(_runner_up(objective, found.runner_up))
    elif found.choice is not None:
        lines.append("Runner-up: none; no other configuration qualifies.")
    return tuple(lines)


def standings_table(summary: Summary) -> TextTable | None:
    """Return how good each configuration is likely to be, cheapest first, the choice marked; None where unknown."""
    found, objective = summary.recommendation, summary.objective
    if found is None or not found.standings:
        return None
    head = f"probability of being {_good(objective, found)}"
    rows = tuple(
        (
            one.label,
            NOTHING if math.isnan(one.cost_ratio) else percent(one.cost_ratio, 0),
            _probability(one.probability),
            loss_text(objective, one.expected_loss),
        )
        for one in found.standings
    )
    chosen = found.choice.label if found.choice else None
    marked = tuple(one.label == chosen for one in found.standings)
    return TextTable(("configuration", f"cost, share of {found.best.label}", head, "expected loss"), rows, marked)


def _why(objective: Objective, found: Recommendation) -> str:
    """Return why the choice is chosen: a sentence without its capital letter."""
    assert found.choice is not None
    standing = next((one for one in found.standings if one.label == found.choice.label), None)
    if standing is None:
        grounds = "the cheapest" if found.aim == "reaches" else the_best(objective)
        why_not = "one seed for some configuration, or hundreds of configurations"
        return f"it is {grounds} by its mean; with {why_not}, there are no probabilities."
    good, probability = _good(objective, found), _probability(standing.probability)
    if found.aim == "reaches":
        return f"it is the cheapest that is {good} with a probability of {found.confidence:g}: {probability}."
    if not found.sure:
        return (
            f"no configuration is {good} with a probability of {found.confidence:g}; this one loses least on average, "
            f"{loss_text(objective, standing.expected_loss)} (probability {probability})."
        )
    if found.choice.label == found.best.label:
        return (
            f"it is {the_best(objective)} on average, and {good} with probability {probability}; no cheaper one is "
            f"with {found.confidence:g}."
        )
    costs = (
        "" if math.isnan(standing.cost_ratio) else f"costs {percent(standing.cost_ratio, 0)} of {found.best.label} and "
    )
    return (
        f"it {costs}is {good} with probability {probability}; {found.best.label} is {the_best(objective)} on average."
    )


def _good(objective: Objective, found: Recommendation) -> str:
    """Return what is asked for: `within 1 point of accuracy of the best`, `at least as good as asked for`."""
    if found.aim == "reaches":
        return "as good as asked for"
    return f"within {margin_text(objective, found.margin)} of the best" if found.margin else "the best"


def _probability(value: float) -> str:
    """Return a probability with two digits that is never shown as certain."""
    return "above 0.99" if value > 0.99 else "below 0.01" if value < 0.01 else f"{value:.2f}"


def _undecided(objective: Objective, found: Recommendation) -> tuple[str, ...]:
    """Return, in one sentence or none, which cheaper configuration may be good enough and what would settle it."""
    one = found.to_settle
    if one is None:
        return ()
    chosen = found.choice is not None and one.label == found.choice.label
    which = "it" if chosen else one.label if found.choice is None else f"{one.label}, cheaper,"
    doubt = f"Undecided: {which} is {_good(objective, found)} with probability {_probability(one.probability)}"
    if one.more_seeds is None:
        return (f"{doubt}; even a thousand more seeds would not settle it.",)
    seeds = f"{one.more_seeds} more seed{'s' * (one.more_seeds > 1)}"
    of_both = "" if one.rival is None else f" of it and of {one.rival}"
    hours = "" if one.device_h is None else f" ({cost_unit([one.device_h]).show(one.device_h)})"
    return (f"{doubt}; about {seeds}{of_both}{hours} would settle it.",)


def recommendation_record(summary: Summary, found: Recommendation, limits: Constraints) -> dict[str, object]:
    """Return the recommendation as plain values for strict JSON, with the configuration to run, None if no
    configuration qualifies.
    """
    chosen = None
    if found.choice is not None:
        chosen = with_metric_names(summary.objective, asdict(_point(summary.points, found.choice)))
    record = {
        "study": summary.study.name,
        "cost_axis": summary.cost_axis,
        "limits": _limits(summary.objective, limits),
        "qualifies": found.choice is not None,
        **_with_targets(summary.objective, asdict(found)),
        "configuration": chosen,
    }
    return {key: strict_json(value) for key, value in record.items()}


def _with_targets(objective: Objective, record: dict[str, Any]) -> dict[str, Any]:
    """Return a recommendation's record with missed qualities as misses of the target, in values of the objective."""
    for expected in (record["choice"], record["nearest_miss"], record["best"]):
        for miss in expected["misses"] if expected else ():
            if miss["limit"] == "min_quality":
                miss["limit"], miss["allowed"] = "target", objective.value(miss["allowed"])
                miss["value"] = None if miss["value"] is None else objective.value(miss["value"])
    return record


def _limits(objective: Objective, limits: Constraints) -> dict[str, float | None]:
    """Return the limits by name, the least quality as `target`, a value of the objective."""
    given: dict[str, float | None] = asdict(limits)
    quality = given.pop("min_quality")
    return given | {"target": None if quality is None else objective.value(quality)}


def _shown(found: Recommendation) -> list[Expected]:
    return [one for one in (found.choice, found.nearest_miss) if one is not None]


def _point(points: Sequence[Point], expected: Expected) -> Point:
    return next(point for point in points if point.label == expected.label)


def _asked(objective: Objective, limits: Constraints, confidence: float) -> str:
    given = asdict(limits)
    asked = [
        _allowed(objective, name, given[name])
        + (f" with a probability of {confidence:g}" if name == "min_quality" else "")
        for name in _WORDING
        if given[name] is not None
    ]
    return f"Asked for, of one training run: {', '.join(asked)}."


def _miss(objective: Objective, miss: Miss) -> str:
    if miss.probability is not None:
        return (
            f"reaches {_allowed(objective, miss.limit, miss.allowed)} with probability {_probability(miss.probability)}"
        )
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


def _runner_up(objective: Objective, trade: Trade) -> str:
    ratio = trade.cost
    times = "" if math.isnan(ratio.effect) else f", at {number(ratio.effect)}{interval(ratio.ci)} times the cost"
    return (
        f"Runner-up: {trade.other.label}: {difference_text(objective, trade.quality.effect)}"
        f"{' of accuracy' if is_accuracy(objective) else ''}, {noise_words(objective, trade.quality)}{times}."
    )
