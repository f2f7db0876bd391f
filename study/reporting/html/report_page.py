"""The report of a study as one HTML file."""

from __future__ import annotations

import plotly.graph_objects as go
from markupsafe import Markup

from study.analysis.records import Constraints, Summary
from study.config.objective import Objective
from study.reporting.figures.frontier import frontier_figure
from study.reporting.figures.registry import FIGURES
from study.reporting.figures.search_figures import MOST_CURVES, MOST_RATES
from study.reporting.html.document import Section, rendered, section
from study.reporting.text.claims import claim_lines, details_table
from study.reporting.text.formatting import AXIS_NAMES
from study.reporting.text.quality import is_accuracy
from study.reporting.text.recommendation import decision_sentences, recommendation_lines, standings_table
from study.reporting.text.scaling_laws import critical_sentences, model_sentence
from study.reporting.text.tables import config_yaml, points_table, provenance, spend_table
from study.reporting.text.verdict import cut_sentences, findings, key_figures, steps_table, stopping_sentences

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
    "frontier": "Left and {up} is better. Each point is the mean of its confirm seeds with 95% intervals, and the "
    "probability that it is on the frontier; points to the right of the line and {below} it are dominated. Hollow: "
    "trials that did not complete, at their last validation.",
    "cost": "Billed from lease to release or hand-over, all attempts. A group's setup is billed to its first trial.",
    "batches": "Means over confirm seeds. Samples/s are of training only, without validation and waiting.",
    "rates": "The last {objective} of each search trial. Hollow: stopped early, diverged or failed, so a "
    "longer run might be better. The darkest colour means the median or worse. The line: the best rate of each batch "
    "size by a surface through all reports, with 95% intervals.",
    "curves": "{Objective} at each report; search trials are faint.",
}

_WITHOUT_SETUP = (
    " Device time, US dollars and hours leave out the setup of cold groups, which is billed to the first trial on each."
)


def render_page(summary: Summary) -> str:
    """Return the report of a study as one self-contained HTML document."""
    return rendered("page.html.j2", **_parts(summary))


def render_body(summary: Summary | None) -> str:
    """Return the document's main part; `summary` is None before the first trial begins."""
    if summary is None:
        return rendered("waiting.html.j2")
    return rendered("body.html.j2", **_parts(summary))


def render_live(name: str, body: str) -> str:
    """Return a document around a main part of `render_body`, which updates itself from its own server."""
    return rendered("live.html.j2", name=name, body=Markup(body), live=True)


def _parts(summary: Summary) -> dict[str, object]:
    decision = decision_sentences(summary)
    first, *others = findings(summary)
    found = summary.recommendation
    return {
        "summary": summary,
        "headline": decision[0] if decision else first,
        "beside": (*decision[1:], *cut_sentences(summary)),
        "sentences": (first, *others) if decision else others,
        "key_figures": key_figures(summary),
        "steps": steps_table(summary),
        "standings": standings_table(summary),
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
        "no_evidence": [claim.claim for claim in summary.claims if not claim.findings],
        "provenance": provenance(summary),
        "config": config_yaml(summary),
    }


def _sections(summary: Summary) -> dict[str, Section]:
    """Return the figures that have something to show, by name."""
    sections = {}
    for name, draw in FIGURES.items():
        if name == "frontier":  # one for each cost axis
            drawn: dict[str, go.Figure | None] = {axis: frontier_figure(summary, axis) for axis in summary.frontiers}
        else:
            drawn = {"": draw(summary)}
        figures = {axis: figure for axis, figure in drawn.items() if figure is not None}
        if figures:
            sections[name] = section(_heading(name, summary.objective), _caption(name, summary), name, figures)
    return sections


def _heading(name: str, objective: Objective) -> str:
    if name == "frontier" and not is_accuracy(objective):
        return f"Cost against {objective.label}"
    return _HEADINGS[name]


def _caption(name: str, summary: Summary) -> str:
    label = summary.objective.label
    up, below = ("up", "below") if summary.objective.mode == "max" else ("down", "above")
    caption = _CAPTIONS.get(name, "").format(
        up=up, below=below, objective=label, Objective=label if "_" in label else label[0].upper() + label[1:]
    )
    if name == "stopping":
        return " ".join(stopping_sentences(summary))
    if name == "frontier":
        return caption + (_WITHOUT_SETUP if summary.leaves_out_setup else "")
    if name == "model" and summary.throughput_model is not None:
        return model_sentence(summary.throughput_model)
    searched = sum(trial.phase == "search" and trial.outcome is not None for trial in summary.trials)
    thinned = {
        "curves": _thinned(sum(bool(trial.curve) for trial in summary.trials), MOST_CURVES, "from best to worst"),
        "rates": _thinned(searched, MOST_RATES, "over their learning rates"),
    }
    return caption + thinned.get(name, "")


def _thinned(trials: int, most: int, how: str) -> str:
    return f" Of {trials:,} trials about {most:,} are drawn, evenly spread {how}." if trials > most else ""
