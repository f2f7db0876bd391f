"""What a ledger says is done, and so what is left: a study's state is its rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from study.ledger.rows import AnyRow, AttemptRow, EndRow, ReportRow
from study.plan.trials import Cell, Plan, TrialSpec


class Progress:
    """Follows the rows of one study."""

    def __init__(self, plan: Plan, rows: Iterable[AnyRow] = ()) -> None:
        self.plan = plan
        self.ends: dict[str, EndRow] = {}
        self.attempts: dict[str, int] = {}
        self._last: dict[str, ReportRow] = {}
        for row in rows:
            self.follow(row)

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        if isinstance(row, EndRow):
            self.ends[row.trial_id] = row
        elif isinstance(row, AttemptRow):
            self.attempts[row.trial_id] = row.attempt
            self._last.pop(row.trial_id, None)  # a new attempt starts over
        elif isinstance(row, ReportRow):
            self._last[row.trial_id] = row

    def search_left(self) -> list[TrialSpec]:
        """Search trials without an end, in the order to run them.

        Shuffled by the study's seed, so that no batch size meets the scheduler first; one world size after the
        other, since each needs groups of its own.
        """
        order = list(self.plan.search)
        random.Random(self.plan.config.seed).shuffle(order)
        order.sort(key=lambda spec: spec.batch.world_size)
        return [spec for spec in order if spec.trial_id not in self.ends]

    def confirm_left(self) -> list[TrialSpec]:
        """Confirm trials without an end, once the search is over."""
        return [spec for spec in self.confirm() if spec.trial_id not in self.ends]

    def confirm(self) -> list[TrialSpec]:
        """The confirm trials that the search's outcome means. A cell whose every trial diverged or failed has none."""
        chosen = ((cell, self.chosen_rate(cell)) for cell in self.plan.cells)
        return [spec for cell, rate in chosen if rate is not None for spec in self.plan.confirm_trials(cell, rate)]

    def chosen_rate(self, cell: Cell) -> float | None:
        """The base rate that did best in a cell: among the trials that got furthest, the highest validation
        accuracy where they ended, then the lowest validation loss.
        """
        if not self.plan.search:
            return self.plan.rates()[0]
        candidates = [
            (report.updates, report.val_accuracy, -report.val_loss, spec.base_lr)
            for spec in self.plan.search
            if spec.cell == cell
            and (end := self.ends.get(spec.trial_id)) is not None
            and end.outcome in ("completed", "stopped")
            and (report := self._last.get(spec.trial_id)) is not None
            and math.isfinite(report.val_accuracy)
        ]
        return max(candidates)[3] if candidates else None
