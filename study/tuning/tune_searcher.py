"""Tune's question what runs next, answered from the rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from study.cluster.connection import alive_nodes
from study.config.schema import Hardware
from study.planning.capacity import ranks_that_fit
from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.messages import METRIC, MODE, AttemptConfig
from study.tuning.progress import Progress

ASK_EVERY_S = 1.0


class ClusterCapacity:
    """The number of ranks that the cluster would hold if it were empty: machines come and go."""

    def __init__(self, hardware: Hardware, clock: Callable[[], float] = time.monotonic) -> None:
        self._hardware, self._clock = hardware, clock
        self._ranks, self._asked_s = 0, -math.inf

    @property
    def ranks(self) -> int:
        """The number as of at most `ASK_EVERY_S` ago."""
        return self.ask() if self._clock() - self._asked_s > ASK_EVERY_S else self._ranks

    def ask(self) -> int:
        """Return the number as of now."""
        self._ranks = ranks_that_fit(alive_nodes(), self._hardware)
        self._asked_s = self._clock()
        return self._ranks


class PlanSearcher(Searcher):
    """Suggests attempts. To Tune, each is a trial: a pause ends it, and the next attempt is another (docs/adr/006)."""

    def __init__(self, progress: Progress, store: CheckpointStore, capacity: ClusterCapacity) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self._progress, self._store, self._capacity = progress, store, capacity

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of Tune's pickle, which is for a restore that is never asked for."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next attempt, None while there is none, FINISHED after the last. `trial_id` is Tune's own.

        None makes Tune ask again at its next turn. After FINISHED it does not ask again.
        """
        if self._progress.finished or self._progress.state.mistake is not None:
            return str(Searcher.FINISHED)
        assignment = self._progress.next_assignment(self._capacity.ranks)
        if assignment is None:
            return None
        checkpoint = self._store.start(assignment.spec.trial_id, assignment.from_updates)
        return AttemptConfig(assignment.spec, checkpoint, assignment.pause_at, assignment.wait_at).to_tune()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: Progress follows the rows."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a study resumes from its ledger, not from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, because `save` keeps nothing."""
