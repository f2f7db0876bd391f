"""Checked Curve records from a table of learning curves, csv or parquet."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.analysis.replay.curves import Curve, check_grid
from study.config.objective import ACCURACY, Objective
from study.errors import DataError, did_you_mean
from study.planning.trials import Cell
from study.safe_text import printable

SUFFIXES = (".csv", ".parquet")


class Column(NamedTuple):
    """The bounds of the values in a column."""

    low: float
    high: float
    whole: bool = False
    may_be_empty: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"must be {kind} from {self.low:g} to {self.high:g}"


COLUMNS = {
    "batch_size": Column(1, 1e9, whole=True),
    "world_size": Column(1, 1e9, whole=True),
    "lr": Column(1e-30, 1e30),
    "seed": Column(0, 1e9, whole=True),
    "epoch": Column(1e-9, 1e9),
    "cost_s": Column(1e-9, 1e15),
    "epoch_s": Column(1e-9, 1e15),
}
REQUIRED = ("batch_size", "lr", "seed", "epoch")
TRIAL = ["batch_size", "world_size", "lr", "seed"]


def read_curves(path: Path, objective: Objective = ACCURACY) -> tuple[Curve, ...]:
    """Read the curves of a table with a row for each report of each trial, in the order in which trials first appear.

    Columns: batch_size, lr, seed, epoch, the objective's metric (val_accuracy); cost_s (device-seconds, cumulative) or
    epoch_s (seconds since the report before, on each device); optional: world_size (default 1) and the metric on the
    test set (test_accuracy, of a trial's last row). A trial whose last metric is empty diverged there. Others are
    ignored.
    Raises DataError: `file:line: column: what is allowed`.
    """
    table = _checked(_read(path), path, objective)
    trials = [_in_order(rows, path, objective) for _, rows in table.groupby(TRIAL, sort=False)]
    ends: dict[Cell, tuple[float, ...]] = {}
    for rows in trials:
        epochs = tuple(rows["epoch"])
        ends[_cell(rows)] = max(ends.get(_cell(rows), ()), epochs, key=len)
    curves = tuple(_curve(rows, ends[_cell(rows)], path, objective) for rows in trials)
    check_grid(curves, str(path))
    return curves


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: must end in .csv or .parquet{did_you_mean(suffix, SUFFIXES)}")
    try:
        # As text, so that an error can quote a value exactly as written.
        table = pd.read_csv(path, dtype=str, keep_default_na=False) if suffix == ".csv" else pd.read_parquet(path)
    except Exception as error:  # whatever a parser makes of a file
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {_plain(error)}") from error
    table.columns = pd.Index([_plain(name) for name in table.columns])
    return table.reset_index(drop=True)


def _checked(table: pd.DataFrame, path: Path, objective: Objective) -> pd.DataFrame:
    """Return the known columns as numbers within their bounds."""
    ends = (-1e30, 1e30) if objective.floor is None else (0, 1)
    metric = Column(ends[0], ends[1], may_be_empty=True)
    columns = COLUMNS | {objective.metric: metric, objective.test_metric: metric}
    found = list(table.columns)
    listed = ", ".join(found[:12]) + (", …" if len(found) > 12 else "")
    for name in (*REQUIRED, objective.metric):
        if name not in found:
            raise DataError(f"{path}: {name}: column is missing; found {listed}{did_you_mean(name, found)}")
    if ("cost_s" in found) == ("epoch_s" in found):
        raise DataError(f"{path}: cost_s, epoch_s: give exactly one of these columns; found {listed}")
    if not len(table):
        raise DataError(f"{path}: has no rows")
    numbers = pd.DataFrame({name: _numbers(table, name, rule, path) for name, rule in columns.items() if name in found})
    if "world_size" not in found:
        numbers["world_size"] = 1.0
    twice = numbers.duplicated([*TRIAL, "epoch"]).to_numpy()
    if twice.any():
        row = numbers.iloc[int(twice.argmax())]
        raise DataError(f"{_place(path, row.name)}: epoch: {row['epoch']:g} of {_trial(row)} appears twice")
    return numbers


def _numbers(table: pd.DataFrame, name: str, rule: Column, path: Path) -> NDArray[np.float64]:
    column = table[name]
    if not isinstance(column, pd.Series):
        raise DataError(f"{path}: {name}: column appears twice")
    text = column.astype(str).fillna("").str.strip()
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
    good = (values >= rule.low) & (values <= rule.high)
    if rule.whole:
        good &= values == np.floor(values)
    if rule.may_be_empty:
        good |= text.str.lower().isin(["", "nan", "none", "<na>"]).to_numpy()
    if not good.all():
        row = int((~good).argmax())
        raise DataError(f"{_place(path, row)}: {name}: {rule}; got {_plain(text[row]) or 'nothing'}")
    return values


def _in_order(rows: pd.DataFrame, path: Path, objective: Objective) -> pd.DataFrame:
    """Return a trial's rows by epoch, checked against each other, with cost_s."""
    rows = rows.sort_values("epoch")
    if "epoch_s" in rows:
        rows = rows.assign(cost_s=rows["epoch_s"].cumsum() * rows["world_size"])
    empty = rows[objective.metric].isna().to_numpy()[:-1]
    if empty.any():
        row = rows.iloc[int(empty.argmax())]
        raise DataError(
            f"{_place(path, row.name)}: {objective.metric}: is empty, but {_trial(row)} goes on; "
            "only a trial that diverged ends with an empty one"
        )
    fallen = rows["cost_s"].diff().to_numpy() <= 0
    if fallen.any():
        row = rows.iloc[int(fallen.argmax())]
        raise DataError(f"{_place(path, row.name)}: cost_s: is cumulative and must grow over {_trial(row)}")
    return rows


def _curve(rows: pd.DataFrame, end: tuple[float, ...], path: Path, objective: Objective) -> Curve:
    cell, last = _cell(rows), rows.iloc[-1]
    epochs = tuple(float(epoch) for epoch in rows["epoch"])
    completed = not np.isnan(last[objective.metric])
    missing = set(end if completed else end[: len(epochs)]) - set(epochs)
    if missing:
        raise DataError(
            f"{path}: epoch: {_trial(last)} lacks {min(missing):g}, which others of its batch size have; "
            f"a trial that diverged ends with an empty {objective.metric}"
        )
    test = float(last.get(objective.test_metric, np.nan))
    return Curve(
        trial_id=f"b{cell.batch_size}-w{cell.world_size}-lr{float(last['lr'])}-s{int(last['seed'])}",
        cell=cell,
        lr=float(last["lr"]),
        seed=int(last["seed"]),
        epochs=epochs,
        shares=tuple(epoch / end[-1] for epoch in epochs),
        cost_s=tuple(float(cost) for cost in rows["cost_s"]),
        quality=tuple(objective.quality(float(value)) for value in rows[objective.metric]),
        test_quality=None if np.isnan(test) else objective.quality(test),
        completed=completed,
    )


def _cell(rows: pd.DataFrame) -> Cell:
    return Cell(int(rows["batch_size"].iloc[0]), int(rows["world_size"].iloc[0]))


def _trial(row: pd.Series) -> str:
    return f"batch size {row['batch_size']:g}, rate {row['lr']:g}, seed {row['seed']:g}"


def _place(path: Path, row: object) -> str:
    """Return the place of a row, counted from 0, for a message; a csv has its header on line 1."""
    number = int(str(row))
    return f"{path}:{number + 2}" if path.suffix.lower() == ".csv" else f"{path}: row {number}"


def _plain(value: object) -> str:
    """Return a value of a file as one short line."""
    return printable(str(value)[:80])
