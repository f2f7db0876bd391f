"""The interface of a search policy, and the policy that stops nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

Action = Literal["continue", "pause", "stop"]


class Policy(Protocol):
    """A search policy as the Tune run and the simulator call it. It knows no clock and no cluster.

    Its state follows from the calls of `begin`, `report` and `leave` alone, so that rows can rebuild it.
    """

    def choose(self) -> str | None:
        """Return the trial to start or to resume, None while there is none. Does not change the state."""

    def begin(self, trial: str) -> None:
        """Note that a trial runs from now on."""

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """Return what becomes of a trial that has come to `at`, in the policy's unit.

        `score` is maximised; `cost` is the trial's cost so far, in any unit that all trials share.
        """

    def leave(self, trial: str, completed: bool) -> None:
        """Note that a trial has ended: completed, or not, because it diverged or failed."""

    def dropped(self) -> list[str]:
        """Return trials that will never go on: paused ones, and those that will not begin. Each is returned once."""

    def pick(self, trials: Sequence[str]) -> str | None:
        """Return a trial with the rate to choose, of those of one cell, once the search has ended; None where the best
        score is to decide.
        """

    def pauses(self, trial: str) -> frozenset[float]:
        """Return the lengths at which `report` may pause the trial, as shares of its whole length."""

    def decides(self, trial: str, lengths: Sequence[float]) -> frozenset[float]:
        """Return at which of `lengths`, all those that the trial reports at, `report` may stop or pause it. They ascend
        and are in the policy's unit.
        """


class Grid:
    """Trains every trial to its end, in the order given."""

    def __init__(self, trials: Iterable[str]) -> None:
        self._left = dict.fromkeys(trials)

    def choose(self) -> str | None:
        """Return the first trial that has not begun."""
        return next(iter(self._left), None)

    def begin(self, trial: str) -> None:
        """Do what `Policy` says of this method."""
        self._left.pop(trial, None)

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """Return "continue", because every trial is trained to its end."""
        return "continue"

    def leave(self, trial: str, completed: bool) -> None:
        """Do what `Policy` says of this method."""
        self._left.pop(trial, None)

    def dropped(self) -> list[str]:
        """Return nothing, because nothing is paused."""
        return []

    def pick(self, trials: Sequence[str]) -> str | None:
        """Return None: the best score counts."""
        return None

    def pauses(self, trial: str) -> frozenset[float]:
        """Return nothing, because nothing is paused."""
        return frozenset()

    def decides(self, trial: str, lengths: Sequence[float]) -> frozenset[float]:
        """Return nothing, because nothing is stopped."""
        return frozenset()
