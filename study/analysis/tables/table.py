"""A table of results that were not made here (csv, parquet, json) to configurations over seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.statistics.samples import Sample
from study.analysis.tables.tablefile import read_frame
from study.analysis.tables.tablerows import Objective, Row, RowReader
from study.plan.errors import PlanError


@dataclass(frozen=True)
class Configuration:
    """The rows that differ in nothing but their seed."""

    label: str
    settings: dict[str, str]  # by column
    batch_size: int
    lr: float | None  # the best of the rates tried, where the table has several
    sample: Sample | None  # of the rows that were not censored; None if there are none, or without two objectives
    n_censored: int


@dataclass(frozen=True)
class Group:
    """Configurations that share a front, and a critical batch."""

    name: str
    configurations: tuple[Configuration, ...]  # by batch size
    runs: tuple[StepsToTarget, ...]  # empty without steps to a target


@dataclass(frozen=True)
class Table:
    """What was read; either both objectives are there, or runs to a target, or all."""

    source: str
    cost: Objective | None
    quality: Objective | None
    groups: tuple[Group, ...]


def read_table(
    path: Path,
    config: Sequence[str] = (),
    group_by: str | None = None,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
) -> Table:
    """Read and check a table.

    `config` names the columns that make a configuration: batch_size, and world_size where it varies, unless said
    otherwise. `minimize` and `maximize` name at most two objectives; without them the first known cost and the first
    known quality are taken. Rows that are not finished, or whose `reached` is false, are censored. Where the table has
    several learning rates and `config` does not name them, each configuration is shown at its best.

    Raises PlanError, one line that names the file, the column and what is allowed.
    """
    frame = read_frame(path)
    reader = RowReader(path, frame, config, group_by, minimize, maximize)
    rows = [reader.row(i) for i in range(len(frame))]
    _refuse_repeats(rows, str(path))
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return Table(str(path), reader.cost, reader.quality, tuple(_group(name, groups[name]) for name in sorted(groups)))


def _refuse_repeats(rows: Sequence[Row], source: str) -> None:
    """The same seed twice in one configuration means that some column tells them apart."""
    seen: dict[Hashable, int] = {}
    for row in rows:
        if row.seed is None:
            continue
        first = seen.setdefault((row.group, row.settings, row.lr, row.seed), row.number)
        if first != row.number:
            label = _label(row)
            raise PlanError(
                f"{source}: row {row.number}: seed {row.seed} of {label} stands in row {first} too; "
                "name the columns that tell them apart with --config"
            )


def _label(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.settings)


def _group(name: str, rows: Sequence[Row]) -> Group:
    by_settings: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        by_settings[row.settings].append(row)
    chosen = sorted((_at_best_rate(same) for same in by_settings.values()), key=lambda same: same[0].batch_size)
    runs = tuple(row.run for same in chosen for row in same if row.run is not None)
    return Group(name, tuple(_configuration(same) for same in chosen), runs)


def _at_best_rate(rows: Sequence[Row]) -> list[Row]:
    """The rows of the learning rate that was censored least, then best in quality, then quickest to the target."""
    by_rate: dict[float | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_rate[row.lr].append(row)

    def merit(same: list[Row]) -> tuple[float, float, float]:
        quality = [row.quality for row in same if row.quality is not None]
        steps = [row.run.steps for row in same if row.run is not None]
        censored = sum(row.censored for row in same) / len(same)
        return -censored, fmean(quality) if quality else -math.inf, -fmean(steps) if steps else -math.inf

    return max(by_rate.values(), key=merit)


def _configuration(rows: Sequence[Row]) -> Configuration:
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
