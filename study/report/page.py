"""The report of a study as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from study.analysis.hypotheses import Verdict
from study.analysis.records import Summary
from study.report.advice import advice, critical_sentences, model_sentence
from study.report.figures import batch_figure, cost_figure
from study.report.frontier import frontier_figure
from study.report.html import Section, rendered, section
from study.report.laws import critical_figure, model_figure
from study.report.searching import MOST_CURVES, curves_figure, rates_figure, stopping_figure
from study.report.tables import claim_lines, config_yaml, points_table, provenance, spend_table
from study.report.verdict import stopping_sentences, verdict
from study.report.words import AXIS_NAMES


def render_page(summary: Summary, claims: Sequence[Verdict] = ()) -> str:
    """The report as one self-contained HTML document."""
    return rendered("page.html.j2", **_parts(summary, claims))


def render_body(summary: Summary | None) -> str:
    """What stands in the document's main part; None while nothing has begun."""
    if summary is None:
        return rendered("waiting.html.j2")
    return rendered("body.html.j2", **_parts(summary, ()))


def render_live(name: str, body: str) -> str:
    """A document around what `render_body` made, that keeps itself up to date from the server it came from."""
    return rendered("live.html.j2", name=name, body=Markup(body), live=True)


def _parts(summary: Summary, claims: Sequence[Verdict]) -> dict[str, object]:
    first, *others = verdict(summary)
    recommendation = summary.recommendation
    return {
        "summary": summary,
        "headline": first,
        "sentences": others,
        "advice": advice(recommendation, summary.cost_axis) if recommendation else (),
        "frontier": _frontier(summary),
        "axes": {axis: AXIS_NAMES[axis] for axis in summary.frontiers},
        "points": {axis: points_table(summary, axis) for axis in summary.frontiers},
        "spend": spend_table(summary),
        "cost": _cost(summary),
        "sections": [part for part in (*_batches(summary), *_trials(summary)) if part],
        "critical": _critical(summary),
        "critical_sentences": critical_sentences(summary),
        "model": _model(summary),
        "claims": [(claim, claim_lines(claim)) for claim in claims],
        "provenance": provenance(summary),
        "config": config_yaml(summary),
    }


def _frontier(summary: Summary) -> Section | None:
    if not summary.points:
        return None
    return section(
        "Cost against accuracy",
        "Left and up is better. Each point is the mean of its confirm seeds with 95% intervals, and the probability "
        "that it is on the frontier; whatever lies right of and below the line is dominated. Hollow: trials that were "
        "stopped or failed, at their last validation.",
        "frontier",
        {axis: frontier_figure(summary, axis) for axis in summary.frontiers},
    )


def _cost(summary: Summary) -> Section | None:
    if not any(trial.cost.billed_device_h for trial in summary.trials):
        return None
    return section(
        "Where the device time went",
        "From lease to release or hand-over, all attempts. The first trial of a group pays for its setup.",
        "cost",
        {"": cost_figure(summary)},
    )


def _batches(summary: Summary) -> list[Section]:
    if not summary.points:
        return []
    return [
        section(
            "What the batch size does",
            "Means of the confirm seeds. Samples a second are of training only: validation and waiting are not in it.",
            "batches",
            {"": batch_figure(summary)},
        )
    ]


def _trials(summary: Summary) -> list[Section | None]:
    """Figures of single trials; None for one that has nothing to show."""
    rates, stopped = rates_figure(summary), stopping_figure(summary)
    with_curve = sum(bool(trial.curve) for trial in summary.trials)
    part = (
        f" Of {with_curve:,} trials about {MOST_CURVES} are drawn, evenly between the best and the worst of each batch "
        "size and phase."
        if with_curve > MOST_CURVES
        else ""
    )
    return [
        rates
        and section(
            "Search: which learning rate",
            "Where each search trial ended. Hollow ones were stopped early, diverged or failed: they might have gone "
            "further. The colours tell the better half apart; the darkest stands for the median and all below.",
            "rates",
            {"": rates},
        ),
        section(
            "Learning curves",
            f"Validation accuracy after each report; confirm trials strong, search trials faint.{part}",
            "curves",
            {"": curves_figure(summary)},
        )
        if with_curve
        else None,
        stopped
        and section(
            "What early stopping cut",
            " ".join(stopping_sentences(summary)),
            "stopping",
            {"": stopped},
        ),
    ]


def _critical(summary: Summary) -> Section | None:
    if summary.critical is None:
        return None
    return section("Critical batch size", "", "critical", {"": critical_figure(summary.critical, summary.noise_scale)})


def _model(summary: Summary) -> Section | None:
    model = summary.throughput_model
    if model is None:
        return None
    return section(
        "Throughput on other numbers of ranks", model_sentence(model), "model", {"": model_figure(summary, model)}
    )
