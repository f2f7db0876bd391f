"""The values of the metrics, from the state of a study."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from study.cluster.metrics.definitions import DECISIONS, KINDS, STATES, TRIAL_KINDS, UNREPORTED
from study.ledger.schema import CENSORED, PHASES, AnyRow, LeaseRow
from study.ledger.state import StudyState, TrialState
from study.pareto.fronts import hypervolume
from study.planning.trials import Cell, Plan


@dataclass(frozen=True)
class Reading:
    """The value of one metric now."""

    name: str
    value: float
    tags: dict[str, str]


Bill = defaultdict[tuple[str, str], float]  # device-seconds by kind of trial and phase


class MetricReadings:
    """Follows the rows of one study, from the first. One thread follows, another may read."""

    def __init__(self, plan: Plan, now: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._now = plan, now
        self._zero_s = now()
        self._state = StudyState(whole_curves=False)
        self._lock = threading.Lock()

    def follow(self, row: AnyRow) -> None:
        """Take in the next row, written just now."""
        with self._lock:
            self._zero_s = self._now() - row.at_s
            self._state.apply(row)

    def read(self) -> list[Reading]:
        """Return every metric but the driver's own signs of life, as of now."""
        with self._lock:
            return list(self._read(self._now() - self._zero_s))

    def _read(self, at_s: float) -> Iterator[Reading]:
        state = self._state
        yield from self._read_trials()
        device_s = self._device_s(at_s)
        for kind in KINDS:
            for phase in (*PHASES, UNREPORTED):
                yield Reading("study_device_hours", device_s[kind, phase] / 3600, {"kind": kind, "phase": phase})
        yield Reading("study_devices_leased", sum(lease.devices for lease in state.open_leases.values()), {})
        speed = sum(trial.last.samples_per_s for trial, _ in state.running if trial.last and trial.reported)
        yield Reading("study_samples_per_second", speed, {})
        if tokens := self._plan.config.tokens_per_sample:
            yield Reading("study_tokens_per_second", speed * tokens, {})
        for kind, best in state.best.items():
            yield Reading("study_best_objective", best, {"kind": kind, "metric": state.objective.metric})
        yield Reading("study_frontier_hypervolume", self._hypervolume(), {})
        for decision in DECISIONS:
            yield Reading("study_decisions", state.decisions[decision], {"decision": decision})
        if state.hand_overs_s:
            yield Reading("study_hand_over_seconds", median(state.hand_overs_s), {"stat": "median"})
            yield Reading("study_hand_over_seconds", max(state.hand_overs_s), {"stat": "max"})
        yield Reading("study_attempts", state.attempts, {})
        yield Reading("study_lost_leases", state.lost_leases, {})
        waiting = state.waiting
        yield Reading("study_lacking_ranks", waiting.needed - waiting.ranks if waiting else 0, {})
        wait_h = (at_s - waiting.at_s) / 3600 if waiting else 0.0
        yield from self._read_spend(state.device_h(at_s), at_s / 3600, wait_h)
        leases = (state.open_leases.get((trial.trial_id, trial.attempts)) for trial, _ in state.running)
        quiet_since_s = min((lease.known_until_s for lease in leases if lease), default=at_s)
        yield Reading("study_quiet_seconds", at_s - quiet_since_s, {})
        if state.longest_interval_s:
            yield Reading("study_longest_interval_seconds", state.longest_interval_s, {})

    def _read_trials(self) -> Iterator[Reading]:
        state = self._state
        counts = Counter[tuple[str, str]]((trial.phase, trial.status) for trial in state.trials.values())
        lost_searches = Counter(
            Cell(attempt.batch_size, attempt.world_size, attempt.variant)
            for trial, attempt in state.begun
            if attempt.phase == "search" and trial.status in ("diverged", "failed", "infeasible")
        )
        planned = {"search": len(self._plan.search), "confirm": self._plan.n_confirm + len(state.seeds_added)}
        # A cell whose every search trial diverged, failed or did not fit has no rate to confirm.
        searched = Counter(spec.cell for spec in self._plan.search)
        hopeless = sum(lost_searches[cell] == n for cell, n in searched.items())
        planned["confirm"] -= hopeless * self._plan.config.confirm.seeds
        for kind in TRIAL_KINDS:
            counts[kind, "pending"] = planned[kind] - sum(counts[kind, status] for status in STATES[1:])
            for status in STATES:
                yield Reading("study_trials", counts[kind, status], {"kind": kind, "state": status})

    def _device_s(self, at_s: float) -> Bill:
        """Return device-seconds by kind and phase; open leases as far as their groups have reported, the rest as
        unreported.
        """
        total: Bill = defaultdict(float)
        for trial in self._state.trials.values():
            kind = _kind(trial)
            for closed in trial.leases:
                for phase, seconds in closed.phases_s.items():
                    total[kind, phase] += closed.devices * seconds
        for lease in self._state.open_leases.values():
            kind = _kind(self._state.trials[lease.trial_id])
            billed_s, phases_s = lease.bill(lease.known_until_s, "hand_over")
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

    def _hypervolume(self) -> float:
        """Return the area under the frontier of confirm trials that completed and are billed, in device-hours."""
        objective = self._plan.config.objective
        unbilled = {trial_id for trial_id, _ in self._state.open_leases}
        billed: dict[Cell, list[TrialState]] = defaultdict(list)
        for trial, attempt in self._state.begun:
            final = trial.end.final if trial.end else None
            if attempt.phase == "confirm" and final is not None and trial.trial_id not in unbilled:
                billed[Cell(attempt.batch_size, attempt.world_size, attempt.variant)].append(trial)
        points = [
            (
                fmean(self._compared_h(trial) for trial in trials),
                fmean(objective.quality(trial.end.final or 0.0) for trial in trials if trial.end),
            )
            for trials in billed.values()
        ]
        highest_cost = max((cost for cost, _ in points), default=0.0)
        least = objective.reference(quality for _, quality in points)
        return hypervolume(np.array(points), (highest_cost, least))

    def _compared_h(self, trial: TrialState) -> float:
        """Return a trial's device-hours as costs are compared: without the setup of groups that started for it, unless
        the study includes that.
        """
        include_setup = self._plan.config.report.include_setup
        return sum(
            lease.billed_device_h
            - (0.0 if include_setup or lease.attempt not in trial.cold_attempts else _setup_device_h(lease))
            for lease in trial.leases
        )


def _setup_device_h(lease: LeaseRow) -> float:
    return lease.devices * lease.phases_s["setup"] / 3600


def _kind(trial: TrialState) -> str:
    return "censored" if trial.status in CENSORED else trial.phase
