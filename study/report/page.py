"""One HTML file with everything in it: it opens offline and asks nobody for anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.analysis.records import Summary
from study.report.figures import cost_figure, curves_figure, frontier_figure, rates_figure, throughput_figure
from study.report.tables import config_yaml, points_table, provenance, spend_table
from study.report.verdict import verdict

_TEMPLATES = Path(__file__).parent / "templates"
_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
}


@dataclass(frozen=True)
class Section:
    """A figure under its heading."""

    heading: str
    caption: str
    figure: Markup


def render_page(summary: Summary) -> str:
    """The report as one self-contained HTML document."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first, *others = verdict(summary)
    return environment.get_template("page.html.j2").render(
        summary=summary,
        headline=first,
        sentences=others,
        frontier=_frontier(summary),
        points=points_table(summary),
        spend=spend_table(summary),
        sections=_sections(summary),
        provenance=provenance(summary),
        config=config_yaml(summary),
        plotly_js=Markup(get_plotlyjs()),
    )


def _frontier(summary: Summary) -> Section | None:
    if not summary.points:
        return None
    return _section(
        "Cost against accuracy",
        "Left and up is better. Each point is the mean of its confirm seeds with a 95% interval; whatever lies "
        "right of and below the line is dominated. Hollow: trials that were stopped or failed, at their last "
        "validation.",
        "frontier",
        frontier_figure(summary),
    )


def _sections(summary: Summary) -> list[Section]:
    sections = []
    if summary.points:
        sections.append(
            _section(
                "Throughput",
                "Training only: validation and waiting are not in it.",
                "throughput",
                throughput_figure(summary),
            )
        )
    if any(trial.curve for trial in summary.trials):
        sections.append(
            _section(
                "Learning curves",
                "Validation accuracy after each report; confirm trials strong, search trials faint.",
                "curves",
                curves_figure(summary),
            )
        )
    rates = rates_figure(summary)
    if rates is not None:
        sections.append(
            _section(
                "Search: which learning rate",
                "Where each search trial ended. Hollow ones were stopped early or diverged.",
                "rates",
                rates,
            )
        )
    if any(trial.cost.billed_device_h for trial in summary.trials):
        sections.append(
            _section(
                "Where the device time went",
                "From lease to release or hand-over, all attempts. The first trial of a group pays for its setup.",
                "cost",
                cost_figure(summary),
            )
        )
    return sections


def _section(heading: str, caption: str, name: str, figure: go.Figure) -> Section:
    # The page's heading breaks lines on a phone; Plotly's title does not.
    figure.update_layout(title=None, margin_t=16)
    # Plotly writes <, > and / inside its JSON as \u003c, \u003e and \u002f: nothing can close the script early.
    body = plotly.io.to_html(figure, config=_CONFIG, full_html=False, include_plotlyjs=False, div_id=f"figure-{name}")
    return Section(heading, caption, Markup(body))
