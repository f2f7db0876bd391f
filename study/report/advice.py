"""Recommendation, critical batch size and throughput model as sentences."""

from __future__ import annotations

import math

from study.analysis.recommend import Expected, Recommendation, Trade
from study.analysis.records import Critical, Summary
from study.analysis.stepmodel import StepModel
from study.report.words import Unit, cost_unit, number, percent

Interval = tuple[float, float]


def advice(recommendation: Recommendation, axis: str) -> tuple[str, ...]:
    """What to take, what it trades against the runner-up, and the cheapest that is not worse; costs on `axis`."""
    shown = [e for e in (recommendation.choice, recommendation.nearest_miss, recommendation.best) if e is not None]
    unit = cost_unit([expected.cost for expected in shown], axis)
    sentences = []
    if recommendation.choice is not None:
        aim = "the cheapest that qualifies" if recommendation.aim == "cheapest" else "the most accurate"
        sentences.append(f"Take {recommendation.choice.label}, {aim}: {_expected(recommendation.choice, unit)}.")
    elif recommendation.nearest_miss is not None:
        miss = recommendation.nearest_miss
        sentences.append(f"None qualifies. The nearest miss is {miss.label}: {_expected(miss, unit)}.")
    frugal = recommendation.cheapest_not_worse
    if frugal is not None and frugal.label != recommendation.best.label:
        sentences.append(
            f"The cheapest that is statistically not worse than the best (by {percent(recommendation.margin)} or more) "
            f"is {frugal.label}: {_expected(frugal, unit)}."
        )
    elif frugal is not None:
        sentences.append(
            f"No cheaper one is shown to lose less than {percent(recommendation.margin)} to it; more seeds might show "
            "one."
        )
    if recommendation.runner_up is not None:
        sentences.append(_trade(recommendation.runner_up, unit))
    return tuple(sentences)


def _expected(expected: Expected, unit: Unit) -> str:
    accuracy = f"{percent(expected.quality)} validation accuracy{_between(expected.quality_ci, 100)}"
    return f"{accuracy} at {unit.show(expected.cost)} a trial{_between(expected.cost_ci, unit.scale)}"


def _trade(trade: Trade, unit: Unit) -> str:
    return (
        f"The runner-up is {trade.other.label}: {signed(trade.cost * unit.scale)} {unit.label} a trial and "
        f"{signed(100 * trade.quality)} points of accuracy{_between(trade.quality_ci, 100)}."
    )


def _between(interval: Interval | None, scale: float) -> str:
    if interval is None:
        return ""
    low, high = (minus(number(bound * scale)) if math.isfinite(bound) else "no bound" for bound in interval)
    return f" (95% interval {low} to {high})"


def signed(value: float) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "") + minus(number(value, 2))


def minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def critical_sentences(summary: Summary) -> tuple[str, ...]:
    """The critical batch size with its interval, whether the law fits, and the noise scale beside it."""
    if summary.critical is None:
        sentences = [f"No critical batch size: {summary.critical_missing}."]
    else:
        sentences = _fitted(summary.critical)
    if summary.noise_scale is not None:
        sentences.append(f"Measured gradient noise scale: {number(summary.noise_scale)} samples.")
    return tuple(sentences)


def _fitted(critical: Critical) -> list[str]:
    fit = critical.fit
    sentences = [f"Target: {percent(critical.target_val_accuracy)} validation accuracy, {critical.target_why}."]
    if fit.b_crit is not None:
        sentences.append(
            f"Critical batch size {number(fit.b_crit)}{_between(fit.b_crit_ci, 1)}: there a run takes twice the fewest "
            f"updates ({number(fit.s_min)}) and twice the fewest samples ({number(fit.e_min)})."
        )
    elif fit.b_crit_ci is not None:
        sentences.append(f"The runs only bound the critical batch size{_between(fit.b_crit_ci, 1)}.")
    if fit.misfit:
        sentences.append(f"Do not rely on it: {fit.misfit_reason}.")
    return sentences


def model_sentence(model: StepModel) -> str:
    """What the throughput model was fitted on, and how well."""
    low, high = model.micro_batches
    sizes = ", ".join(map(str, model.world_sizes))
    return (
        f"Fitted on {sizes} rank{'' if sizes == '1' else 's'} with {low} to {high} samples each; a run is typically "
        f"{percent(model.typical_error, 0)} off the fit. Dotted lines are extrapolated: nothing was run there."
    )
