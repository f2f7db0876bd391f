"""The objective as figures, tables and sentences write it.

Qualities are those of records, of which more is better (see `study.config.objective`); readers see the metric's values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from study.config.objective import ACCURACY
from study.reporting.text.formatting import NOTHING, number, signed

if TYPE_CHECKING:
    from study.analysis.records import Point
    from study.analysis.statistics.hypotheses import Contrast
    from study.config.objective import Objective

Interval = tuple[float, float]
_DIGITS = 4


def shown(objective: Objective, quality: float) -> float:
    """Return a quality as a number to show: in percent, as exp, in bits, or as logged."""
    return objective.shown(objective.value(quality))


def shown_interval(objective: Objective, ci: Interval) -> Interval:
    """Return an interval of qualities as numbers to show, the lower first."""
    low, high = sorted(shown(objective, bound) for bound in ci)
    return low, high


def unit(objective: Objective) -> str:
    """Return the unit of the numbers shown: `%`, `bits`, that of the metric, or nothing."""
    return {"percent": "%", "bits": "bits", "exp": ""}.get(objective.show, objective.unit)


def column_head(objective: Objective) -> str:
    """Return the head of a table's column: `val. accuracy %`, `validation loss (nats)`."""
    if is_accuracy(objective):
        return "val. accuracy %"
    return f"{objective.label} {_in_brackets(objective)}".rstrip()


def metric_head(name: str) -> str:
    """Return the head of a column of a metric beside the objective."""
    return "val. accuracy %" if name == ACCURACY.metric else name


def metric_text(name: str, value: float | None) -> str:
    """Return a metric beside the objective, as logged; an accuracy in percent, without the sign."""
    if name == ACCURACY.metric:
        return bare_text(ACCURACY, value)
    return number(value, _DIGITS)


def axis_title(objective: Objective) -> str:
    """Return the title of a figure's axis: unit, and which end is better."""
    if is_accuracy(objective):
        return objective.label
    better = "lower is better" if objective.mode == "min" else "higher is better"
    units = unit(objective)
    return f"{objective.label} ({', '.join(filter(None, (units, better)))})"


def is_accuracy(objective: Objective) -> bool:
    """Say whether the objective is the validation accuracy, for which sentences have words of their own."""
    return objective.metric == ACCURACY.metric and objective.show == "percent"


def _in_brackets(objective: Objective) -> str:
    return f"({units})" if (units := unit(objective)) else ""


def value_text(objective: Objective, quality: float | None, decimals: int = 1) -> str:
    """Return a quality with its unit: `95.1%`, `1.234 nats`; `decimals` count for percent. NOTHING if not finite."""
    if quality is None or not math.isfinite(quality):
        return NOTHING
    if objective.show == "percent":
        return f"{shown(objective, quality):.{decimals}f}%"
    return f"{number(shown(objective, quality), _DIGITS)} {unit(objective)}".rstrip()


def bare_text(objective: Objective, quality: float | None, decimals: int = 2) -> str:
    """Return a quality without its unit, for a column whose head has it."""
    if quality is None or not math.isfinite(quality):
        return NOTHING
    number_ = shown(objective, quality)
    return f"{number_:.{decimals}f}" if objective.show == "percent" else number(number_, _DIGITS)


def with_interval(objective: Objective, quality: float, ci: Interval | None) -> str:
    """Return a quality ± half of its 95% interval, without the unit; of exp, which is not linear, the interval."""
    text = bare_text(objective, quality)
    if ci is None:
        return text
    low, high = shown_interval(objective, ci)
    if objective.show == "exp":
        return f"{text} [{number(low, _DIGITS)}, {number(high, _DIGITS)}]"
    half = (high - low) / 2
    return f"{text} ± {half:.2f}" if objective.show == "percent" else f"{text} ± {number(half, 2)}"


def point_text(objective: Objective, point: Point) -> str:
    """Return the mean of a point ± half of its 95% interval, without the unit."""
    return with_interval(objective, point.quality, point.quality_ci)


def difference_unit(objective: Objective) -> str:
    """Return the unit of differences: points of a percentage, else that of the metric as logged."""
    return {"percent": "points", "bits": "bits"}.get(objective.show, objective.unit or f"of {objective.metric}")


def difference(objective: Objective, gain: float) -> float:
    """Return a difference of qualities as one of the metric's values, in `difference_unit`."""
    return objective.difference_scale * objective.value(gain) + 0.0  # without the sign of a zero


def difference_text(objective: Objective, gain: float) -> str:
    """Return a difference of qualities as one of values with sign and unit: `+1.25 points`, `-0.031 nats`."""
    found = difference(objective, gain)
    text = f"{found:+.2f}" if objective.show == "percent" else signed(found)
    return f"{text} {difference_unit(objective)}"


def margin_text(objective: Objective, margin: float) -> str:
    """Return a difference too small to matter: `1 point of accuracy`, `0.01 nats`."""
    size = objective.difference_scale * margin
    if is_accuracy(objective):
        return f"{size:g} point{'' if size == 1 else 's'} of accuracy"
    return f"{number(size)} {difference_unit(objective)}"


def loss_text(objective: Objective, loss: float) -> str:
    """Return how much is lost on average: `0.13 points`, `0.0042 nats`."""
    size = objective.difference_scale * loss
    text = f"{size:.2f}" if objective.show == "percent" else number(size, 2)
    return f"{text} {difference_unit(objective)}"


def noise_words(objective: Objective, found: Contrast) -> str:
    """Return the 95% interval of a difference, its test and seeds, and whether it is more than noise."""
    if found.ci is None:
        return noise_answer(found)
    a, b = found.n_seeds
    seeds = f"{found.test}, {a if a == b else f'{a} and {b}'} seeds"
    return f"95% interval {interval_words(objective, found)} ({seeds}): {noise_answer(found)}"


def interval_words(objective: Objective, found: Contrast) -> str:
    """Return the interval of a difference with its unit: `+0.2 to +1.4 points`."""
    if found.ci is None:
        return NOTHING
    low, high = (signed(bound) for bound in sorted(difference(objective, bound) for bound in found.ci))
    return f"{low} to {high} {difference_unit(objective)}"


def noise_answer(found: Contrast) -> str:
    """Return whether a difference is more than noise, or why that is not known."""
    if found.answer == "untested":
        if min(found.n_seeds) < 2:
            return "with too few seeds to know the noise"
        return "with seeds all alike: without a spread there is no test"
    return "not distinguishable from noise" if found.answer == "indistinct" else "more than noise"


def the_best(objective: Objective) -> str:
    """Return the name of the best configuration: `the most accurate` or `the best`."""
    return "the most accurate" if is_accuracy(objective) else "the best"


def named_value(objective: Objective, quality: float | None, decimals: int = 1) -> str:
    """Return a value with the name of the objective: `95.1% validation accuracy`, `validation loss 1.23 nats`."""
    value = value_text(objective, quality, decimals)
    return f"{value} {objective.label}" if is_accuracy(objective) else f"{objective.label} {value}"


def metric_names(objective: Objective) -> dict[str, str]:
    """Return the name under which each field of a record is exported: `quality` as `val_loss`, and so on."""
    metric = objective.metric
    return {
        "quality": metric,
        "quality_ci": f"{metric}_ci",
        "best_quality": f"best_{metric}",
        "final_quality": f"final_{metric}",
        "target_quality": f"target_{metric}",
        "test_quality": objective.test_metric,
    }


def with_metric_names(objective: Objective, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose qualities are the metric's values, under its name; intervals have the lower end first."""
    names = metric_names(objective)
    return {names.get(key, key): _value_of(objective, item) if key in names else item for key, item in record.items()}


def _value_of(objective: Objective, quality: float | Interval | None) -> float | Interval | None:
    if quality is None:
        return None
    if isinstance(quality, tuple):
        low, high = sorted(map(objective.value, quality))
        return low, high
    return objective.value(quality)
