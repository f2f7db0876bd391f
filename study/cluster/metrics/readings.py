"""The numbers behind the metrics, from ledger rows alone."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from study.cluster.metrics.definitions import DECISIONS, KINDS, RECENT, STATES, TRIAL_KINDS, UNREPORTED
from study.ledger.billing import ColdLeases, OpenLeases
from study.ledger.schema import (
    CENSORED,
    PHASES,
    AnyRow,
    AttemptRow,
    DecisionRow,
    EndRow,
    LeaseRow,
    LimitRow,
    MistakeRow,
    ReportRow,
    StudyRow,
    WaitRow,
)
from study.pareto.fronts import hypervolume
from study.planning.trials import Cell, Plan


@dataclass(frozen=True)
class Reading:
    """The value of one metric now."""

    name: str
    value: float
    tags: dict[str, str]


Bill = defaultdict[tuple[str, str], float]  # device-seconds by kind of trial and phase


class Meter:
    """Follows the rows of one study, from the first. One thread follows, another may read."""

    def __init__(self, plan: Plan, now: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._now = plan, now
        self._zero_s = now()
        self._leases, self._cold = OpenLeases(), ColdLeases()
        self._states: dict[str, str] = {}
        self._attempts: dict[str, AttemptRow] = {}
        self._reports: dict[str, ReportRow] = {}  # of running trials
        self._billed_s: Bill = defaultdict(float)  # of closed leases
        self._trial_s: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # by trial and phase
        self._compared_s: dict[str, float] = defaultdict(float)  # by trial, what stands on the frontier's cost axis
        self._finals: dict[Cell, dict[str, float]] = defaultdict(dict)  # of completed confirm trials
        self._hypervolume: float | None = 0.0  # None once it is out of date
        self._lost_searches: Counter[Cell] = Counter()
        self._best: dict[str, float] = {}
        self._decisions: Counter[str] = Counter()
        self._groups: set[str] = set()
        self._hand_overs_s: deque[float] = deque(maxlen=RECENT)
        self._begun = self._lost = 0
        self._longest_s = 0.0
        self._waiting: WaitRow | None = None
        self._mistake = False  # has ended the study
        self._lock = threading.Lock()

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        with self._lock:
            self._zero_s = self._now() - row.at_s
            if isinstance(row, ReportRow):
                self._report(row)
            self._leases.follow(row)
            if isinstance(row, (AttemptRow, LimitRow, StudyRow)):
                self._waiting = None
            elif isinstance(row, WaitRow):
                self._waiting = row
            if isinstance(row, AttemptRow | EndRow):
                self._cold.follow(row)
            if isinstance(row, AttemptRow):
                self._attempt(row)
            elif isinstance(row, DecisionRow):
                self._decisions[row.decision] += 1
                if row.decision in ("pause", "cut"):
                    self._states[row.trial_id] = "paused"
            elif isinstance(row, LeaseRow):
                self._bill(row)
            elif isinstance(row, EndRow):
                self._end(row)
            elif isinstance(row, MistakeRow):
                self._mistake = True
            elif isinstance(row, StudyRow) and self._mistake:
                self._begin_again()

    def read(self) -> Iterator[Reading]:
        """Every metric but the driver's own signs of life, as of now."""
        with self._lock:
            found = list(self._read(self._now() - self._zero_s))
        yield from found

    def _begin_again(self) -> None:
        """All trials run again, and none is censored any more; what they cost stays."""
        for trial_id, state in self._states.items():
            self._states[trial_id] = "pending"
            if state in CENSORED:
                for phase, seconds in self._trial_s[trial_id].items():
                    self._billed_s["censored", phase] -= seconds
                    self._billed_s[_phase(trial_id), phase] += seconds
        self._reports.clear()
        self._lost_searches.clear()
        self._best.clear()
        self._mistake = False

    def _attempt(self, row: AttemptRow) -> None:
        self._begun += 1
        self._attempts[row.trial_id] = row
        self._states[row.trial_id] = "running"
        self._reports.pop(row.trial_id, None)
        if row.group_id in self._groups:
            self._hand_overs_s.append(row.setup_s)
        self._groups.add(row.group_id)

    def _report(self, row: ReportRow) -> None:
        heard_s = self._leases.open[row.trial_id, row.attempt].heard_s
        self._longest_s = max(self._longest_s, row.at_s - heard_s)
        self._reports[row.trial_id] = row
        kind = self._attempts[row.trial_id].phase
        if math.isfinite(row.val_accuracy):
            self._best[kind] = max(self._best.get(kind, 0.0), row.val_accuracy)

    def _bill(self, row: LeaseRow) -> None:
        self._lost += row.reason == "lost"
        attempt = self._attempts[row.trial_id]
        if attempt.lease_id == row.lease_id and self._states[row.trial_id] == "running":
            self._states[row.trial_id] = "pending"  # its process or its driver died, and it will be tried again
        kind = self._kind(row.trial_id)
        for phase, seconds in row.phases_s.items():
            self._billed_s[kind, phase] += row.devices * seconds
            self._trial_s[row.trial_id][phase] += row.devices * seconds
        left_out = (row.trial_id, row.attempt) in self._cold.attempts and not self._plan.config.report.include_setup
        compared_s = row.billed_s - (row.phases_s["setup"] if left_out else 0.0)
        self._compared_s[row.trial_id] += row.devices * compared_s
        if attempt.phase == "confirm":
            self._hypervolume = None

    def _end(self, row: EndRow) -> None:
        attempt = self._attempts.get(row.trial_id)
        before = self._kind(row.trial_id)
        self._states[row.trial_id] = row.outcome
        if row.outcome in CENSORED:
            for phase, seconds in self._trial_s[row.trial_id].items():
                self._billed_s[before, phase] -= seconds
                self._billed_s["censored", phase] += seconds
        if attempt is None:
            return
        cell = Cell(attempt.batch_size, attempt.world_size, attempt.variant)
        if attempt.phase == "search":
            self._lost_searches[cell] += row.outcome in ("diverged", "failed", "infeasible")
        elif row.final_val_accuracy is not None:
            self._finals[cell][row.trial_id] = row.final_val_accuracy
            self._hypervolume = None

    def _kind(self, trial_id: str) -> str:
        return "censored" if self._states.get(trial_id) in CENSORED else _phase(trial_id)

    def _read(self, at_s: float) -> Iterator[Reading]:
        yield from self._read_trials()
        device_s = self._device_s(at_s)
        for kind in KINDS:
            for phase in (*PHASES, UNREPORTED):
                yield Reading("study_device_hours", device_s[kind, phase] / 3600, {"kind": kind, "phase": phase})
        open_leases = self._leases.open
        yield Reading("study_devices_leased", sum(lease.devices for lease in open_leases.values()), {})
        running = [trial for trial, state in self._states.items() if state == "running"]
        speed = sum(self._reports[trial].samples_per_s for trial in running if trial in self._reports)
        yield Reading("study_samples_per_second", speed, {})
        for kind, best in self._best.items():
            yield Reading("study_best_val_accuracy", best, {"kind": kind})
        yield Reading("study_frontier_hypervolume", self._area(), {})
        for decision in DECISIONS:
            yield Reading("study_decisions", self._decisions[decision], {"decision": decision})
        if self._hand_overs_s:
            yield Reading("study_hand_over_seconds", median(self._hand_overs_s), {"stat": "median"})
            yield Reading("study_hand_over_seconds", max(self._hand_overs_s), {"stat": "max"})
        yield Reading("study_attempts", self._begun, {})
        yield Reading("study_lost_leases", self._lost, {})
        waiting = self._waiting
        yield Reading("study_lacking_ranks", waiting.needed - waiting.ranks if waiting else 0, {})
        wait_h = (at_s - waiting.at_s) / 3600 if waiting else 0.0
        yield from self._read_spend(sum(device_s.values()) / 3600, at_s / 3600, wait_h)
        heard = [open_leases[trial, self._attempts[trial].attempt].heard_s for trial in running]
        yield Reading("study_quiet_seconds", at_s - min(heard, default=at_s), {})
        if self._longest_s:
            yield Reading("study_longest_interval_seconds", self._longest_s, {})

    def _read_trials(self) -> Iterator[Reading]:
        counts = Counter((_phase(trial), state) for trial, state in self._states.items() if state != "pending")
        planned = {"search": len(self._plan.search), "confirm": self._plan.n_confirm}
        # A cell whose every search trial diverged, failed or did not fit has no rate to confirm.
        searched = Counter(spec.cell for spec in self._plan.search)
        hopeless = sum(self._lost_searches[cell] == n for cell, n in searched.items())
        planned["confirm"] -= hopeless * self._plan.config.confirm.seeds
        for kind in TRIAL_KINDS:
            counts[kind, "pending"] = planned[kind] - sum(counts[kind, state] for state in STATES[1:])
            for state in STATES:
                yield Reading("study_trials", counts[kind, state], {"kind": kind, "state": state})

    def _device_s(self, at_s: float) -> Bill:
        """Device-seconds by kind and phase; open leases as far as their groups have told, the rest unreported."""
        total = self._billed_s.copy()
        for lease in self._leases.open.values():
            kind = self._kind(lease.trial_id)
            billed_s, phases_s = lease.bill(lease.heard_s, "hand_over")
            for phase, seconds in phases_s.items():
                total[kind, phase] += lease.devices * seconds
            total[kind, UNREPORTED] += lease.devices * max(at_s - lease.opened_s - billed_s, 0.0)
        return total

    def _read_spend(self, device_h: float, wall_h: float, wait_h: float) -> Iterator[Reading]:
        config = self._plan.config
        usd = config.price.usd_per_device_hour
        if usd is not None:
            yield Reading("study_spend_usd", usd * device_h, {})
        for limit, (spent, allowed) in config.limits.against(device_h, wall_h, usd, wait_h).items():
            yield Reading("study_limit_used_ratio", spent / allowed, {"limit": limit})

    def _area(self) -> float:
        """The hypervolume, computed anew only after a confirm trial has ended or was billed."""
        if self._hypervolume is None:
            unbilled = {trial for trial, _ in self._leases.open}
            points = [
                (fmean(self._compared_s[trial] / 3600 for trial in billed), fmean(billed.values()))
                for finals in self._finals.values()
                if (billed := {trial: final for trial, final in finals.items() if trial not in unbilled})
            ]
            dearest = max((cost for cost, _ in points), default=0.0)
            self._hypervolume = hypervolume(np.array(points), (dearest, 0.0))
        return self._hypervolume


def _phase(trial_id: str) -> str:
    """search or confirm, by which every trial's name begins."""
    return trial_id.partition("-")[0]
