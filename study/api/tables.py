"""Tables of results that were made elsewhere: analysed, and read as frames and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis.tables.file_reader import Sheet, sheet_of_frame
from study.analysis.tables.fronts import TableAnalysis, analyze_table
from study.analysis.tables.table import Interpretation, read_table
from study.api.argument_names import argument_names
from study.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

Names = str | Iterable[str]
FIGURE_NAMES = ("fronts", "critical")


@dataclass(frozen=True, repr=False)
class TableResults:
    """A table of runs, analysed: fronts with their uncertainty, and critical batch sizes."""

    record: TableAnalysis

    @property
    def understood(self) -> Interpretation:
        """How the table was read: columns by meaning, rows left out and why, and notes."""
        return self.record.understood

    @cached_property
    def points(self) -> DataFrame:
        """A row for each configuration, as means over its seeds; cost and quality under the table's own names."""
        from pandas import DataFrame

        whole = self.record.whole.points
        grouped = [point for part in self.record.groups.values() for point in part.points] or whole
        cost, quality = self._objectives()
        rows = []
        for point, in_group in zip(whole, grouped, strict=True):
            row: dict[str, Any] = {"group": point.group, **point.settings}
            row |= {"batch_size": point.batch_size, "lr": point.lr}
            row |= {"n_seeds": point.n_seeds, "n_censored": point.n_censored}
            row |= {cost: point.cost, quality: point.quality}
            row[f"{cost}_ci_low"], row[f"{cost}_ci_high"] = point.cost_ci or (None, None)
            row[f"{quality}_ci_low"], row[f"{quality}_ci_high"] = point.quality_ci or (None, None)
            row |= {"on_front": point.on_front, "p_on_front": point.p_on_front}
            row |= {"on_group_front": in_group.on_front, "p_on_group_front": in_group.p_on_front}
            rows.append(row)
        return DataFrame(rows)

    def frontier(self, group: str | None = None) -> DataFrame:
        """Return the points that no other dominates, best cost first: of all groups together, or of one `group`.

        Raises ConfigError for an unknown group.
        """
        points = self.points
        if points.empty:
            return points
        cost = self._objectives()[0]
        if group is None:
            chosen = points[points["on_front"]]
        elif group in self.record.groups:
            chosen = points[(points["group"] == group) & points["on_group_front"]]
        else:
            known = list(self.record.groups)
            raise ConfigError(f"{group}: must be one of {', '.join(known)}{did_you_mean(group, known)}", "group")
        cheapest_last = self.record.cost is not None and self.record.cost.maximize
        return chosen.sort_values(cost, ascending=not cheapest_last).reset_index(drop=True)

    def figure(self, name: str = "fronts") -> Figure:
        """Return `fronts`, cost against quality, or `critical`, steps to a target by batch size, as a Plotly figure.

        Raises ConfigError for another name, and DataError where the table has nothing to show in the figure.
        """
        from study.reporting.figures.comparisons import analysis_figure
        from study.reporting.figures.scaling_laws import analysis_steps_figure

        if name not in FIGURE_NAMES:
            raise ConfigError(f"{name}: must be one of {', '.join(FIGURE_NAMES)}", "name")
        drawn = analysis_figure(self.record) if name == "fronts" else analysis_steps_figure(self.record)
        if drawn is None:
            raise DataError(f"the table has nothing to show in the figure {name!r}", self.record.source)
        return drawn

    def to_dict(self) -> dict[str, object]:
        """Return what `study analyze --json` prints, as plain values."""
        from study.reporting.text.table_analysis import analysis_record

        return analysis_record(self.record)

    def write_report(self, folder: str | PathLike[str]) -> list[Path]:
        """Write report.html and summary.json into a folder and return their paths. Raises DiskError."""
        from study.reporting.exports import write_analysis

        return write_analysis(self.record, Path(folder))

    def _objectives(self) -> tuple[str, str]:
        cost, quality = self.record.cost, self.record.quality
        return (cost.column if cost else "cost"), (quality.column if quality else "quality")

    def __repr__(self) -> str:
        whole = self.record.whole
        return f"<TableResults {self.record.source}: {len(whole.points)} points, {len(whole.frontier)} on the front>"

    def _repr_html_(self) -> str:
        from study.reporting.html.notebook import analysis_html

        return analysis_html(self.record)


def analyze(
    table: DataFrame | str | PathLike[str],
    *,
    config: Names = (),
    group_by: Names = (),
    as_seeds: Names = (),
    minimize: Names = (),
    maximize: Names = (),
    batch_column: str | None = None,
    cost_column: str | None = None,
    quality_column: str | None = None,
    seed_column: str | None = None,
    lr_column: str | None = None,
    state_column: str | None = None,
    run_column: str | None = None,
    devices_column: str | None = None,
    strict: bool = False,
) -> TableResults:
    """Analyse runs made elsewhere, a row a run: a pandas frame, or a csv, tsv, parquet, json or jsonl file.

    The arguments are the options of `study analyze` (docs/tables.md): `config` names the columns that make a
    configuration beside the batch size, `group_by` those whose values have a front each, `as_seeds` settings that may
    vary between seeds ("all" for all). `strict` makes any note on how the table was read an error. Raises DataError.
    """
    with argument_names():
        return read_and_analyze(
            Path(table) if isinstance(table, str | PathLike) else sheet_of_frame(table),
            config=_names(config),
            group_by=_names(group_by),
            as_seeds=_names(as_seeds),
            minimize=_names(minimize),
            maximize=_names(maximize),
            named={
                "batch": batch_column,
                "cost": cost_column,
                "quality": quality_column,
                "seed": seed_column,
                "lr": lr_column,
                "state": state_column,
                "run": run_column,
                "devices": devices_column,
            },
            strict=strict,
        )


def read_and_analyze(
    table: Path | Sheet,
    *,
    config: Sequence[str],
    group_by: Sequence[str],
    as_seeds: Sequence[str],
    minimize: Sequence[str],
    maximize: Sequence[str],
    named: Mapping[str, str | None],
    strict: bool,
) -> TableResults:
    """Return what `analyze` returns; errors name options of the command line. `named` are columns by role."""
    given = {role: column for role, column in named.items() if column is not None}
    read = read_table(table, config, group_by, minimize, maximize, as_seeds, given)
    if strict and read.understood.notes:
        more = f" (and {len(read.understood.notes) - 1} more)" if len(read.understood.notes) > 1 else ""
        raise DataError(f"{read.source}: --strict: {read.understood.notes[0]}{more}")
    return TableResults(analyze_table(read, bool(group_by)))


def _names(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
