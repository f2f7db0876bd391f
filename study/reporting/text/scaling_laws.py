"""What the fitted laws say, in sentences."""

from __future__ import annotations

from study.analysis.records import Summary
from study.analysis.statistics.stepmodel import StepModel
from study.reporting.text.formatting import number, percent
from study.reporting.text.table_analysis import critical_lines


def critical_sentences(summary: Summary) -> tuple[str, ...]:
    """The critical batch size with its interval, whether the law fits, and the noise scale beside it."""
    sentences = []
    if summary.critical is None:
        sentences.append(f"No critical batch size: {summary.critical_missing}.")
    else:
        for critical in (summary.critical, *summary.other_criticals):
            of = f"{critical.variant}: target" if critical.variant else "Target"
            sentences.append(
                f"{of} {percent(critical.target_val_accuracy)} validation accuracy, {critical.target_why}."
            )
            sentences += critical_lines(critical.fit)
            if critical.n_unreported:
                sentences.append(
                    f"{critical.n_unreported} further trial(s) ended without a report: they bound nothing and "
                    "are left out."
                )
    if summary.noise_scale is not None:
        sentences.append(f"Measured gradient noise scale: {number(summary.noise_scale)} samples.")
    return tuple(sentences)


def model_sentence(model: StepModel) -> str:
    """What the throughput model was fitted on, and how well."""
    low, high = model.micro_batches
    sizes = ", ".join(map(str, model.world_sizes))
    return (
        f"Fitted on {sizes} rank{'' if sizes == '1' else 's'} with {low} to {high} samples each; a run is typically "
        f"{percent(model.typical_error, 0)} off the fit. Marks are medians. Dotted lines are extrapolated: nothing was "
        "run there."
    )
