"""What a user says of a table, and what its rows say of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.file_reader import Sheet
from study.analysis.tables.objectives import Objective
from study.analysis.tables.states import SELECTED


@dataclass(frozen=True)
class Choices:
    """What the user says of a table, in the words of `read_table`."""

    config: Sequence[str]
    group_by: Sequence[str]
    minimize: Sequence[str]
    maximize: Sequence[str]
    as_seeds: Sequence[str]
    named: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One run of the table, read: its settings, cost, quality and state."""

    number: int  # from 1, for messages
    group: str
    settings: tuple[tuple[str, str], ...]
    pooled: tuple[str, ...]  # values of the settings that count as seeds
    batch_size: int
    lr: float | None
    seed: str | None
    why: str  # why it is no final result; empty if it is one
    cost: float | None  # signed; None if censored
    quality: float | None
    run: StepsToTarget | None

    @property
    def censored(self) -> bool:
        """Return whether the run is not a final result."""
        return bool(self.why)

    @property
    def against(self) -> bool:
        """It ended for what it was set to, not for the machine's sake."""
        return self.why in SELECTED


@dataclass(frozen=True)
class Reading:
    """The rows of a table and how they were read."""

    source: str
    rows: list[Row]
    cost: Objective | None
    quality: Objective | None
    columns: dict[str, str]
    n_left_out: int
    as_seeds: tuple[str, ...]
    notes: list[str]
    sheet: Sheet
    others: tuple[str, ...]  # columns that have no role

    def apart(self, one: Row, other: Row) -> str:
        """The columns without a role in which two rows differ."""
        numbers = self.sheet.numbers
        i, j = numbers.index(one.number), numbers.index(other.number)
        found = [name for name in self.others if str(self.sheet.cells[name][i]) != str(self.sheet.cells[name][j])]
        return ", ".join(found[:6])
