"""A search policy replayed on recorded curves: a discrete-event simulation of a number of slots."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple

from study.schedulers.base import Policy

EventKind = Literal["start", "promote", "pause", "stop", "drop", "complete", "fail"]


@dataclass(frozen=True)
class Course:
    """The reports of a trial if it is trained to its end."""

    at: Sequence[float]  # lengths at its reports, ascending, in the policy's unit
    scores: Sequence[float]  # to maximise
    cost_s: Sequence[float]  # device-seconds, cumulative
    ranks: int = 1  # a report is cost / ranks seconds after the start
    completes: bool = True  # False: it diverges instead of its last report


class Event(NamedTuple):
    """A change in the state of a trial, and its time."""

    at_s: float
    trial: str
    kind: EventKind


class Ran(NamedTuple):
    """The reports that a trial reached, and their cost."""

    reports: int
    cost_s: float  # device-seconds
    completed: bool


@dataclass(frozen=True)
class Simulation:
    """The course of a simulated search."""

    trials: Mapping[str, Ran]  # in the order of the courses
    events: tuple[Event, ...]  # in order of time
    makespan_s: float
    idle_slot_s: float  # slots without a trial x seconds, until the last trial ended

    def __add__(self, later: Simulation) -> Simulation:
        """Return the two searches, one after the other."""
        return Simulation(
            {**self.trials, **later.trials},
            (*self.events, *(step._replace(at_s=step.at_s + self.makespan_s) for step in later.events)),
            self.makespan_s + later.makespan_s,
            self.idle_slot_s + later.idle_slot_s,
        )


def simulate(policy: Policy, courses: Mapping[str, Course], slots: int) -> Simulation:
    """Run a policy until no trial runs and it chooses none.

    A slot takes one trial, regardless of its ranks. Set-up, pauses and hand-overs take no time, and a promoted trial
    continues where it paused. Reports at the same time come in the order in which their intervals began.
    """
    events: list[Event] = []
    reported = dict.fromkeys(courses, 0)
    completed: set[str] = set()
    serial = count()
    due: list[tuple[float, int, str]] = []  # a heap: when running trials report next
    now_s = idle_slot_s = 0.0
    while True:
        while len(due) < slots and (trial := policy.choose()) is not None:
            policy.begin(trial)
            events.append(Event(now_s, trial, "promote" if reported[trial] else "start"))
            heapq.heappush(due, (now_s + _interval_s(courses[trial], reported[trial]), next(serial), trial))
        if not due:
            break
        at_s, _, trial = heapq.heappop(due)
        idle_slot_s += (slots - 1 - len(due)) * (at_s - now_s)
        now_s = at_s
        course, done = courses[trial], reported[trial]
        reported[trial] = done + 1
        last = done + 1 == len(course.at)
        kind: EventKind
        if last and not course.completes:
            policy.leave(trial, completed=False)
            kind = "fail"
        else:
            verdict = policy.report(trial, course.at[done], course.scores[done], course.cost_s[done])
            if last:  # the verdict no longer matters: the trial has no updates left
                policy.leave(trial, completed=True)
                completed.add(trial)
                kind = "complete"
            elif verdict == "continue":
                heapq.heappush(due, (now_s + _interval_s(course, done + 1), next(serial), trial))
                continue
            else:
                kind = verdict
        events.append(Event(now_s, trial, kind))
        events += [Event(now_s, dropped, "drop") for dropped in policy.dropped()]
    ran = {
        trial: Ran(n, courses[trial].cost_s[n - 1] if n else 0.0, trial in completed) for trial, n in reported.items()
    }
    return Simulation(ran, tuple(events), now_s, idle_slot_s)


def _interval_s(course: Course, done: int) -> float:
    """Return the seconds from report number `done` to the next."""
    before = course.cost_s[done - 1] if done else 0.0
    return (course.cost_s[done] - before) / course.ranks
