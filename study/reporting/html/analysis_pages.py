"""The pages of an analysed table, of studies compared, and of a replay."""

from __future__ import annotations

from pathlib import Path

from study.analysis.comparison import Comparison
from study.analysis.replay.replay import Replay
from study.analysis.tables.fronts import TableAnalysis
from study.reporting.figures.comparisons import analysis_figure, comparison_figure, replay_figure
from study.reporting.figures.scaling_laws import analysis_steps_figure
from study.reporting.html.document import Section, rendered, section
from study.reporting.text.comparison import changes_table, compared_points_table, hypervolume_lines
from study.reporting.text.quality import difference_unit
from study.reporting.text.replay import cost_line, replay_legend, replay_lines, replay_table
from study.reporting.text.table_analysis import findings_lines, findings_table, understood_lines

_MOST_NAMED = 6  # configurations of the front that a headline names


def render_analysis(analysis: TableAnalysis) -> str:
    """Return an analysed table as one self-contained HTML document."""
    parts = analysis.groups or {"": analysis.whole}
    return rendered(
        "fronts.html.j2",
        title=f"{Path(analysis.source).name}: batch size analysis",
        headline=_headline(analysis),
        lines=[
            *understood_lines(analysis.understood),
            *(f"{name}: {line}" if name else line for name, part in parts.items() for line in findings_lines(part)),
        ],
        sections=[*_front_sections(analysis), *_critical_sections(analysis)],
        tables=[(name or "Configurations", findings_table(analysis, part)) for name, part in parts.items()],
    )


def _headline(analysis: TableAnalysis) -> str:
    front = analysis.whole.frontier
    if not front:
        return "Steps to a target, by batch size."
    named = ", ".join(f"{point.group}: {point.label}" if point.group else point.label for point in front[:_MOST_NAMED])
    more = f" and {len(front) - _MOST_NAMED} more" if len(front) > _MOST_NAMED else ""
    return f"{len(front)} of {len(analysis.whole.points)} configurations are on the front: {named}{more}."


def _front_sections(analysis: TableAnalysis) -> list[Section]:
    figure = analysis_figure(analysis)
    if figure is None or analysis.cost is None or analysis.quality is None:
        return []
    caption = (
        f"{analysis.cost.column}: {_better(analysis.cost.maximize)} is better; {analysis.quality.column}: "
        f"{_better(analysis.quality.maximize)} is better. "
        "Means over seeds with 95% intervals; dominated configurations are faint."
    )
    return [section("Cost against quality", caption, "fronts", {"": figure})]


def _better(maximize: bool) -> str:
    return "higher" if maximize else "lower"


def _critical_sections(analysis: TableAnalysis) -> list[Section]:
    figure = analysis_steps_figure(analysis)
    if figure is None:
        return []
    caption = "Steps that each run took to the target, and the law fitted to them."
    return [section("Critical batch size", caption, "critical", {"": figure})]


def render_comparison(comparison: Comparison) -> str:
    """Return a comparison of studies as one self-contained HTML document."""
    return rendered(
        "fronts.html.j2",
        title="Studies compared",
        headline=" against ".join(study.name for study in comparison.studies),
        lines=hypervolume_lines(comparison),
        sections=[
            section(
                "Fronts over one another",
                f"Left and {'up' if comparison.objective.mode == 'max' else 'down'} is better. "
                "Means over confirm seeds with 95% intervals; dominated points are faint.",
                "fronts",
                {"": comparison_figure(comparison)},
            )
        ],
        tables=[("Points", compared_points_table(comparison)), ("What changed", changes_table(comparison))],
    )


def render_replay(replay: Replay) -> str:
    """Return a replay of schedulers as one self-contained HTML document."""
    return rendered(
        "replay.html.j2",
        name=replay.source,
        about=[*replay_lines(replay), cost_line(replay)],
        figure=section(
            "What a scheduler costs, and what its choices are worth",
            "Left and down is better. Each mark is a scheduler's mean over all draws; its bars reach one standard "
            "deviation to either side, as a single study may deviate. Hover for the mean's 95% interval.",
            "replay",
            {"": replay_figure(replay.results, difference_unit(replay.objective))},
        ),
        table=replay_table(replay),
        legend=replay_legend(replay.objective),
    )
