"""One row of a table to what it says of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.columns import COSTS, HIGHER_IS_BETTER, QUALITIES, Columns
from study.analysis.tables.tablefile import is_empty
from study.plan.errors import PlanError

_TRUE, _FALSE = {"true", "yes", "1", "1.0"}, {"false", "no", "0", "0.0"}
_UNFINISHED = {"failed", "crashed", "killed", "running", "scheduled", "pending", "preempted", "preempting"}


@dataclass(frozen=True)
class Objective:
    """What one axis shows. Samples hold it signed, so that cost is minimised and quality maximised."""

    column: str
    maximize: bool


@dataclass(frozen=True)
class Row:
    """One run as the table has it."""

    number: int  # from 1, for messages
    group: str
    settings: tuple[tuple[str, str], ...]
    batch_size: int
    lr: float | None
    seed: str | None
    censored: bool
    cost: float | None  # signed; None if censored
    quality: float | None
    run: StepsToTarget | None


class RowReader:
    """Which columns mean what, and rows read by them."""

    def __init__(
        self,
        path: Path,
        frame: pd.DataFrame,
        config: Sequence[str],
        group_by: str | None,
        minimize: Sequence[str],
        maximize: Sequence[str],
    ) -> None:
        self.source = str(path)
        self.columns = columns = Columns(list(frame.columns), self.source)
        self.cells: dict[str, list[Any]] = {name: frame[name].tolist() for name in columns.names}
        batch = columns.find("batch_size")
        if batch is None:
            raise columns.missing("batch_size")
        self.batch = batch
        self.lr, self.seed = columns.find("lr"), columns.find("seed")
        self.reached, self.status = columns.find("reached"), columns.find("status")
        self.target = self._find_target()
        self.size = columns.find("dataset_size")
        self.group_by = columns.named(group_by, "--group-by") if group_by else None
        self.config = [columns.named(word, "--config") for word in config] or self._default_config()
        self.cost, self.quality = self._objectives(minimize, maximize)
        if self.target is None and not (self.cost and self.quality):
            lacking = [
                f"{what} ({', '.join(known)})"
                for what, known, found in (("a cost", COSTS, self.cost), ("a quality", QUALITIES, self.quality))
                if not found
            ]
            raise PlanError(f"{self.source}: no column for {' nor for '.join(lacking)}, nor any steps to a target")

    def _find_target(self) -> tuple[str, str] | None:
        """What the way to the target is counted in, and the column that has it."""
        for meaning in ("steps_to_target", "samples_to_target", "epochs_to_target"):
            column = self.columns.find(meaning)
            if column is not None:
                if meaning == "epochs_to_target" and self.columns.find("dataset_size") is None:
                    raise PlanError(f"{self.source}: {column}: needs a column dataset_size to become steps")
                return meaning, column
        return None

    def _default_config(self) -> list[str]:
        world = self.columns.find("world_size")
        varies = world is not None and len({str(cell) for cell in self.cells[world]}) > 1
        return [self.batch, world] if world is not None and varies else [self.batch]

    def _objectives(
        self, minimize: Sequence[str], maximize: Sequence[str]
    ) -> tuple[Objective | None, Objective | None]:
        lower = [Objective(self.columns.named(word, "--minimize"), False) for word in minimize]
        higher = [Objective(self.columns.named(word, "--maximize"), True) for word in maximize]
        if len(lower) + len(higher) > 2:
            raise PlanError(f"{self.source}: --minimize and --maximize name more than two objectives")
        if len(lower) + len(higher) == 2:
            cost, quality = lower + higher
            return cost, quality
        return lower[0] if lower else self._first(COSTS), higher[0] if higher else self._first(QUALITIES)

    def _first(self, known: dict[str, tuple[str, ...]]) -> Objective | None:
        for meaning in known:
            column = self.columns.find(meaning)
            if column is not None:
                return Objective(column, meaning in HIGHER_IS_BETTER)
        return None

    def row(self, i: int) -> Row:
        """Row i, from 0. Raises PlanError naming row and column."""
        batch = self._whole(i, self.batch)
        censored = not (self._reached(i) and self._finished(i))
        return Row(
            number=i + 1,
            group=str(self.cells[self.group_by][i]) if self.group_by else "",
            settings=tuple((name, self._setting(i, name)) for name in self.config),
            batch_size=batch,
            lr=self._positive(i, self.lr) if self.lr else None,
            seed=str(self.cells[self.seed][i]) if self.seed else None,
            censored=censored,
            cost=None if censored or self.cost is None else self._signed(i, self.cost),
            quality=None if censored or self.quality is None else -self._signed(i, self.quality),
            run=self._run(i, batch, censored),
        )

    def _run(self, i: int, batch: int, censored: bool) -> StepsToTarget | None:
        if self.target is None:
            return None
        meaning, column = self.target
        if censored and is_empty(self.cells[column][i]):
            return None  # it gave up, nobody knows when
        count = self._positive(i, column)
        per_step = {"steps_to_target": 1.0, "samples_to_target": 1.0 / batch}
        if meaning == "epochs_to_target" and self.size is not None:
            per_step[meaning] = self._positive(i, self.size) / batch
        return StepsToTarget(batch, count * per_step[meaning], not censored)

    def _reached(self, i: int) -> bool:
        if self.reached is None:
            return True
        word = str(self.cells[self.reached][i]).strip().lower()
        if word not in _TRUE | _FALSE:
            raise self._error(i, self.reached, "true or false")
        return word in _TRUE

    def _finished(self, i: int) -> bool:
        return self.status is None or str(self.cells[self.status][i]).strip().lower() not in _UNFINISHED

    def _setting(self, i: int, column: str) -> str:
        cell = self.cells[column][i]
        if is_empty(cell):
            raise self._error(i, column, "a value, since it tells configurations apart")
        try:
            return f"{float(cell):.12g}"  # 32, 32.0 and "32" are one setting
        except (TypeError, ValueError):
            return str(cell).strip()

    def _signed(self, i: int, objective: Objective) -> float:
        """Lower is better."""
        value = self._number(i, objective.column)
        return -value if objective.maximize else value

    def _whole(self, i: int, column: str) -> int:
        value = self._number(i, column, "a whole number of at least 1")
        if value < 1 or value != int(value):
            raise self._error(i, column, "a whole number of at least 1")
        return int(value)

    def _positive(self, i: int, column: str) -> float:
        value = self._number(i, column, "a number above 0")
        if value <= 0:
            raise self._error(i, column, "a number above 0")
        return value

    def _number(self, i: int, column: str, allowed: str = "a finite number") -> float:
        try:
            value = float(self.cells[column][i])
        except (TypeError, ValueError):
            raise self._error(i, column, allowed) from None
        if not math.isfinite(value):
            raise self._error(i, column, allowed)
        return value

    def _error(self, i: int, column: str, allowed: str) -> PlanError:
        cell = self.cells[column][i]
        what = "is empty" if is_empty(cell) else f"{str(cell)[:40]!r} is not allowed"
        return PlanError(f"{self.source}: row {i + 1}: {column}: {what}; needs {allowed}")
