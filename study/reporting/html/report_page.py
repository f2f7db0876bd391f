"""The report of a study as one HTML file."""

from __future__ import annotations

import plotly.graph_objects as go
from markupsafe import Markup

from study.analysis.records import Constraints, Summary
from study.reporting.figures.frontier import frontier_figure
from study.reporting.figures.registry import FIGURES
from study.reporting.figures.search_figures import MOST_CURVES, MOST_RATES
from study.reporting.html.document import Section, rendered, section
from study.reporting.text.claims import claim_lines, details_table
from study.reporting.text.formatting import AXIS_NAMES
from study.reporting.text.recommendation import recommendation_lines
from study.reporting.text.scaling_laws import critical_sentences, model_sentence
from study.reporting.text.tables import config_yaml, points_table, provenance, spend_table
from study.reporting.text.verdict import stopping_sentences, verdict

_HEADINGS = {
    "frontier": "Cost against accuracy",
    "cost": "Where the device time went",
    "batches": "What the batch size does",
    "rates": "Search: which learning rate",
    "curves": "Learning curves",
    "stopping": "What early stopping cut",
    "critical": "Noise scale and critical batch size",
    "model": "Throughput on other numbers of ranks",
}

_CAPTIONS = {
    "frontier": "Left and up is better. Each point is the mean of its confirm seeds with 95% intervals, and the "
    "probability that it is on the frontier; whatever lies right of and below the line is dominated. Hollow: trials "
    "that were stopped or failed, at their last validation.",
    "cost": "Billed from lease to release or hand-over, all attempts. The first trial of a group pays for its setup.",
    "batches": "Means of the confirm seeds. Samples a second are of training only, without validation and waiting.",
    "rates": "Where each search trial ended. Hollow ones were stopped early, diverged or failed: they might have gone "
    "further. The colours tell the better half apart; the darkest stands for the median and all below.",
    "curves": "Validation accuracy after each report; confirm trials strong, search trials faint.",
}

_WITHOUT_SETUP = (
    " Device time, US dollars and hours leave out the setup of cold groups, which is billed to the first trial on each."
)


def render_page(summary: Summary) -> str:
    """The report as one self-contained HTML document."""
    return rendered("page.html.j2", **_parts(summary))


def render_body(summary: Summary | None) -> str:
    """What stands in the document's main part; None while nothing has begun."""
    if summary is None:
        return rendered("waiting.html.j2")
    return rendered("body.html.j2", **_parts(summary))


def render_live(name: str, body: str) -> str:
    """A document around what `render_body` made, that keeps itself up to date from the server it came from."""
    return rendered("live.html.j2", name=name, body=Markup(body), live=True)


def _parts(summary: Summary) -> dict[str, object]:
    first, *others = verdict(summary)
    found = summary.recommendation
    return {
        "summary": summary,
        "headline": first,
        "sentences": others,
        "advice": recommendation_lines(summary, found, Constraints()) if found else (),
        "axes": {axis: AXIS_NAMES[axis] for axis in summary.frontiers},
        "points": {axis: points_table(summary, axis) for axis in summary.frontiers},
        "spend": spend_table(summary),
        "sections": _sections(summary),
        "critical": critical_sentences(summary),
        "claims": [
            (claim, claim_lines(claim), details_table(claim.details) if claim.details else None)
            for claim in summary.claims
            if claim.findings
        ],
        "unproved": [claim.claim for claim in summary.claims if not claim.findings],
        "provenance": provenance(summary),
        "config": config_yaml(summary),
    }


def _sections(summary: Summary) -> dict[str, Section]:
    """The figures that the study has something to show of, by name."""
    sections = {}
    for name, draw in FIGURES.items():
        if name == "frontier":  # which can be seen over each cost that there is
            drawn: dict[str, go.Figure | None] = {axis: frontier_figure(summary, axis) for axis in summary.frontiers}
        else:
            drawn = {"": draw(summary)}
        figures = {axis: figure for axis, figure in drawn.items() if figure is not None}
        if figures:
            sections[name] = section(_HEADINGS[name], _caption(name, summary), name, figures)
    return sections


def _caption(name: str, summary: Summary) -> str:
    if name == "stopping":
        return " ".join(stopping_sentences(summary))
    if name == "frontier":
        return _CAPTIONS[name] + (_WITHOUT_SETUP if summary.leaves_out_setup else "")
    if name == "model" and summary.throughput_model is not None:
        return model_sentence(summary.throughput_model)
    searched = sum(trial.phase == "search" and trial.outcome is not None for trial in summary.trials)
    thinned = {
        "curves": _thinned(sum(bool(trial.curve) for trial in summary.trials), MOST_CURVES, "from best to worst"),
        "rates": _thinned(searched, MOST_RATES, "over their learning rates"),
    }
    return _CAPTIONS.get(name, "") + thinned.get(name, "")


def _thinned(trials: int, most: int, how: str) -> str:
    return f" Of {trials:,} trials about {most:,} are drawn, evenly {how}." if trials > most else ""
