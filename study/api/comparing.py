"""Studies side by side: their fronts on one cost axis, and what differs in their configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from study.analysis.comparison import Comparison
from study.analysis.comparison import compare as compare_summaries
from study.api.results import StudyResults, checked_axis, load
from study.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class StudyComparison:
    """Studies compared with the first one. `print` it for the sentences."""

    record: Comparison

    @cached_property
    def points(self) -> DataFrame:
        """A row for each point of each study; costs are means of a trial in the column `compared_COST`."""
        from pandas import DataFrame

        from study.reporting.text.quality import with_metric_names

        cost, metric = f"compared_{self.record.cost_axis}", self.record.objective.metric
        rows = []
        for study in self.record.studies:
            for point, joint in zip(study.points, study.on_joint_front, strict=True):
                row: dict[str, object] = {"study": study.name, "configuration": point.label, "n_seeds": point.n_seeds}
                found = {"quality": point.quality, "quality_ci": point.quality_ci}
                named = with_metric_names(self.record.objective, found)
                row |= {cost: point.cost, metric: named[metric]}
                row[f"{cost}_ci_low"], row[f"{cost}_ci_high"] = point.cost_ci or (None, None)
                row[f"{metric}_ci_low"], row[f"{metric}_ci_high"] = named[f"{metric}_ci"] or (None, None)
                row |= {"on_own_front": point.on_front, "p_on_own_front": point.p_on_front, "on_joint_front": joint}
                rows.append(row)
        return DataFrame(rows)

    @cached_property
    def hypervolumes(self) -> DataFrame:
        """A row for each study: its hypervolume, and the ratio to that of the first with its 95% interval."""
        from pandas import DataFrame

        rows = []
        for study in self.record.studies:
            low, high = study.ratio_ci or (None, None)
            row = {"study": study.name, "hypervolume": study.hypervolume, "ratio": study.ratio}
            rows.append({**row, "ratio_ci_low": low, "ratio_ci_high": high})
        return DataFrame(rows)

    @cached_property
    def changes(self) -> DataFrame:
        """A row for each key that differs between configs, a column for each study; None where it has no such key."""
        from pandas import DataFrame

        names = [study.name for study in self.record.studies]
        rows = [{"key": change.key, **dict(zip(names, change.values, strict=True))} for change in self.record.changes]
        return DataFrame(rows, columns=["key", *names], dtype=object)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The hypervolumes in words, and what to know before comparing them."""
        from study.reporting.text.comparison import hypervolume_lines

        return hypervolume_lines(self.record)

    def figure(self) -> Figure:
        """Return the fronts of all studies over one another as a Plotly figure."""
        from study.reporting.figures.comparisons import comparison_figure

        return comparison_figure(self.record)

    def to_dict(self) -> dict[str, object]:
        """Return what `study compare --json` prints, as plain values."""
        from study.reporting.text.comparison import comparison_record

        return comparison_record(self.record)

    def write_report(self, folder: str | PathLike[str]) -> list[Path]:
        """Write compare.html and compare.json into a folder and return their paths. Raises DiskError."""
        from study.reporting.exports import write_comparison

        return write_comparison(self.record, Path(folder))

    def __repr__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        from study.reporting.html.notebook import comparison_html

        return comparison_html(self.record)


def compare(*studies: StudyResults | str | PathLike[str], cost: str | None = None) -> StudyComparison:
    """Compare studies, given as folders or loaded, with the first one; on its cost axis unless `cost` names another.

    Raises ConfigError for fewer than two studies, a study without points or without that cost, and protocols that
    cannot be compared; and the errors of `load`.
    """
    if len(studies) < 2:
        raise ConfigError("name two studies or more", "studies")
    loaded = [one if isinstance(one, StudyResults) else load(one) for one in studies]
    axis = None if cost is None else checked_axis(cost, loaded[0].summary)
    return StudyComparison(compare_summaries(_names(loaded), [one.summary for one in loaded], axis))


def _names(studies: Sequence[StudyResults]) -> list[str]:
    """Return the names of the folders, or their paths where two have the same name."""
    names = [study.folder.resolve().name for study in studies]
    if len(set(names)) == len(names):
        return names
    return [str(study.folder) for study in studies]
