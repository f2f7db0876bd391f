"""Reads a table of results into configurations over seeds, and reports how it was understood."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.statistics.samples import Sample
from study.analysis.tables.file_reader import Sheet, read_sheet
from study.analysis.tables.objectives import Objective
from study.analysis.tables.rows import ReadOptions, ReadRows, RunRow, read_rows
from study.errors import DataError


@dataclass(frozen=True)
class Interpretation:
    """How a table was read, for the user to check."""

    columns: dict[str, str]  # by meaning: batch size, cost, quality, ...
    n_rows: int
    n_final: int
    n_censored: int
    n_left_out: int
    why: dict[str, int]  # rows that are not final, by reason
    as_seeds: tuple[str, ...]  # settings whose different values count as seeds, by --as-seeds
    notes: tuple[str, ...]  # what was assumed, left out, or is doubtful


@dataclass(frozen=True)
class Configuration:
    """The rows that differ in their seed alone."""

    label: str
    settings: dict[str, str]  # by column
    batch_size: int
    lr: float | None  # the best of the rates tried, where the table has several
    sample: Sample | None  # of the rows that were not censored; None if there are none, or without two objectives
    n_censored: int


@dataclass(frozen=True)
class Group:
    """Configurations that share a front and a critical batch size."""

    name: str
    configurations: tuple[Configuration, ...]  # by batch size
    runs: tuple[StepsToTarget, ...]  # empty without steps to a target


@dataclass(frozen=True)
class ResultTable:
    """A table that was read. It has cost and quality, or runs to a target, or all of them."""

    source: str
    cost: Objective | None
    quality: Objective | None
    groups: tuple[Group, ...]
    understood: Interpretation


def read_table(
    source: Path | Sheet,
    config: Sequence[str] = (),
    group_by: str | Sequence[str] | None = None,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    as_seeds: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> ResultTable:
    """Read and check a table, from a file or from a sheet of its cells.

    `config` names the columns that make a configuration beside the batch size; world_size where it varies, unless said
    otherwise. `group_by` names those that make a group. `minimize` and `maximize` name at most two objectives; the
    others are found: validation figures before test figures, never training ones. `as_seeds` names settings that vary
    within a configuration and may, or is `all`. `named` says which column has a role (batch, cost, quality, seed, lr,
    state, run, devices), `none` for no column.

    Rows that are not finished, that diverged, or whose `reached` is false are censored; rows without a quality are left
    out. In tables of curves the last row of each run counts. Where the table has several learning rates and `config`
    does not name them, each configuration is shown at its best.

    Raises DataError, one line that names the file, the column and what is allowed.
    """
    groups_by = [group_by] if isinstance(group_by, str) else group_by or []
    sheet = source if isinstance(source, Sheet) else read_sheet(source)
    reading = read_rows(sheet, ReadOptions(config, groups_by, minimize, maximize, as_seeds, named or {}))
    _refuse_repeats(reading)
    groups: dict[str, list[RunRow]] = defaultdict(list)
    for row in reading.rows:
        groups[row.group].append(row)
    found = tuple(_group(name, groups[name], reading) for name in sorted(groups))
    return ResultTable(reading.source, reading.cost, reading.quality, found, _understood(reading))


def _understood(reading: ReadRows) -> Interpretation:
    why = Counter(row.why for row in reading.rows if row.why)
    return Interpretation(
        columns=reading.columns,
        n_rows=len(reading.rows) + reading.n_left_out,
        n_final=sum(not row.censored for row in reading.rows),
        n_censored=sum(row.censored for row in reading.rows),
        n_left_out=reading.n_left_out,
        why=dict(sorted(why.items())),
        as_seeds=reading.as_seeds,
        notes=tuple(reading.notes),
    )


def _refuse_repeats(reading: ReadRows) -> None:
    """Raise DataError for a seed that is twice in one configuration: another column must distinguish these rows."""
    seen: dict[Hashable, RunRow] = {}
    for row in reading.rows:
        if row.seed is None or row.censored:
            continue
        first = seen.setdefault((row.group, row.settings, row.lr, row.seed, row.pooled), row)
        if first is not row:
            apart = reading.differing_columns(first, row)
            differ = f" (they differ in {apart})" if apart else ""
            raise DataError(
                f"{reading.source}: row {row.number}: seed {row.seed} of {_label(row)} is in row {first.number} too; "
                f"name the columns that distinguish them with --config{differ}"
            )


def _label(row: RunRow) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.settings)


def _group(name: str, rows: Sequence[RunRow], reading: ReadRows) -> Group:
    by_settings: dict[Hashable, list[RunRow]] = defaultdict(list)
    for row in rows:
        by_settings[row.settings].append(row)
    chosen = sorted((_at_best_rate(same) for same in by_settings.values()), key=lambda same: same[0].batch_size)
    runs = tuple(row.run for same in chosen for row in same if row.run is not None)
    return Group(name, tuple(_configuration(same) for same in chosen), runs)


def _at_best_rate(rows: Sequence[RunRow]) -> list[RunRow]:
    """Return the rows of one learning rate: with results, then least censored, then best in quality, then quickest.

    Rows that ended because of the machine, or have not ended, do not count against a rate.
    """
    by_rate: dict[float | None, list[RunRow]] = defaultdict(list)
    for row in rows:
        by_rate[row.lr].append(row)

    def merit(same: list[RunRow]) -> tuple[bool, float, float, float]:
        quality = [row.quality for row in same if row.quality is not None]
        steps = [row.run.steps for row in same if row.run is not None]
        judged = [row.counts_against for row in same if row.counts_against or not row.censored]
        censored = sum(judged) / len(judged) if judged else 1.0
        has_final = any(not row.censored for row in same)
        return has_final, -censored, fmean(quality) if quality else -math.inf, -fmean(steps) if steps else -math.inf

    return max(by_rate.values(), key=merit)


def _configuration(rows: Sequence[RunRow]) -> Configuration:
    label = _label(rows[0])
    places = [(row.cost, row.quality) for row in rows if row.cost is not None and row.quality is not None]
    cost, quality = zip(*places, strict=True) if places else ((), ())
    return Configuration(
        label=label,
        settings=dict(rows[0].settings),
        batch_size=rows[0].batch_size,
        lr=rows[0].lr,
        sample=Sample(label, cost, quality) if places else None,
        n_censored=sum(row.censored for row in rows),
    )
