"""The files of a report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis.records import TIME_AXES, Cost, Point, Summary, TrialRecord
from study.errors import DiskError, error_context
from study.ledger.atomic_files import write_atomic
from study.ledger.schema import PHASES
from study.reporting.text.markdown import render_markdown

if TYPE_CHECKING:
    from pandas import DataFrame

Files = dict[str, bytes | str]  # contents by name
FORMATS = ("html", "csv", "parquet", "json", "md", "png", "svg", "pdf")
_FORMULA = ("=", "+", "-", "@")
_COSTS = tuple(Cost.__dataclass_fields__)
_TRIAL_FIELDS = tuple(
    name for name in TrialRecord.__dataclass_fields__ if name not in ("cost", "cold_setup", "phases_s", "curve")
)
_POINT_PARTS = (
    "cost",
    "cold_setup",
    "compared",
    "search_cost",
    "search_cold_setup",
    "cost_ci",
    "val_accuracy_ci",
)
_SETUP = tuple(f"{part}_{name}" for part in ("cold_setup", "compared") for name in TIME_AXES)
_REACHED = ("last_epochs", "last_updates", "last_val_accuracy", "last_val_loss")
POINT_COLUMNS = (
    *(name for name in Point.__dataclass_fields__ if name not in _POINT_PARTS),
    "cost_ci_low",
    "cost_ci_high",
    "val_accuracy_ci_low",
    "val_accuracy_ci_high",
    *(name for name in _COSTS if name != "updates"),  # a point's own
    *(f"search_{name}" for name in _COSTS),
    *_SETUP,
    *(f"search_cold_setup_{name}" for name in TIME_AXES),
)
TRIAL_COLUMNS = (*_TRIAL_FIELDS, *_COSTS, *_SETUP, *_REACHED, *(f"{phase}_s" for phase in PHASES))


def write_report(summary: Summary, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write the formats into `folder`, each file whole or not at all; returns their paths.

    Raises ValueError for a format that is not in FORMATS, ConfigError for a picture where there is no Chromium, and
    DiskError.
    """
    wanted = list(formats)
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown format {unknown[0]}; known: {', '.join(FORMATS)}")
    with error_context(DiskError, folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FORMATS:
        if name in wanted:
            for file, content in _WRITERS[name](summary).items():
                write_atomic(folder / file, content)
                written.append(folder / file)
    return written


def summary_record(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for strict JSON: what is not finite becomes None. Costs in hours and USD."""
    record: dict[str, Any] = {
        "protocol_version": summary.protocol_version,
        "study": asdict(summary.study),
        "cost_axis": summary.cost_axis,
        "second_cost_axis": summary.second_cost_axis,
        "include_setup": summary.include_setup,
        "group_setups": {size: asdict(cost) for size, cost in summary.group_setups.items()},
        "points": [asdict(point) for point in summary.points],
        "frontier": [asdict(point) for point in summary.frontier],
        "steps": [asdict(step) for step in summary.steps],
        "span": asdict(summary.span) if summary.span else None,
        "spend": asdict(summary.spend),
        "stopping": asdict(summary.stopping) | {"grid_fraction": summary.stopping.grid_fraction}
        if summary.stopping
        else None,
        "hypervolume": summary.hypervolume,
        "hypervolume_ci": summary.hypervolume_ci,
        "frontiers": {axis: asdict(frontier) for axis, frontier in summary.frontiers.items()},
        "critical_batch": asdict(summary.critical.fit) if summary.critical else None,
        "critical": asdict(summary.critical) if summary.critical else None,
        "other_criticals": [asdict(critical) for critical in summary.other_criticals],
        "critical_missing": summary.critical_missing,
        "noise_scale": summary.noise_scale,
        "throughput_model": asdict(summary.throughput_model) if summary.throughput_model else None,
        "recommendation": asdict(summary.recommendation) if summary.recommendation else None,
        "planned_trials": summary.planned_trials,
        "cut": asdict(summary.cut) if summary.cut else None,
        "mistaken": asdict(summary.mistaken) if summary.mistaken else None,
        "notes": list(summary.notes),
        "claims": [asdict(claim) for claim in summary.claims],
    }
    return {key: strict_json(value) for key, value in record.items()}


def claims_record(summaries: Iterable[Summary]) -> dict[str, Any]:
    """The verdicts of some studies as plain values for strict JSON: what is not finite becomes None."""
    return {
        "studies": [
            {
                "study_id": summary.study.study_id,
                "name": summary.study.name,
                "claims": [strict_json(asdict(claim)) for claim in summary.claims],
            }
            for summary in summaries
        ]
    }


def point_row(point: Point) -> dict[str, Any]:
    """A point as one flat row: costs in hours and USD, accuracies as fractions.

    Costs are those billed; beside them stand what of it is setup of cold groups, and what is compared on the frontier.
    """
    row = asdict(point)
    for interval in ("cost_ci", "val_accuracy_ci"):
        row[f"{interval}_low"], row[f"{interval}_high"] = row.pop(interval) or (None, None)
    search = {f"search_{key}": value for key, value in row.pop("search_cost").items()}
    setup = _columns(cold_setup=point.cold_setup, compared=point.compared, search_cold_setup=point.search_cold_setup)
    del row["cold_setup"], row["compared"], row["search_cold_setup"]
    return row.pop("cost") | search | setup | row


def _columns(**costs: Cost) -> dict[str, Any]:
    """Of each cost, what setup is a part of."""
    return {f"{part}_{name}": getattr(cost, name) for part, cost in costs.items() for name in TIME_AXES}


def trial_row(trial: TrialRecord, include_setup: bool) -> dict[str, Any]:
    """A trial as one flat row, with where its last attempt got to; phases in seconds per device, costs as a point's."""
    last = trial.curve[-1] if trial.curve else None
    row = {name: getattr(trial, name) for name in _TRIAL_FIELDS} | asdict(trial.cost)
    row |= _columns(cold_setup=trial.cold_setup, compared=trial.compared(include_setup))
    row |= {name: getattr(last, name.removeprefix("last_"), None) for name in _REACHED}
    return row | {f"{phase}_s": seconds for phase, seconds in trial.phases_s.items()}


def strict_json(value: Any) -> Any:
    """A value that strict JSON can hold: what is not finite becomes None, NumPy's floats Python's."""
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _json(summary: Summary) -> Files:
    text = json.dumps(summary_record(summary), indent=2, ensure_ascii=False, allow_nan=False)
    return {"summary.json": text + "\n"}


def _frames(summary: Summary) -> dict[str, DataFrame]:
    import pandas as pd  # slow to import, and only needed here

    points = pd.DataFrame([point_row(point) for point in summary.points], columns=list(POINT_COLUMNS))
    ran = [trial_row(trial, summary.include_setup) for trial in summary.trials]
    trials = pd.DataFrame(ran, columns=list(TRIAL_COLUMNS))
    return {"points": points, "trials": trials}


def _csv(summary: Summary) -> Files:
    return {f"{name}.csv": frame.map(_inert).to_csv(index=False) for name, frame in _frames(summary).items()}


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, with a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet(summary: Summary) -> Files:
    return {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in _frames(summary).items()}


def _pictures(kind: str, summary: Summary) -> Files:
    from study.reporting.figures.pictures import pictures

    return {**pictures(summary, kind)}


def _html(summary: Summary) -> Files:
    from study.reporting.html.report_page import render_page  # brings Plotly along, which is slow to import

    return {"report.html": render_page(summary)}


def _markdown(summary: Summary) -> Files:
    return {"report.md": render_markdown(summary)}


_WRITERS: dict[str, Callable[[Summary], Files]] = {
    "html": _html,
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
    "md": _markdown,
    **{kind: partial(_pictures, kind) for kind in ("png", "svg", "pdf")},
}
