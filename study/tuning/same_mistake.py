"""Whether a study fails everywhere with one and the same mistake, so that further trials would be paid for in vain."""

from __future__ import annotations

import re
from collections.abc import Sequence

from study.ledger.schema import AnyRow, AttemptRow, EndRow, ReportRow
from study.planning.trials import Cell

_PLACE = re.compile(r" \([^()\s]+:\d+\)$")  # `(net.py:41)`, as study.workloads.user_code.build writes it
_VARIES = re.compile(r"(\S*[\d/\\]\S*\s*)+")  # words with a digit or a slash: numbers, shapes, addresses, paths
_ENOUGH = 2  # failed trials: a single one may have had an unlucky rate


def without_what_varies(error: str) -> str:
    """The error text with every run of words that hold a digit or a path replaced by `#`. The place at its end is kept.

    Two trials made the same mistake if this is equal.
    """
    place = _PLACE.search(error)
    text = error[: place.start()] if place else error
    return _VARIES.sub("# ", text).strip() + (place.group() if place else "")


class SameMistake:
    """Follows the rows of one study since it began, or began again.

    Cells are those of one world size: the sizes are run one after the other.
    """

    def __init__(self, cells: Sequence[Cell], n_trials: int) -> None:
        """`n_trials`: how many the study has at least, if there are fewer than two."""
        self._cells, self._enough = cells, min(_ENOUGH, n_trials)
        self._cell_of: dict[str, Cell] = {}
        self._at: dict[str, int] = {}  # updates of each trial's last report
        self._furthest: dict[Cell, int] = {}  # updates at the last report of any trial
        self._failed_at: dict[Cell, int] = {}  # updates at the last report of the furthest that failed
        self._infeasible: set[Cell] = set()
        self._completed = False
        self._errors: dict[str, str] = {}  # the first error text of each mistake
        self.failed: set[str] = set()  # trials that failed with a mistake

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        if isinstance(row, AttemptRow):
            self._cell_of[row.trial_id] = Cell(row.batch_size, row.world_size, row.variant)
            self._at[row.trial_id] = row.from_updates
        elif isinstance(row, ReportRow):
            cell = self._cell_of[row.trial_id]
            self._at[row.trial_id] = row.updates
            self._furthest[cell] = max(row.updates, self._furthest.get(cell, 0))
        elif isinstance(row, EndRow) and row.trial_id in self._cell_of:
            self._end(row, self._cell_of[row.trial_id])

    def _end(self, row: EndRow, cell: Cell) -> None:
        if row.outcome == "completed":
            self._completed = True
        elif row.outcome == "infeasible":
            self._infeasible.add(cell)
        elif row.mistake:
            self.failed.add(row.trial_id)
            self._errors.setdefault(without_what_varies(row.error or ""), row.error or "")
            self._failed_at[cell] = max(self._at[row.trial_id], self._failed_at.get(cell, 0))

    @property
    def error(self) -> str | None:
        """The mistake, if no trial has completed, at least one trial of every cell failed with it (a cell that does not
        fit into memory counts as well), none failed with another, and in no cell a trial has got further.
        """
        if self._completed or len(self._errors) != 1 or len(self.failed) < self._enough:
            return None
        sizes = {cell.world_size for cell in self._failed_at}
        cells = [cell for cell in self._cells if cell.world_size in sizes]
        if any(cell not in self._failed_at and cell not in self._infeasible for cell in cells):
            return None
        if any(self._furthest.get(cell, 0) > at for cell, at in self._failed_at.items()):
            return None
        (error,) = self._errors.values()
        return error
