"""Hands Tune the plan's trials: the search, then what its outcome means for the confirm phase."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from study.plan.trials import TrialSpec
from study.tuning.progress import Progress
from study.tuning.schedulers import METRIC, MODE


class PlannedTrials(Searcher):
    """One Tune run for both phases, so that the warm groups live through them."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self.progress = progress
        self._search = progress.search_left()
        self._confirm: list[TrialSpec] | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None while the search is still out, FINISHED after the last."""
        if self._search:
            return {"spec": self._search.pop(0)}
        if self._confirm is None:
            if self.progress.search_left():
                return None
            self._confirm = self.progress.confirm_left()
        if self._confirm:
            return {"spec": self._confirm.pop(0)}
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The ledger knows."""

    def save(self, checkpoint_path: str) -> None:
        """A study resumes from its ledger, not from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""
