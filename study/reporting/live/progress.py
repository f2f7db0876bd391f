"""How far a study is: counts, spend against its limits, and an estimate of the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from study.config.sections import LimitName
from study.ledger.schema import AttemptRow, Outcome
from study.ledger.state import StudyState, TrialState
from study.planning.trials import Cell, Phase, Plan

_ENOUGH = 2  # finished trials before an estimate of the time left is shown
Kind = tuple[str, Cell]  # phase and cell: trials that should take about as long


@dataclass(frozen=True)
class PhaseCount:
    """Counts of the trials of one phase, by what became of them."""

    planned: int
    running: int
    outcomes: Mapping[Outcome, int]  # of finished trials

    @property
    def finished(self) -> int:
        """Trials that have ended, whatever their outcome."""
        return sum(self.outcomes.values())


class StudyProgress:
    """Reads how far a study is from its plan and its state, which may take in more rows between two calls."""

    def __init__(self, plan: Plan, state: StudyState) -> None:
        self.state = state
        self._plan, self._config = plan, plan.config
        self._first = Counter[Kind]({("search", cell): plan.n_search(cell) for cell in plan.cells})
        self._first.update({("confirm", cell): plan.config.confirm.seeds for cell in plan.cells})
        confirm = {cell: plan.confirm_trials(cell, base_lr=1.0) for cell in plan.cells}  # as long at any rate
        self._cell_of_seed = {spec.trial_id: cell for cell, specs in confirm.items() for spec in specs}
        # Of a batch that grows, an epoch has fewer and fewer updates.
        self._epochs = {cell: specs[0].epochs_at(specs[0].total_updates) for cell, specs in confirm.items()}

    @property
    def _planned(self) -> Counter[Kind]:
        """The trials to run so far, with the seeds that were added to decide."""
        added = (("confirm", self._cell_of_seed[trial_id]) for trial_id in self.state.seeds_added)
        return self._first + Counter[Kind](added)

    @property
    def planned(self) -> int:
        """Trials in the plan, of both phases."""
        return self._planned.total()

    @property
    def limits(self) -> dict[LimitName, tuple[float, float]]:
        """(spent, allowed) of each limit that the study has, as of the last row, in the limit's unit."""
        state = self.state
        wait_h = 0.0 if state.waiting is None else (state.now_s - state.waiting.at_s) / 3600
        usd = self._config.price.usd_per_device_hour
        return self._config.limits.against(state.device_h(state.now_s), state.now_s / 3600, usd, wait_h)

    def count(self, phase: Phase) -> PhaseCount:
        """Return the trials of a phase by where they are."""
        return PhaseCount(
            planned=sum(n for (of, _), n in self._planned.items() if of == phase),
            running=sum(attempt.phase == phase for _, attempt in self.state.running),
            outcomes={outcome: n for (of, outcome), n in self.state.outcomes.items() if of == phase},
        )

    def epochs(self, trial: TrialState) -> tuple[float, float] | None:
        """Return the epochs that a trial has trained by its last report, lost ones left out, and those of a whole
        trial; None before it begins.
        """
        if trial.attempt is None:
            return None
        return (trial.last.epochs if trial.last else 0.0), self._epochs[_kind(trial.attempt)[1]]

    def left_s(self) -> float | None:
        """Estimate the seconds left: trials to come need as many device-seconds as finished ones of their kind, at the
        pace so far. None until two trials have finished, and when none is left.
        """
        state = self.state
        worked_device_s = sum(
            lease.devices * _worked_s(lease.billed_s, lease.phases_s)
            for trial in state.trials.values()
            for lease in trial.leases
        )
        if state.first_attempt_s is None or len(state.ended) < _ENOUGH or worked_device_s <= 0:
            return None
        per_rank = self._config.hardware.devices_per_rank
        finished = list(self._finished())
        left_device_s = sum(
            kind[1].world_size * per_rank * _expected_s(kind, finished) * n
            for kind, n in self._remaining().items()
            if n > 0
        )
        elapsed_s = state.now_s - state.first_attempt_s
        return left_device_s * elapsed_s / worked_device_s if left_device_s > 0 and elapsed_s > 0 else None

    def _remaining(self) -> dict[Kind, float]:
        """Return the trials of each kind still to train; of a running one, the part that is left."""
        left: dict[Kind, float] = dict(self._planned)
        for trial, attempt in self.state.begun:
            kind = _kind(attempt)
            if trial.end is not None:
                left[kind] = left.get(kind, 0.0) - 1
            elif trial.status == "running" and trial.last is not None:
                left[kind] = left.get(kind, 0.0) - trial.last.updates / attempt.total_updates
        never_begun = {trial_id for trial_id, trial in self.state.ended.items() if trial.attempt is None}
        for spec in self._plan.search if never_begun else ():  # to list it draws rates, which takes NumPy
            if spec.trial_id in never_begun:
                left["search", spec.cell] -= 1
        return left

    def _finished(self) -> Iterator[tuple[Kind, float]]:
        """Yield the kind of each billed trial that has ended, and its seconds of work per device, lost leases left
        out.
        """
        for trial in self.state.ended.values():
            kept = [lease for lease in trial.current_leases if lease.reason != "lost"]
            if trial.attempt is not None and kept:
                yield _kind(trial.attempt), sum(_worked_s(lease.billed_s, lease.phases_s) for lease in kept)


def _worked_s(billed_s: float, phases_s: Mapping[str, float]) -> float:
    return billed_s - phases_s.get("setup", 0.0)


def _expected_s(kind: Kind, finished: list[tuple[Kind, float]]) -> float:
    """Return seconds of work per device: the mean of the same kind, else of the same cell, else of all finished."""
    same_kind = [worked_s for of, worked_s in finished if of == kind]
    same_cell = [worked_s for (_, cell), worked_s in finished if cell == kind[1]]
    known = same_kind or same_cell or [worked_s for _, worked_s in finished]
    return fmean(known) if known else 0.0


def _kind(attempt: AttemptRow) -> Kind:
    return attempt.phase, Cell(attempt.batch_size, attempt.world_size, attempt.variant)
