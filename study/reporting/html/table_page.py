"""The page of an analysed table, and its summary.json."""

from __future__ import annotations

from pathlib import Path

from study.analysis.records import Critical
from study.analysis.tables.fronts import Findings, TableAnalysis
from study.ledger.atomic_files import write_atomic
from study.reporting.figures.front_overlay import Axes, fronts_figure
from study.reporting.figures.scaling_laws import steps_figure
from study.reporting.html.document import Section, rendered, section
from study.reporting.text.table_analysis import analysis_json, findings_lines, findings_table, understood_lines


def write_analysis(analysis: TableAnalysis, folder: Path) -> list[Path]:
    """summary.json and report.html; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "summary.json", folder / "report.html"
    write_atomic(data, analysis_json(analysis, indent=2) + "\n")
    write_atomic(page, render_analysis(analysis))
    return [data, page]


def render_analysis(analysis: TableAnalysis) -> str:
    """A self-contained HTML document."""
    parts = analysis.groups or {"": analysis.whole}
    return rendered(
        "fronts.html.j2",
        title=f"{Path(analysis.source).name}: batch size analysis",
        headline=_headline(analysis),
        lines=[
            *understood_lines(analysis.understood),
            *(f"{name}: {line}" if name else line for name, part in parts.items() for line in findings_lines(part)),
        ],
        sections=[*_fronts(analysis, parts), *_criticals(parts)],
        tables=[(name or "Configurations", findings_table(analysis, part)) for name, part in parts.items()],
    )


def _headline(analysis: TableAnalysis) -> str:
    front = analysis.whole.frontier
    if not front:
        return "Steps to a target, by batch size."
    named = ", ".join(f"{place.group}: {place.label}" if place.group else place.label for place in front[:6])
    more = f" and {len(front) - 6} more" if len(front) > 6 else ""
    return f"{len(front)} of {len(analysis.whole.points)} configurations are on the front: {named}{more}."


def _fronts(analysis: TableAnalysis, parts: dict[str, Findings]) -> list[Section]:
    if analysis.cost is None or analysis.quality is None or not analysis.whole.points:
        return []
    axes = Axes(analysis.cost.column, analysis.quality.column, more_is_cheaper=analysis.cost.maximize)
    figure = fronts_figure("Fronts", {name: part.points for name, part in parts.items()}, axes)
    caption = (
        f"{axes.cost} is to be {_wanted(analysis.cost.maximize)}, {axes.quality} {_wanted(analysis.quality.maximize)}. "
        "Means over seeds with 95% intervals; dominated configurations are faint."
    )
    return [section("Cost against quality", caption, "fronts", {"": figure})]


def _wanted(maximize: bool) -> str:
    return "high" if maximize else "low"


def _criticals(parts: dict[str, Findings]) -> list[Section]:
    fitted = [
        Critical(name, None, "as in the table", part.runs, part.critical_batch)
        for name, part in parts.items()
        if part.critical_batch is not None
    ]
    if not fitted:
        return []
    caption = "Steps that each run took to the target, and the law fitted to them."
    return [section("Critical batch size", caption, "critical", {"": steps_figure(fitted, None)})]
