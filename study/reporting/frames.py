"""Points, trials and learning curves of a study as pandas frames, each column with one meaning and one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from study.analysis.records import TIME_AXES, Cost, Point, Summary, TrialRecord
from study.config.objective import Objective
from study.ledger.schema import PHASES
from study.measurement import CurvePoint
from study.reporting.text.quality import metric_names, with_metric_names

if TYPE_CHECKING:
    from pandas import DataFrame

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
    "quality_ci",
    "further",
)
_SETUP = tuple(f"{part}_{name}" for part in ("cold_setup", "compared") for name in TIME_AXES)
_REACHED = ("epochs", "updates", "val_accuracy", "val_loss")
_TRIAL_OF_A_CURVE = ("trial_id", "phase", "variant", "batch_size", "world_size", "seed_index")
_PROGRESS = ("updates", "samples", "epochs", "lr")
_ELSEWHERE = (*_PROGRESS, "test_accuracy", "metrics", "probes")
_MEASURED = (*_PROGRESS, *(name for name in CurvePoint.__dataclass_fields__ if name not in _ELSEWHERE))
CURVE_COLUMNS = (*_TRIAL_OF_A_CURVE, *_MEASURED)
TEXT_COLUMNS = frozenset({"trial_id", "phase", "variant", "outcome", "error"})  # the others hold numbers


def point_columns(objective: Objective) -> tuple[str, ...]:
    """Return the columns of `points_frame`."""
    names = metric_names(objective)
    return (
        *(names.get(name, name) for name in Point.__dataclass_fields__ if name not in _POINT_PARTS),
        "cost_ci_low",
        "cost_ci_high",
        f"{objective.metric}_ci_low",
        f"{objective.metric}_ci_high",
        *objective.beside,
        *(name for name in _COSTS if name != "updates"),  # a point's own
        *(f"search_{name}" for name in _COSTS),
        *_SETUP,
        *(f"search_cold_setup_{name}" for name in TIME_AXES),
    )


def trial_columns(objective: Objective) -> tuple[str, ...]:
    """Return the columns of `trials_frame`."""
    names = metric_names(objective)
    fields = (names.get(name, name) for name in _TRIAL_FIELDS)
    reached = (f"last_{name}" for name in _reached(objective))
    return (*fields, *_COSTS, *_SETUP, *reached, *(f"{phase}_s" for phase in PHASES))


def _reached(objective: Objective) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_REACHED, objective.metric, *objective.also)))


def points_frame(summary: Summary) -> DataFrame:
    """Return a row for each point, with `point_columns`. Missing numbers are NaN."""
    rows = [point_row(summary.objective, point) for point in summary.points]
    return number_frame(rows, point_columns(summary.objective), TEXT_COLUMNS)


def trials_frame(summary: Summary) -> DataFrame:
    """Return a row for each trial that was started, with `trial_columns`. Missing numbers are NaN."""
    rows = [trial_row(summary.objective, trial, summary.include_setup) for trial in summary.trials]
    return number_frame(rows, trial_columns(summary.objective), TEXT_COLUMNS)


def curves_frame(summary: Summary) -> DataFrame:
    """Return a row for each report of each trial, with CURVE_COLUMNS, a column for each further metric, and a column
    `probe_NAME` for each probe.

    A trial's rows are those of its last attempt and of the attempts that it went on from.
    """
    rows = [
        {name: getattr(trial, name) for name in _TRIAL_OF_A_CURVE}
        | {name: getattr(at, name) for name in _MEASURED}
        | dict(at.metrics)
        | {f"probe_{name}": value for name, value in at.probes.as_stored().items()}
        for trial in summary.trials
        for at in trial.curve
    ]
    further = sorted(
        {name for row in rows for name in row} - {*CURVE_COLUMNS}, key=lambda n: (n.startswith("probe_"), n)
    )
    return number_frame(rows, (*CURVE_COLUMNS, *further), TEXT_COLUMNS)


def number_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], text: frozenset[str]) -> DataFrame:
    """Return the rows as a frame; columns that are not in `text` hold numbers or booleans, NaN where one is missing."""
    import pandas as pd  # slow to import

    frame = pd.DataFrame(rows, columns=list(columns))
    for name in columns:
        if name not in text and frame[name].dtype == object:
            frame[name] = pd.to_numeric(frame[name])
    return frame


def point_row(objective: Objective, point: Point) -> dict[str, Any]:
    """Return a point as one flat row: costs in hours and USD, the objective as logged, under its metric's name.

    Costs are those billed; beside them, the part of each that is setup of cold groups, and the cost that the frontier
    compares.
    """
    row = with_metric_names(objective, asdict(point))
    row |= row.pop("further")
    for interval in ("cost_ci", f"{objective.metric}_ci"):
        row[f"{interval}_low"], row[f"{interval}_high"] = row.pop(interval) or (None, None)
    search = {f"search_{key}": value for key, value in row.pop("search_cost").items()}
    setup = _columns(cold_setup=point.cold_setup, compared=point.compared, search_cold_setup=point.search_cold_setup)
    del row["cold_setup"], row["compared"], row["search_cold_setup"]
    return row.pop("cost") | search | setup | row


def trial_row(objective: Objective, trial: TrialRecord, include_setup: bool) -> dict[str, Any]:
    """Return a trial as one flat row, with the last report of its last attempt; phases in seconds per device."""
    last = trial.curve[-1] if trial.curve else None
    row = with_metric_names(objective, {name: getattr(trial, name) for name in _TRIAL_FIELDS}) | asdict(trial.cost)
    row |= _columns(cold_setup=trial.cold_setup, compared=trial.compared(include_setup))
    for name in _reached(objective):
        row[f"last_{name}"] = None if last is None else _at(last, name)
    return row | {f"{phase}_s": seconds for phase, seconds in trial.phases_s.items()}


def _at(point: CurvePoint, name: str) -> float | None:
    return getattr(point, name) if name in ("epochs", "updates") else point.value(name)


def _columns(**costs: Cost) -> dict[str, Any]:
    """Return the time axes of each cost, named after both."""
    return {f"{part}_{name}": getattr(cost, name) for part, cost in costs.items() for name in TIME_AXES}
