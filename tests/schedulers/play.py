"""Plays a policy without a clock: any running trial may be the next to report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from study.schedulers.bracket import Bracket

REPORTS = tuple((i + 1) / 9 for i in range(9))


class BracketPolicy(Bracket):
    """One bracket as a policy: promotions before newcomers."""

    def choose(self) -> str | None:
        return self.promotion() or self.newcomer()

    def report(self, trial: str, at: float, score: float, cost: float = math.nan) -> Any:
        return "pause" if super().report(trial, at, score) else "continue"

    def dropped(self) -> list[str]:
        return self.waiting() if self.finished else []


@dataclass
class Played:
    """What a policy did; `calls` are the calls that make up its state."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)  # once for each start and each resume
    completed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)


def play(
    policy: Any,
    scores: Mapping[str, Sequence[float]],
    fails: Mapping[str, int],
    rng: Random,
    slots: int,
    at: Sequence[float] = REPORTS,
) -> Played:
    """Play until nothing runs and no trial is chosen. `fails`: a trial dies instead of its n-th report, from 0."""
    played, reported, running = Played(), dict.fromkeys(scores, 0), []

    def call(name: str, *arguments: Any) -> Any:
        played.calls.append((name, *arguments))
        return getattr(policy, name)(*arguments)

    while True:
        while len(running) < slots and (trial := policy.choose()) is not None:
            assert policy.choose() == trial, "choose() changes nothing"
            assert trial not in running
            call("begin", trial)
            played.started.append(trial)
            running.append(trial)
        if not running:
            return played
        trial = running.pop(rng.randrange(len(running)))
        done = reported[trial]
        if fails.get(trial) == done:
            call("leave", trial, False)
            played.failed.add(trial)
        else:
            reported[trial] = done + 1
            verdict = call("report", trial, at[done], scores[trial][done], 1.0 + done)
            if done + 1 == len(at):
                call("leave", trial, True)
                played.completed.add(trial)
            elif verdict == "continue":
                running.append(trial)
            elif verdict == "stop":
                call("leave", trial, True)
                played.stopped.add(trial)
        played.dropped.update(policy.dropped())
