"""The report of a study as one HTML file."""

from __future__ import annotations

from study.analysis.records import Summary
from study.report.figures import cost_figure, curves_figure, frontier_figure, rates_figure, throughput_figure
from study.report.html import Section, rendered, section
from study.report.tables import config_yaml, points_table, provenance, spend_table
from study.report.verdict import verdict


def render_page(summary: Summary) -> str:
    """The report as one self-contained HTML document."""
    first, *others = verdict(summary)
    return rendered(
        "page.html.j2",
        summary=summary,
        headline=first,
        sentences=others,
        frontier=_frontier(summary),
        points=points_table(summary),
        spend=spend_table(summary),
        sections=_sections(summary),
        provenance=provenance(summary),
        config=config_yaml(summary),
    )


def _frontier(summary: Summary) -> Section | None:
    if not summary.points:
        return None
    return section(
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
            section(
                "Throughput",
                "Training only: validation and waiting are not in it.",
                "throughput",
                throughput_figure(summary),
            )
        )
    if any(trial.curve for trial in summary.trials):
        sections.append(
            section(
                "Learning curves",
                "Validation accuracy after each report; confirm trials strong, search trials faint.",
                "curves",
                curves_figure(summary),
            )
        )
    rates = rates_figure(summary)
    if rates is not None:
        sections.append(
            section(
                "Search: which learning rate",
                "Where each search trial ended. Hollow ones were stopped early or diverged.",
                "rates",
                rates,
            )
        )
    if any(trial.cost.billed_device_h for trial in summary.trials):
        sections.append(
            section(
                "Where the device time went",
                "From lease to release or hand-over, all attempts. The first trial of a group pays for its setup.",
                "cost",
                cost_figure(summary),
            )
        )
    return sections
