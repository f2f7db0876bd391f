"""A search policy played on recorded curves: a discrete-event simulation of some slots."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple

from study.schedulers.base import Policy

Kind = Literal["start", "promote", "pause", "stop", "drop", "complete", "fail"]


@dataclass(frozen=True)
class Course:
    """What a trial reports if it is trained as far as it goes."""

    at: Sequence[float]  # lengths at its reports, ascending, in the policy's unit
    scores: Sequence[float]  # to maximise
    cost_s: Sequence[float]  # device-seconds, cumulative
    ranks: int = 1  # a report is cost / ranks seconds after the start
    completes: bool = True  # False: instead of its last report it diverges


class Decision(NamedTuple):
    """What became of a trial, and when."""

    at_s: float
    trial: str
    kind: Kind


class Ran(NamedTuple):
    """How far a trial got."""

    reports: int
    cost_s: float  # device-seconds
    completed: bool


@dataclass(frozen=True)
class Simulation:
    """A whole search."""

    trials: Mapping[str, Ran]  # in the order of the courses
    decisions: tuple[Decision, ...]  # in order of time
    makespan_s: float
    idle_slot_s: float  # slots without a trial x seconds, until the last trial was over

    @property
    def cost_s(self) -> float:
        """Device-seconds of all trials."""
        return sum(ran.cost_s for ran in self.trials.values())

    def __add__(self, later: Simulation) -> Simulation:
        """One search after the other."""
        return Simulation(
            {**self.trials, **later.trials},
            (*self.decisions, *(step._replace(at_s=step.at_s + self.makespan_s) for step in later.decisions)),
            self.makespan_s + later.makespan_s,
            self.idle_slot_s + later.idle_slot_s,
        )


def simulate(policy: Policy, courses: Mapping[str, Course], slots: int) -> Simulation:
    """Play a policy until nothing runs and it chooses nobody.

    A slot takes one trial, whatever its ranks. Setting up, pausing and handing over take no time, and a trial that is
    promoted goes on where it paused. Reports at the same time come in the order in which they were begun.
    """
    decisions: list[Decision] = []
    reported = dict.fromkeys(courses, 0)
    completed: set[str] = set()
    serial = count()
    due: list[tuple[float, int, str]] = []  # a heap: when running trials report next
    now_s = idle_slot_s = 0.0
    while True:
        while len(due) < slots and (trial := policy.choose()) is not None:
            policy.begin(trial)
            decisions.append(Decision(now_s, trial, "promote" if reported[trial] else "start"))
            heapq.heappush(due, (now_s + _interval_s(courses[trial], reported[trial]), next(serial), trial))
        if not due:
            break
        at_s, _, trial = heapq.heappop(due)
        idle_slot_s += (slots - 1 - len(due)) * (at_s - now_s)
        now_s = at_s
        course, done = courses[trial], reported[trial]
        reported[trial] = done + 1
        last = done + 1 == len(course.at)
        kind: Kind
        if last and not course.completes:
            policy.leave(trial, completed=False)
            kind = "fail"
        else:
            verdict = policy.report(trial, course.at[done], course.scores[done], course.cost_s[done])
            if last:  # whatever the verdict: there is nothing left to stop
                policy.leave(trial, completed=True)
                completed.add(trial)
                kind = "complete"
            elif verdict == "continue":
                heapq.heappush(due, (now_s + _interval_s(course, done + 1), next(serial), trial))
                continue
            else:
                kind = verdict
        decisions.append(Decision(now_s, trial, kind))
        decisions += [Decision(now_s, dropped, "drop") for dropped in policy.dropped()]
    ran = {
        trial: Ran(n, courses[trial].cost_s[n - 1] if n else 0.0, trial in completed) for trial, n in reported.items()
    }
    return Simulation(ran, tuple(decisions), now_s, idle_slot_s)


def _interval_s(course: Course, done: int) -> float:
    """Seconds to the next report."""
    before = course.cost_s[done - 1] if done else 0.0
    return (course.cost_s[done] - before) / course.ranks
