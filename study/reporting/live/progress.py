"""How far a study is, row by row: counts, device-hours, and a guess at the time left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from study.config.sections import LimitName
from study.ledger.billing import Spent
from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, LimitRow, MistakeRow, ReportRow, StudyRow, WaitRow
from study.planning.trials import Cell, Plan

_ENOUGH = 2  # finished trials before a guess at the time left is worth showing
Kind = tuple[str, Cell]  # phase and cell: trials that should take about as long


@dataclass(frozen=True)
class PhaseCount:
    """Trials of one phase."""

    planned: int
    over: int
    running: int
    outcomes: Mapping[str, int]


class Tracker:
    """Follows the rows of one study."""

    def __init__(self, plan: Plan, rows: Iterable[AnyRow] = ()) -> None:
        self.billed_device_h = 0.0
        self.running: dict[str, AttemptRow] = {}
        self.reports: dict[str, ReportRow] = {}
        self.attempts: dict[str, AttemptRow] = {}
        self.ends: dict[str, EndRow] = {}
        self.cut: LimitRow | None = None
        self.mistake: MistakeRow | None = None  # that has ended the study
        self.waiting: WaitRow | None = None  # for a larger cluster
        self._config, self._spent = plan.config, Spent()
        self._planned = Counter[Kind]((spec.phase, spec.cell) for spec in plan.search)
        self._planned.update({("confirm", cell): plan.config.confirm.seeds for cell in plan.cells})
        self._worked_s: dict[str, float] = defaultdict(float)  # by trial, per device, without setup
        self._worked_device_s = 0.0
        self._first_s: float | None = None
        self._now_s = 0.0
        for row in rows:
            self.follow(row)

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        self._now_s = row.at_s
        self._spent.follow(row)
        if isinstance(row, (StudyRow, LimitRow, AttemptRow)):
            self.waiting = None
        if isinstance(row, StudyRow):
            self.running.clear()  # a driver that died left its trials without an end
            if self.mistake is not None:  # all trials begin again
                self.ends.clear()
                self.reports.clear()
                self._worked_s.clear()
            self.cut = self.mistake = None
        elif isinstance(row, LimitRow):
            self.cut = row
        elif isinstance(row, MistakeRow):
            self.mistake = row
        elif isinstance(row, WaitRow):
            self.waiting = row
        elif isinstance(row, AttemptRow):
            self.attempts[row.trial_id] = self.running[row.trial_id] = row
            if not row.from_updates:
                self.reports.pop(row.trial_id, None)
            if self._first_s is None:
                self._first_s = row.at_s
        elif isinstance(row, ReportRow):
            self.reports[row.trial_id] = row
        elif isinstance(row, EndRow):
            self.ends[row.trial_id] = row
            self.running.pop(row.trial_id, None)
        elif isinstance(row, LeaseRow):
            self._follow_lease(row)

    def _follow_lease(self, lease: LeaseRow) -> None:
        self.billed_device_h += lease.billed_device_h
        attempt = self.running.get(lease.trial_id)
        if attempt is not None and attempt.lease_id == lease.lease_id:
            del self.running[lease.trial_id]
        worked_s = lease.billed_s - lease.phases_s.get("setup", 0.0)
        self._worked_device_s += lease.devices * worked_s
        if lease.reason != "lost":
            self._worked_s[lease.trial_id] += worked_s

    @property
    def planned(self) -> int:
        """Trials that the plan means, both phases."""
        return self._planned.total()

    @property
    def of_limits(self) -> dict[LimitName, tuple[float, float]]:
        """(spent, allowed) of each limit that the study has, as of the last row."""
        device_h, usd = self._spent.device_h(self._now_s), self._config.price.usd_per_device_hour
        wait_h = 0.0 if self.waiting is None else (self._now_s - self.waiting.at_s) / 3600
        return self._config.limits.against(device_h, self._now_s / 3600, usd, wait_h)

    def count(self, phase: str) -> PhaseCount:
        """Where the trials of a phase stand."""
        outcomes = Counter[str](end.outcome for name, end in self.ends.items() if self._phase(name) == phase)
        return PhaseCount(
            planned=sum(n for (of, _), n in self._planned.items() if of == phase),
            over=outcomes.total(),
            running=sum(attempt.phase == phase for attempt in self.running.values()),
            outcomes=outcomes,
        )

    def epochs(self, trial_id: str) -> tuple[float, float] | None:
        """Epochs that the trial's last attempt has trained, and those of a whole trial."""
        attempt, report = self.attempts.get(trial_id), self.reports.get(trial_id)
        if attempt is None:
            return None
        return (report.epochs if report else 0.0), attempt.total_updates / attempt.updates_per_epoch

    def left_s(self) -> float | None:
        """About how many seconds are left: trials to come take as long as those of their kind that are over, at
        the pace so far. None until enough are over, and when none is left.
        """
        if self._first_s is None or len(self.ends) < _ENOUGH or self._worked_device_s <= 0:
            return None
        left_device_s = sum(
            kind[1].world_size * self._expected_s(kind) * n for kind, n in self._remaining().items() if n > 0
        )
        elapsed_s = self._now_s - self._first_s
        return left_device_s * elapsed_s / self._worked_device_s if left_device_s > 0 and elapsed_s > 0 else None

    def _remaining(self) -> dict[Kind, float]:
        """Trials of each kind still to be trained, a running one by the part that it lacks."""
        left: dict[Kind, float] = dict(self._planned)
        for trial_id in self.ends:
            if trial_id in self.attempts:
                kind = _kind(self.attempts[trial_id])
                left[kind] = left.get(kind, 0.0) - 1
        for trial_id, attempt in self.running.items():
            report = self.reports.get(trial_id)
            kind = _kind(attempt)
            left[kind] = left.get(kind, 0.0) - (report.updates / attempt.total_updates if report else 0.0)
        return left

    def _expected_s(self, kind: Kind) -> float:
        """Seconds of work per device: the mean of the same kind, else of the same cell, else of all that are over."""
        over = [
            (_kind(self.attempts[trial_id]), worked_s)
            for trial_id, worked_s in self._worked_s.items()
            if trial_id in self.ends and trial_id in self.attempts
        ]
        same_kind = [worked_s for of, worked_s in over if of == kind]
        same_cell = [worked_s for (_, cell), worked_s in over if cell == kind[1]]
        known = same_kind or same_cell or [worked_s for _, worked_s in over]
        return fmean(known) if known else 0.0

    def _phase(self, trial_id: str) -> str:
        attempt = self.attempts.get(trial_id)
        return attempt.phase if attempt else trial_id.partition("-")[0]


def _kind(attempt: AttemptRow) -> Kind:
    return attempt.phase, Cell(attempt.batch_size, attempt.world_size, attempt.variant)
