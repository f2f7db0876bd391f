"""What notebooks show of results: short pieces of HTML without scripts, styles of a page, or links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from study.analysis.records import Summary, cost_of
from study.reporting.text.formatting import NOTHING, column, cost_unit, number, percent
from study.reporting.text.quality import column_head, point_text
from study.reporting.text.verdict import verdict
from study.safe_text import printable

if TYPE_CHECKING:
    from study.analysis.comparison import Comparison
    from study.analysis.tables.fronts import TableAnalysis

_MOST_ROWS = 20  # of a table; of more, only the number
_MOST_NOTES = 5


def results_html(summary: Summary) -> str:
    """Return a study's name, verdict, frontier and notes."""
    first, *others = verdict(summary)
    heads, rows = _frontier(summary)
    notes = [f"Note: {note}" for note in summary.notes[:_MOST_NOTES]]
    if len(summary.notes) > _MOST_NOTES:
        notes.append(f"And {len(summary.notes) - _MOST_NOTES} more notes.")
    return Markup("<div>{}{}{}{}{}</div>").format(
        Markup("<h4>{}</h4>").format(printable(summary.study.name)),
        Markup("<p><b>{}</b></p>").format(printable(first)),
        _items(others),
        _table(heads, rows) if rows else "",
        _items(notes),
    )


def lines_html(lines: Iterable[str]) -> str:
    """Return sentences, the first of them set off."""
    first, *others = lines
    return Markup("<div><p><b>{}</b></p>{}</div>").format(printable(first), _items(others))


def analysis_html(analysis: TableAnalysis) -> str:
    """Return how a table was read, its front, and what was found."""
    from study.reporting.text.table_analysis import findings_lines, findings_table, understood_lines

    parts = analysis.groups or {"": analysis.whole}
    pieces: list[Markup] = []
    for name, findings in parts.items():
        table = findings_table(analysis, findings)
        front = [row for row, marked in zip(table.rows, table.marked, strict=True) if marked]
        if name:
            pieces.append(Markup("<h5>{}</h5>").format(printable(name)))
        pieces += [_table(table.heads, front) if front else Markup(), _items(findings_lines(findings))]
    return Markup("<div>{}{}</div>").format(_items(understood_lines(analysis.understood)), Markup().join(pieces))


def comparison_html(comparison: Comparison) -> str:
    """Return the hypervolumes of studies in words, their points, and what differs in their configs."""
    from study.reporting.text.comparison import changes_table, compared_points_table, hypervolume_lines

    tables = [table for table in (compared_points_table(comparison), changes_table(comparison)) if table.rows]
    shown = Markup().join(_table(table.heads, table.rows) for table in tables)
    return Markup("<div>{}{}</div>").format(_items(hypervolume_lines(comparison)), shown)


def _frontier(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and rows of a table of the frontier, cheapest first."""
    points = summary.frontier
    unit = cost_unit([cost_of(point, summary.cost_axis) for point in points], summary.cost_axis)
    costs = column(cost_of(point, summary.cost_axis) * unit.scale for point in points)
    heads = (
        "configuration",
        "learning rate",
        "seeds",
        column_head(summary.objective),
        f"{unit.label} a trial",
        "P(front)",
    )
    rows: list[tuple[str, ...]] = [
        (
            point.label,
            number(point.lr),
            str(point.n_seeds),
            point_text(summary.objective, point),
            cost,
            NOTHING if point.p_on_front is None else percent(point.p_on_front, 0),
        )
        for point, cost in zip(points, costs, strict=True)
    ]
    return heads, rows


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = Markup().join(Markup("<th>{}</th>").format(_cell(cell)) for cell in heads)
    body = Markup().join(
        Markup("<tr>{}</tr>").format(Markup().join(Markup("<td>{}</td>").format(_cell(cell)) for cell in row))
        for row in rows[:_MOST_ROWS]
    )
    more = f"and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(head, body, more)


def _cell(text: str) -> Markup:
    return escape(printable(text))


def _items(lines: Iterable[str]) -> Markup:
    items = [Markup("<li>{}</li>").format(printable(line)) for line in lines]
    return Markup("<ul>{}</ul>").format(Markup().join(items)) if items else Markup()
