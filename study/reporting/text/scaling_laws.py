"""The fitted laws in sentences: critical batch size and throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.reporting.text.formatting import NOTHING, interval, number, percent
from study.reporting.text.quality import named_value

if TYPE_CHECKING:
    from study.analysis.records import Summary
    from study.analysis.statistics.critical import CriticalBatch
    from study.analysis.statistics.stepmodel import StepModel


def critical_sentences(summary: Summary) -> tuple[str, ...]:
    """Return the critical batch size of each variant with its interval and fit, then the measured noise scale."""
    sentences = []
    if summary.critical is None:
        sentences.append(f"No critical batch size: {summary.critical_missing}.")
    else:
        for critical in (summary.critical, *summary.other_criticals):
            of = f"{critical.variant}: target" if critical.variant else "Target"
            sentences.append(f"{of} {named_value(summary.objective, critical.target_quality)}, {critical.target_why}.")
            sentences += fit_sentences(critical.fit)
            if critical.fit.b_crit is not None and summary.tokens_per_sample:
                sentences.append(f"In tokens: a batch of {number(critical.fit.b_crit * summary.tokens_per_sample)}.")
            if critical.n_unreported:
                sentences.append(
                    f"{critical.n_unreported} further trial(s) ended without a report: they bound nothing and "
                    "are left out."
                )
    if summary.noise_scale is not None:
        per_sample = summary.tokens_per_sample
        tokens = f", {number(per_sample * summary.noise_scale)} tokens" if per_sample else ""
        sentences.append(f"Measured gradient noise scale: {number(summary.noise_scale)} samples{tokens}.")
    return tuple(sentences)


def fit_sentences(fit: CriticalBatch) -> list[str]:
    """Return the fitted critical batch size, or that there is none, and a warning where the law does not fit."""
    censored = f", {fit.n_censored} of them censored" if fit.n_censored else ""
    runs = f"{fit.n_runs} runs{censored}"
    if fit.b_crit is None:
        bounds = f"; it lies in{interval(fit.b_crit_ci)}" if fit.b_crit_ci else ""
        sentences = [f"Critical batch size: not fitted from {runs}{bounds}."]
    else:
        sentences = [
            f"Critical batch size {number(fit.b_crit)}{interval(fit.b_crit_ci)}: at least {number(fit.s_min)} steps"
            f"{interval(fit.s_min_ci)} and {number(fit.e_min)} samples{interval(fit.e_min_ci)}; "
            f"{runs}, R² {NOTHING if fit.r2 is None else f'{fit.r2:.3f}'}."
        ]
    if fit.misfit:
        sentences.append(f"Do not trust the law here: {fit.misfit_reason}.")
    return sentences


def model_sentence(model: StepModel) -> str:
    """Return what the throughput model was fitted to, and how well it fits."""
    low, high = model.micro_batches
    sizes = ", ".join(map(str, model.world_sizes))
    return (
        f"Fitted on {sizes} rank{'' if sizes == '1' else 's'} with {low} to {high} samples each; a run is typically "
        f"{percent(model.typical_error, 0)} off the fit. Marks are medians. Dotted lines are extrapolated: nothing was "
        "run there."
    )
