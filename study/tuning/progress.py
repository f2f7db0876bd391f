"""Decides what runs next, from the plan and the state of the study."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from study.config.schema import AshaConfig, GridConfig, RidgeConfig
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, ReportRow, StudyRow
from study.ledger.state import StudyState
from study.measurement import CurvePoint
from study.planning.trials import Cell, Plan, TrialSpec, by_cell, in_unit
from study.schedulers.base import Action, Policy
from study.tuning.policies import make_policy
from study.tuning.same_mistake import same_mistake

if TYPE_CHECKING:
    from study.analysis.confirmation import SeedWanted
    from study.analysis.statistics.samples import Sample

AUDIT = 0xA0D17  # sets its draws apart from those of rates and seeds
SEEDS_AT_ONCE = 2  # added seeds that have not ended: with more, they would be chosen without knowing one another


@dataclass(frozen=True)
class Assignment:
    """The next trial for a group."""

    spec: TrialSpec
    from_updates: int  # where the trial goes on if it can; 0 for its beginning
    pause_at: frozenset[int]  # updates after which the policy may pause it
    wait_at: frozenset[int]  # updates after which it may stop or pause it


class Progress:
    """Schedules one study. Live and after a resume, policies learn from rows and from nothing else.

    World sizes come one after the other, since each needs its own groups. Each world size has its own policy.
    """

    def __init__(self, plan: Plan, rows: Iterable[AnyRow] = ()) -> None:
        self.plan = plan
        self.objective = plan.config.objective
        self.state = StudyState(whole_curves=False)  # of an ended trial the last report counts
        order = list(plan.search)
        # No batch size meets the policy first.
        random.Random(plan.config.seed).shuffle(order)
        self._index = {spec.trial_id: index for index, spec in enumerate(plan.search)}
        self._members = by_cell(plan.search)
        self._begin(order)
        for row in rows:
            self.follow(row)
        # The driver died under them, or a limit cut them.
        self._again += [spec for spec in self._order if self._waits_again(spec.trial_id)]
        self._out.clear()

    def _begin(self, order: list[TrialSpec]) -> None:
        """Start with nothing run, or nothing that counts any more; search trials come in this order."""
        self._order = order
        self._untried = dict.fromkeys(self.plan.cells)  # cells of which no trial has been handed out
        self.verdicts: dict[str, Action] = {}  # on the last report of a search trial
        self._undecided: dict[str, ReportRow] = {}  # search trials' reports that their policy has not judged
        self._confirm: dict[Cell, tuple[TrialSpec, ...]] = {}  # of cells whose search is finished
        self._policies = {
            world_size: make_policy(self.plan, [spec for spec in order if spec.batch.world_size == world_size])
            for world_size in self.plan.config.hardware.world_sizes
        }
        self._out: set[str] = set()  # with a group, or about to be
        self._again: list[TrialSpec] = []  # to be handed out first
        # The seed to add, as of so many ended trials and added seeds: to find it takes a while.
        self._sought: tuple[tuple[int, int], tuple[TrialSpec, SeedWanted] | None] | None = None

    def follow(self, row: AnyRow) -> None:
        """Take in the next row, and pass on to the trial's policy what is new to it."""
        if isinstance(row, StudyRow) and self.state.mistake is not None:
            # Those that failed come last: others may have better rates.
            self._begin(sorted(self._order, key=lambda spec: spec.trial_id in self.state.mistaken))
        elif isinstance(row, DecisionRow):
            self._judge(row.trial_id)  # before the decision may say that no policy judges it any more
        self.state.apply(row)
        if isinstance(row, AttemptRow):
            self._untried.pop(Cell(row.batch_size, row.world_size, row.variant), None)
            self._undecided.pop(row.trial_id, None)  # lost with the driver: the trial will come there again
            self._out.add(row.trial_id)
            if policy := self._policy(row.trial_id):
                policy.begin(row.trial_id)
        elif isinstance(row, ReportRow):
            if not row.diverged and self._policy(row.trial_id):  # it sets no bar for others
                self._undecided[row.trial_id] = row
        elif isinstance(row, DecisionRow):
            # To its policy, a trial that was cut runs on: the driver that goes on hands it out again.
            if row.decision == "pause":
                self._out.discard(row.trial_id)
        elif isinstance(row, EndRow):
            self._out.discard(row.trial_id)
            self._again = [spec for spec in self._again if spec.trial_id != row.trial_id]
            if row.outcome != "stopped" and (policy := self._policy(row.trial_id)):
                policy.leave(row.trial_id, row.outcome == "completed")

    def verdict(self, trial_id: str) -> Action:
        """Return the verdict on a trial that has just reported. Confirm trials and audited ones always go on."""
        self._judge(trial_id)
        return self.verdicts[trial_id] if self._policy(trial_id) else "continue"

    def is_to_be_audited(self, trial_id: str) -> bool:
        """Return whether a search trial trains to its end even if it is stopped; the study's seed decides it."""
        scheduler = self.plan.config.scheduler
        if isinstance(scheduler, GridConfig):
            return False
        draw = np.random.default_rng([self.plan.config.seed, AUDIT, self._index[trial_id]]).random()
        return bool(draw < scheduler.audit)

    def dropped(self) -> list[str]:
        """Return the trials that will not go on, or not begin, and of which no row says so yet."""
        dropped = [trial_id for policy in self._policies.values() for trial_id in policy.dropped()]
        return [trial_id for trial_id in dropped if not self._judged(trial_id)]

    def seed_to_add(self) -> tuple[TrialSpec, SeedWanted] | None:
        """Return the next confirm trial to run beyond those that are to be run so far, with why; None if there is none.

        There is one only if the config confirms until it is decided which configuration to choose, the first seeds of
        all have ended, fewer than SEEDS_AT_ONCE added ones have not, and it is not decided yet.
        """
        if self.plan.config.confirm.at_most is None or self.ends_early:
            return None
        seen = len(self.state.ended), len(self.state.seeds_added)
        if self._sought is None or self._sought[0] != seen:
            self._sought = seen, self._seek_seed()
        return self._sought[1]

    def _seek_seed(self) -> tuple[TrialSpec, SeedWanted] | None:
        first, cells = self.plan.config.confirm.seeds, self.plan.cells
        if not all(map(self._searched, cells)):
            return None
        running = [
            spec for cell in cells for spec in self._confirm_trials(cell) if spec.trial_id not in self.state.ended
        ]
        if len(running) >= SEEDS_AT_ONCE or any(spec.trial_id not in self.state.seeds_added for spec in running):
            return None
        # The statistics import SciPy, which other studies do without.
        from study.analysis.confirmation import SeedWanted, seed_wanted
        from study.analysis.recommend import CONFIDENCE

        spare = {
            cell: [spec for spec in self._confirm[cell][first:] if spec.trial_id not in self.state.seeds_added]
            for cell in cells
            if self._confirm_trials(cell)
        }
        samples = {cell: self._sample(cell) for cell in spare}
        known = {cell: sample for cell, sample in samples.items() if sample is not None}
        on_their_way = Counter(spec.cell for spec in running)
        for cell in spare:  # seeds that failed are replaced, so that every configuration has two
            if cell not in known and spare[cell]:
                return None if on_their_way[cell] else (spare[cell][0], SeedWanted(0, cell.label, None))
        if not known:
            return None
        wanted = seed_wanted(
            tuple(known.values()),
            self.plan.config.margin,
            CONFIDENCE,
            [on_their_way[cell] for cell in known],
            [len(spare[cell]) for cell in known],
        )
        return None if wanted is None else (spare[list(known)[wanted.place]][0], wanted)

    def next_assignment(self, ranks: int) -> Assignment | None:
        """Return what to run next on a cluster that holds so many ranks; None while there is nothing to start."""
        if self.ends_early:
            return None
        for world_size in self._policies:
            if self._finished(world_size):
                continue
            full = len(self._out) >= max(ranks // world_size, 1)
            spec = None if full else self._next(world_size)
            if spec is None:
                return None
            self._out.add(spec.trial_id)
            self._untried.pop(spec.cell, None)
            pause_at: frozenset[int] = frozenset()
            wait_at: frozenset[int] = frozenset()
            if policy := self._policy(spec.trial_id):
                policy.begin(spec.trial_id)
                pause_at = _reports_at(spec, spec.report_shares, policy.pauses(spec.trial_id))
                wait_at = self._decided_at(spec, policy)
            return Assignment(spec, self.state.trial(spec.trial_id).resume_updates, pause_at, wait_at)
        return None

    def again(self, spec: TrialSpec) -> bool:
        """Queue a trial again whose attempt was lost. Returns False if it was tried too often."""
        if self.state.trial(spec.trial_id).attempts_in_a_row > self.plan.config.max_retries:
            return False
        self._out.discard(spec.trial_id)
        self._again.append(spec)
        return True

    @property
    def same_mistake(self) -> tuple[str, int] | None:
        """(error text, failed trials) if all trials so far failed with one mistake, at least one of every batch size.

        Nothing new is handed out then: trials that still run show whether they get further.
        """
        return same_mistake(self.state, self.plan.cells, len(self.plan.search) or self.plan.n_confirm)

    @property
    def idle(self) -> bool:
        """Whether no trial runs or waits to be tried again."""
        return not self._out and not self._again

    @property
    def ends_early(self) -> bool:
        """Whether a limit or a mistake has ended the study, so that nothing more is handed out."""
        return self.state.limit is not None or self.state.mistake is not None

    @property
    def finished(self) -> bool:
        """Whether every trial that the config asks for has ended."""
        return all(self._finished(world_size) for world_size in self._policies)

    @property
    def needed(self) -> int:
        """Ranks of a trial of the current world size; 0 if nothing is left to run."""
        if self.ends_early:
            return 0
        return next((world_size for world_size in self._policies if not self._finished(world_size)), 0)

    def wants_groups(self, world_size: int) -> bool:
        """Return whether a trial may yet be handed out to a group of this size."""
        if self.ends_early:
            return False
        if any(not self._searched(cell) for cell in self._cells(world_size)):
            return True
        return any(self._waits(spec) for spec in self._late(world_size))

    def chosen_rate(self, cell: Cell) -> float | None:
        """Return the best base rate of a cell: one whose every trial met its target, in the fewest updates; else the
        one that the policy picks; else of those that completed or got furthest the one with the best mean objective
        over seeds where they ended, then the lowest mean loss. None if every trial diverged or failed.
        """
        if not self._members[cell]:
            return self.plan.rates(cell)[0]
        reached: dict[float, list[CurvePoint]] = defaultdict(list)
        completed: dict[float, list[CurvePoint]] = defaultdict(list)
        for spec in self._members[cell]:
            last = self._evidence(spec.trial_id)
            if last is not None:
                reached[spec.base_lr].append(last)
                trial = self.state.trial(spec.trial_id)
                if trial.status == "completed" and trial.audited is None:
                    completed[spec.base_lr].append(last)  # at the end of the budget, or earlier at a target
        furthest = max((row.updates for rows in reached.values() for row in rows), default=0)
        candidates = []
        for rate, rows in reached.items():
            ends = completed[rate] or [row for row in rows if row.updates == furthest]
            if ends:
                quality, loss = fmean(map(self.objective.of, ends)), fmean(row.loss for row in ends)
                met = all(map(self._met_a_target, ends))
                updates = fmean(row.updates for row in ends) if met else 0.0
                candidates.append((met, -updates, quality, -loss, rate))
        if any(met for met, *_ in candidates):
            return max(candidates)[-1]
        picked = self._policies[cell.world_size].pick([spec.trial_id for spec in self._members[cell]])
        if picked is not None:
            return self.plan.search[self._index[picked]].base_lr
        return max(candidates)[-1] if candidates else None

    def _met_a_target(self, point: CurvePoint) -> bool:
        values = ((target, point.value(target.metric)) for target in self.plan.config.targets)
        return any(value is not None and target.met_by(value) for target, value in values)

    def _judge(self, trial_id: str) -> None:
        """Pass a trial's last report on to its policy, once its verdict is asked for or a decision on it is read: a
        report that a driver left undecided has influenced nothing.
        """
        row, policy = self._undecided.pop(trial_id, None), self._policy(trial_id)
        if row is None or policy is None:
            return
        scheduler = self.plan.config.scheduler
        spec = self.plan.search[self._index[row.trial_id]]
        at = row.updates / spec.total_updates
        if isinstance(scheduler, AshaConfig):
            at = in_unit(scheduler, spec, row.updates, row.device_seconds)
        self.verdicts[trial_id] = policy.report(trial_id, at, self.objective.of(row), row.device_seconds)

    def _decided_at(self, spec: TrialSpec, policy: Policy) -> frozenset[int]:
        """Return the updates after which a policy may stop or pause a trial."""
        scheduler, lengths = self.plan.config.scheduler, spec.report_shares
        if isinstance(scheduler, AshaConfig):
            if scheduler.unit == "device_seconds":  # it is not known beforehand which report passes one
                return frozenset(spec.report_at)
            lengths = tuple(in_unit(scheduler, spec, updates, 0.0) for updates in spec.report_at)
        return _reports_at(spec, lengths, policy.decides(spec.trial_id, lengths))

    def _policy(self, trial_id: str) -> Policy | None:
        """Return the policy that judges a trial; None for a confirm trial and an audited one."""
        index = self._index.get(trial_id)
        if index is None or trial_id in self.state.audited:
            return None
        return self._policies[self.plan.search[index].batch.world_size]

    def _evidence(self, trial_id: str) -> CurvePoint | None:
        """Return the report that a search trial is judged by, once it has ended; None if it gives no evidence."""
        trial = self.state.trial(trial_id)
        if trial.audited is not None:
            return trial.audited
        if trial.status not in ("completed", "stopped") or trial.last is None or trial.last.diverged:
            return None
        return trial.last

    def _judged(self, trial_id: str) -> bool:
        """Return whether a search trial counts as it is: it has ended, or trains on only as a check."""
        return trial_id in self.state.ended or trial_id in self.state.audited

    def _waits_again(self, trial_id: str) -> bool:
        """Return whether the rows leave a trial with a group, and the trial is not to be stopped."""
        return trial_id in self._out and not self.state.trial(trial_id).stopping

    def _next(self, world_size: int) -> TrialSpec | None:
        for spec in self._again:
            if spec.batch.world_size == world_size:
                self._again.remove(spec)
                return spec
        if self.same_mistake is not None:
            return None
        chosen = self._policies[world_size].choose()
        wanted = None if chosen is None else self.plan.search[self._index[chosen]]
        # First one of every batch size: if all of them fail alike, it is known soon.
        for spec in self._order:
            if spec.cell in self._untried and spec.batch.world_size == world_size:
                return wanted if wanted is not None and wanted.cell in self._untried else spec
        if wanted is not None:
            return wanted
        late = [spec for spec in self._late(world_size) if self._waits(spec)]
        return min(late, key=lambda spec: spec.cell not in self._untried, default=None)

    def _late(self, world_size: int) -> Iterator[TrialSpec]:
        """Yield trials that follow from the search so far: confirm trials, then the rest of the audited ones.

        A batch size is confirmed as soon as its search has ended, so that groups need not wait for the others.
        """
        for cell in self._cells(world_size):
            yield from self._confirm_trials(cell)
        for trial_id in self.state.audited:
            spec = self.plan.search[self._index[trial_id]]
            if spec.batch.world_size == world_size:
                yield spec

    def _waits(self, spec: TrialSpec) -> bool:
        return spec.trial_id not in self.state.ended and spec.trial_id not in self._out

    def _finished(self, world_size: int) -> bool:
        if not all(self._searched(cell) for cell in self._cells(world_size)):
            return False
        if not all(spec.trial_id in self.state.ended for spec in self._late(world_size)):
            return False
        return self.seed_to_add() is None

    def _sample(self, cell: Cell) -> Sample | None:
        """Return final objective and cost of a cell's completed confirm trials; None of under two. Where the report's
        cost is time, money or energy, it is device-seconds of training and validation.
        """
        from study.analysis.statistics.samples import Sample

        done = [(spec, self.state.trial(spec.trial_id)) for spec in self._confirm_trials(cell)]
        ends = [(spec, trial.last) for spec, trial in done if trial.status == "completed" and trial.last is not None]
        if len(ends) < 2:
            return None
        return Sample(
            cell.label,
            tuple(self._cost(point) for _, point in ends),
            tuple(self.objective.of(point) for _, point in ends),
            tuple(spec.seed_index for spec, _ in ends),
        )

    def _cells(self, world_size: int) -> list[Cell]:
        return [cell for cell in self.plan.cells if cell.world_size == world_size]

    def _searched(self, cell: Cell) -> bool:
        return all(self._judged(spec.trial_id) for spec in self._members[cell])

    def _cost(self, point: CurvePoint) -> float:
        axis = self.plan.config.report.costs[0]
        if axis in ("samples", "updates"):
            return float(point.samples if axis == "samples" else point.updates)
        return point.device_seconds

    def _confirm_trials(self, cell: Cell) -> tuple[TrialSpec, ...]:
        """Return a cell's confirm trials that are to be run, none before its search has ended; which there can be is
        cached, since Tune's loop asks often.
        """
        if cell not in self._confirm:
            # Ridge may change its mind on one batch size by the scores of another.
            together = isinstance(self.plan.config.scheduler, RidgeConfig)
            if not all(map(self._searched, self._cells(cell.world_size) if together else [cell])):
                return ()
            rate = self.chosen_rate(cell)
            self._confirm[cell] = () if rate is None else self.plan.confirm_trials(cell, rate)
        specs, first = self._confirm[cell], self.plan.config.confirm.seeds
        if len(specs) == first:
            return specs
        return (*specs[:first], *(spec for spec in specs[first:] if spec.trial_id in self.state.seeds_added))


def _reports_at(spec: TrialSpec, lengths: Sequence[float], chosen: Collection[float]) -> frozenset[int]:
    """Return the updates of the reports at the chosen lengths; `lengths` are those of all reports."""
    return frozenset(updates for updates, at in zip(spec.report_at, lengths, strict=True) if at in chosen)
