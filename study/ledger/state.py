"""The state of a study, from its rows: the one place that folds them.

Scheduling, the progress view, metrics, sinks, the summary and billing read it. Each replays the rows into its own
state, so that threads share nothing; `tests/ledger/test_state.py` checks that all of them agree at every row.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from study.config.objective import ACCURACY, Objective
from study.ledger.billing import OpenLease
from study.ledger.schema import (
    AnyRow,
    AttemptRow,
    Decision,
    DecisionRow,
    EndRow,
    LeaseRow,
    LimitRow,
    MistakeRow,
    Outcome,
    ReportRow,
    SeedRow,
    StudyRow,
    WaitRow,
)
from study.measurement import CurvePoint

# pending: not begun, or its last attempt was lost; paused: by the policy or by a limit, to go on later
TrialStatus = Literal["pending", "running", "paused"] | Outcome
RECENT_HAND_OVERS = 100


@dataclass(slots=True)
class TrialState:
    """One trial, over all its attempts."""

    trial_id: str
    phase: str  # `search` or `confirm`
    status: TrialStatus = "pending"
    attempt: AttemptRow | None = None  # the last that began
    begun: bool = False  # since the study began, or began again after a mistake
    attempts_in_a_row: int = 0  # begun by this driver since the trial last paused
    curve: list[CurvePoint] = field(default_factory=list)  # of the last attempt, and of those that it went on from
    furthest_updates: int = 0  # of any report, lost ones included
    final: bool = False  # the last report says that the trial has come to its end
    resume_updates: int = 0  # at the last decision under which it may go on: a later checkpoint is not used
    stopping: bool = False  # a decision to stop is written, and no end yet
    cut: bool = False  # it waits to go on where a limit cut it
    audited_updates: int | None = None  # where it would have been stopped, had it not been trained on as a check
    audited: CurvePoint | None = None  # its report there
    end: EndRow | None = None
    leases: list[LeaseRow] = field(default_factory=list)  # closed ones
    energies_j: dict[int, float | None] = field(default_factory=dict)  # by attempt
    peak_memory_bytes: int | None = None  # of a GPU, the most of any attempt
    cold_attempts: set[int] = field(default_factory=set)  # those that paid for the start of their group (ADR 022)
    _leases_before: int = 0  # closed before the study began again

    @property
    def attempts(self) -> int:
        """The number of attempts that began."""
        return self.attempt.attempt if self.attempt else 0

    @property
    def last(self) -> CurvePoint | None:
        """The last report, unless it was lost with its attempt."""
        return self.curve[-1] if self.curve else None

    @property
    def reported(self) -> bool:
        """Whether the last attempt has reported."""
        return self.attempt is not None and self.attempt.attempt in self.energies_j

    @property
    def updates(self) -> int:
        """How far the last attempt has come: to its last report, or to what it goes on from."""
        reported = self.curve[-1].updates if self.curve else 0
        return max(reported, self.attempt.from_updates if self.attempt else 0)

    @property
    def current_leases(self) -> list[LeaseRow]:
        """Closed leases since the study began, or began again after a mistake."""
        return self.leases[self._leases_before :]

    def begin_again(self) -> None:
        """Forget results, for its code has changed. Costs and the number of attempts stay."""
        self.status, self.curve, self.furthest_updates, self.final = "pending", [], 0, False
        self.resume_updates, self.begun, self.stopping, self.cut = 0, False, False, False
        self.audited_updates = self.audited = self.end = self.peak_memory_bytes = None
        self._leases_before = len(self.leases)


class StudyState:
    """What the rows of one ledger say so far. Times are seconds of the study's clock (`at_s` of rows).

    With `whole_curves=False` a trial that has ended keeps the last point of its curve only, so that what a driver holds
    does not grow with every report.
    """

    def __init__(self, rows: Iterable[AnyRow] = (), whole_curves: bool = True) -> None:
        self.first: StudyRow | None = None
        self.last_opened: StudyRow | None = None  # by the last driver: limits may change on a resume
        self.now_s = 0.0  # at the last row
        self.first_attempt_s: float | None = None
        self.trials: dict[str, TrialState] = {}  # by id, in the order of their first rows
        self.open_leases: dict[tuple[str, int], OpenLease] = {}  # by trial and attempt; not billed yet
        self.closed_device_h = 0.0
        self.limit: LimitRow | None = None  # that the last driver has passed
        self.mistake: MistakeRow | None = None  # that has ended the study
        self.waiting: WaitRow | None = None  # for a larger cluster
        self.restarts = 0  # after mistakes
        self.decisions: Counter[Decision] = Counter()
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()  # of ended trials, by phase
        self.ended: dict[str, TrialState] = {}  # by id, in the order of their ends
        self.audited: dict[str, TrialState] = {}  # trained on as a check
        self.mistaken: dict[str, TrialState] = {}  # failed with an error of their own code
        self.seeds_added: dict[str, SeedRow] = {}  # by confirm trial, beyond the first seeds
        self.attempts = 0
        self.lost_leases = 0
        self.objective = ACCURACY  # what the study judges by
        self.best: dict[str, float] = {}  # the objective's best value in any report, lost ones included, by phase
        self.hand_overs_s: deque[float] = deque(maxlen=RECENT_HAND_OVERS)  # from trial to trial on a warm group
        self.longest_interval_s = 0.0  # between a report and what its attempt wrote before
        self._whole_curves = whole_curves
        self._groups: set[str] = set()  # that any attempt ran on
        self._warm_groups: set[str] = set()  # whose ranks are up
        for row in rows:
            self.apply(row)

    def apply(self, row: AnyRow) -> None:
        """Take in the next row, in constant time on average."""
        self.now_s = row.at_s
        if row.kind == "report":
            self._apply_report(row)
        elif row.kind == "decision":
            self._apply_decision(row)
        elif row.kind == "attempt":
            self._apply_attempt(row)
        elif row.kind == "lease":
            self._apply_lease(row)
        elif row.kind == "end":
            self._apply_end(row)
        elif row.kind == "study":
            self._apply_study(row)
        elif row.kind == "limit":
            self.limit, self.waiting = row, None
        elif row.kind == "mistake":
            self.mistake, self.waiting = row, None
        elif row.kind == "wait":
            self.waiting = row
        elif row.kind == "seed":
            self.seeds_added[row.trial_id] = row

    def trial(self, trial_id: str) -> TrialState:
        """Return the state of a trial; of one that no row names, an empty one."""
        return self.trials.get(trial_id) or _new_trial(trial_id)

    @property
    def begun(self) -> Iterator[tuple[TrialState, AttemptRow]]:
        """Trials that ever began, each with its last attempt."""
        return ((trial, trial.attempt) for trial in self.trials.values() if trial.attempt is not None)

    @property
    def running(self) -> Iterator[tuple[TrialState, AttemptRow]]:
        """Trials that run, each with its attempt, oldest first."""
        return ((trial, attempt) for trial, attempt in self.begun if trial.status == "running")

    def device_h(self, at_s: float) -> float:
        """Return billed device-hours, open leases up to `at_s` included."""
        open_s = sum(lease.devices * max(at_s - lease.opened_s, 0.0) for lease in self.open_leases.values())
        return self.closed_device_h + open_s / 3600

    def _trial(self, trial_id: str) -> TrialState:
        trial = self.trials.get(trial_id)
        if trial is None:
            trial = self.trials[trial_id] = _new_trial(trial_id)
        return trial

    def _apply_study(self, row: StudyRow) -> None:
        self.first = self.first or row
        for trial in self.trials.values():
            trial.attempts_in_a_row = 0
            if self.mistake is not None:
                trial.begin_again()
            elif trial.status == "running":  # its driver died
                trial.status = "pending"
        if self.mistake is not None:
            self.restarts += 1
            for index in (self.outcomes, self.ended, self.audited, self.mistaken):
                index.clear()
            self.best.clear()
            self.seeds_added.clear()
        self.last_opened = row
        self.objective = Objective.model_validate(row.config.get("objective", "accuracy"))
        self.limit = self.mistake = self.waiting = None

    def _apply_attempt(self, row: AttemptRow) -> None:
        trial = self._trial(row.trial_id)
        trial.attempt, trial.phase, trial.begun, trial.status = row, row.phase, True, "running"
        trial.cut = trial.final = False
        trial.attempts_in_a_row += 1
        trial.resume_updates = row.from_updates
        while trial.curve and trial.curve[-1].updates > row.from_updates:  # lost with the attempt before
            trial.curve.pop()
        if row.group_id in self._groups:
            self.hand_overs_s.append(row.setup_s)
        self._groups.add(row.group_id)
        if row.group_id not in self._warm_groups:
            trial.cold_attempts.add(row.attempt)
            self._warm_groups.add(row.group_id)
        self.open_leases[row.trial_id, row.attempt] = OpenLease.of_attempt(row)
        self.attempts += 1
        self.waiting = None
        if self.first_attempt_s is None:
            self.first_attempt_s = row.at_s

    def _apply_report(self, row: ReportRow) -> None:
        trial = self._trial(row.trial_id)
        trial.curve.append(row.point)
        if row.updates > trial.furthest_updates:
            trial.furthest_updates = row.updates
        trial.final = row.final
        trial.energies_j[row.attempt] = row.energy_j
        if row.peak_memory_bytes is not None:
            trial.peak_memory_bytes = max(row.peak_memory_bytes, trial.peak_memory_bytes or 0)
        value = row.value(self.objective.metric)
        if value is not None and math.isfinite(value):
            best = self.best.get(trial.phase)
            if best is None or self.objective.quality(value) > self.objective.quality(best):
                self.best[trial.phase] = value
        lease = self.open_leases.get((row.trial_id, row.attempt))
        if lease is not None:
            if row.at_s - lease.known_until_s > self.longest_interval_s:
                self.longest_interval_s = row.at_s - lease.known_until_s
            lease.add_report(row.at_s, row.phases_s)

    def _apply_decision(self, row: DecisionRow) -> None:
        trial = self._trial(row.trial_id)
        self.decisions[row.decision] += 1
        if row.decision == "stop":
            trial.stopping = True
        else:
            trial.resume_updates = row.updates
        if row.decision in ("pause", "cut"):
            trial.status, trial.attempts_in_a_row = "paused", 0
            trial.cut = row.decision == "cut"
        elif row.decision == "audit":
            trial.audited_updates, trial.audited = row.updates, trial.last
            self.audited[row.trial_id] = trial

    def _apply_lease(self, row: LeaseRow) -> None:
        trial = self._trial(row.trial_id)
        self.open_leases.pop((row.trial_id, row.attempt), None)
        trial.leases.append(row)
        self.closed_device_h += row.billed_device_h
        self.lost_leases += row.reason == "lost"
        if trial.status == "running" and trial.attempts == row.attempt:  # it was lost, and will be tried again
            trial.status = "pending"

    def _apply_end(self, row: EndRow) -> None:
        trial = self._trial(row.trial_id)
        trial.end, trial.status, trial.stopping = row, row.outcome, False
        self.outcomes[trial.phase, row.outcome] += 1
        self.ended[row.trial_id] = trial
        if row.mistake and trial.attempt is not None:
            self.mistaken[row.trial_id] = trial
        # A trial that fails or does not fit on several ranks takes its group's processes with it.
        if row.outcome in ("failed", "infeasible") and trial.attempt is not None and trial.attempt.world_size > 1:
            self._warm_groups.discard(trial.attempt.group_id)
        if not self._whole_curves:
            del trial.curve[:-1]


def _new_trial(trial_id: str) -> TrialState:
    return TrialState(trial_id, trial_id.partition("-")[0])  # every id begins with the phase
