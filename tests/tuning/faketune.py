"""Tune's loop without Ray, on a fake clock, around the study's real searcher, scheduler, callback and books."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from study.ledger.schema import AnyRow, LeaseRow, StudyRow
from study.planning.capacity import Node
from study.planning.trials import Plan, TrialSpec
from study.training.messages import RankReport
from study.tuning.checkpoint_store import CheckpointRef
from study.tuning.leases import Death, GroupRequest
from study.tuning.ledger_writer import LedgerWriter
from study.tuning.limit_watch import LimitWatch
from study.tuning.messages import AttemptConfig, GroupInfo, StepResult
from study.tuning.progress import Progress
from study.tuning.recorder import Recorder
from study.tuning.trainable import AHEAD_S
from study.tuning.tune_callback import RecorderCallback
from study.tuning.tune_scheduler import LedgerScheduler
from study.tuning.tune_searcher import ClusterCapacity, PlanSearcher

TURN_S = 0.5  # the longest turn of the loop; a tenth of a second in Tune


class Memory:
    """A ledger that is not on disk."""

    def __init__(self) -> None:
        self.rows: list[AnyRow] = []

    def append(self, *rows: AnyRow, durable: bool = True) -> None:
        self.rows.extend(rows)


class FakeStore:
    """A checkpoint store in memory: by trial, the updates that checkpoints were taken after, the newest last."""

    def __init__(self, keep: int = 2) -> None:
        self.keep = keep
        self.held: dict[str, list[int]] = {}

    def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
        assert int(checkpoint) == updates
        held = sorted({*self.held.get(trial_id, []), updates})
        self.held[trial_id] = held[-self.keep :]

    def start(self, trial_id: str, updates: int) -> CheckpointRef | None:
        held = self.held[trial_id] = [at for at in self.held.get(trial_id, []) if at <= updates]
        return CheckpointRef("node", Path(trial_id), held[-1]) if held else None

    def remove(self, trial_id: str) -> None:
        self.held.pop(trial_id, None)

    def tidy(self, ended: Collection[str]) -> None:
        for trial_id in ended:
            self.remove(trial_id)


@dataclass(eq=False)
class Group:
    """A placement group, and the methods of its Trainable's actor that the driver calls."""

    name: str
    ranks: int
    born_s: float
    died_s: float | None = None
    info: GroupInfo | None = None
    updates: int = 0  # of its trial, at its last report
    kept_s: float = 0.0  # when a checkpoint of its trial was taken last, or its attempt began
    ahead: bool = False  # it trains on from its trial's last report
    waits: bool = False  # it was asked to wait for the decision on the next report

    @property
    def describe(self) -> Any:
        return SimpleNamespace(remote=lambda: self.info)

    @property
    def snapshot(self) -> Any:
        assert not self.ahead
        return SimpleNamespace(remote=lambda: (b"%d" % self.updates, 0.0))

    @property
    def wait_for_decisions(self) -> Any:
        assert self.ahead
        return SimpleNamespace(remote=lambda: setattr(self, "waits", True))


class FakeCluster:
    """Places a group at once and has it back when it dies. An actor has the id of its group."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}

    def creation_s(self, group_id: str) -> float:
        return 0.0

    def is_removed(self, group_id: str) -> bool:
        return self.groups[group_id].died_s is not None

    def group_of(self, actor_id: str) -> str:
        return actor_id


@dataclass(eq=False)
class FakeTrial:
    """The part of Tune's trial that the study reads."""

    config: dict[str, Any]
    status: str = Trial.PENDING
    temporary_state: Any = field(default_factory=SimpleNamespace)
    group: Group | None = None
    death: Death | None = None  # of its last attempt that died
    failures: int = 0
    began_s: float = 0.0
    metric_analysis: dict[str, Any] = field(default_factory=dict)
    metric_n_steps: dict[str, Any] = field(default_factory=dict)

    @property
    def attempt(self) -> AttemptConfig:
        return AttemptConfig.from_tune(self.config)

    @property
    def spec(self) -> TrialSpec:
        return self.attempt.spec

    def init_local_path(self) -> None: ...

    def update_resources(self, request: GroupRequest) -> None: ...


class FakeCache:
    """The cache of idle groups, which keeps all of them here."""

    _may_keep_one = True

    def increase_max(self, request: Any, n: int) -> None: ...

    def decrease_max(self, request: Any, n: int) -> None: ...


class FakeTune:
    """One driver of a study. An interval of a trial takes what `interval_s` says for its batch size.

    `machines` are (seconds from the start, ranks that the cluster holds from then on); what lies beyond is killed.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Memory,
        store: FakeStore,
        slots: int,
        interval_s: Mapping[int, float],
        setup_s: float = 3.0,
        dies: Sequence[int] = (),
        machines: Sequence[tuple[float, int]] = (),
        dies_starting: Sequence[int] = (),
        fails: Callable[[TrialSpec, int], str | None] = lambda spec, updates: None,
        reports: Callable[[TrialSpec, int], RankReport] | None = None,
    ) -> None:
        """`dies` numbers the reports before which a group dies, `dies_starting` the starts in which one does.

        `fails` returns the error of a trial's own code before its report after so many updates, or None. `reports`
        returns that report; without it, reports are made up from the trial's rate and seed.
        """
        self._fails, self._reported = fails, reports
        self.plan, self.ledger, self.store, self.slots = plan, ledger, store, slots
        self.interval_s, self.setup_s = interval_s, setup_s
        self.now_s = 1000.0
        self.groups: list[Group] = []
        self.trials: list[FakeTrial] = []
        self._idle: list[Group] = []
        self._due: list[tuple[float, int, str, FakeTrial, Group]] = []
        self._serial = count()
        self._dies, self._reports = set(dies), count()
        self._machines = [(self.now_s + at_s, ranks) for at_s, ranks in machines]
        self.seen: list[tuple[float, int, bool]] = []  # at every turn: when, ranks there, whether a group lives
        self._dies_starting, self._starts = set(dies_starting), count()
        self.progress = Progress(plan, ledger.rows)
        self.writer = LedgerWriter(ledger, [self.progress.follow], lambda: self.now_s)
        self.cluster = FakeCluster()
        self.recorder = Recorder(self.writer, self.progress, store, self.cluster)
        self.limits = LimitWatch(self.writer, self.progress, self.recorder.leases)
        self.callback = RecorderCallback(self.recorder)
        capacity = ClusterCapacity(plan.config.hardware, lambda: self.now_s)
        self.searcher = PlanSearcher(self.progress, store, capacity)
        self.scheduler = LedgerScheduler(self.recorder, self.limits, self.progress, capacity)
        # The parts of Tune's controller that the scheduler reaches into.
        self.search_alg = self
        self.finished = False
        self._staged_trials: set[FakeTrial] = set()
        self._trial_to_actor: dict[FakeTrial, Group] = {}
        self._actor_manager, self._actor_cache = self, FakeCache()

    def run(self) -> bool:
        """Run until nothing is left to do. Return whether the study is finished."""
        self.store.tidy(self.progress.state.ended)
        self.recorder.settle()
        if (passed := self.limits.passed()) is not None:
            self.limits.record(passed)
            return False
        opens = {"study_id": "s", "config": {}, "config_hash": "h", "hardware": {}, "versions": {}}
        self.recorder.open_study(StudyRow(**self.writer.stamp(), **opens))
        while not (self.finished and all(trial.status in ("TERMINATED", "ERROR") for trial in self.trials)):
            self._come_and_go()
            self._ask()
            self.scheduler.choose_trial_to_run(self)
            self._start()
            if not (self.finished and not self._due):
                self._next()
            self.callback.on_step_end(0, [])
            if self.finished and not any(trial.status == Trial.PENDING for trial in self.trials):
                self._end_idle()
        self._end_idle()
        self.recorder.release(1.0)
        assert not self.recorder.leases.open
        return self.progress.finished

    def misbilled_s(self) -> dict[str, float]:
        """Return by how many seconds the bills of a group differ from its life, for groups that died, by name. A
        difference of a turn or two is left out.
        """
        billed_s: dict[str, float] = defaultdict(float)
        for row in self.ledger.rows:
            if isinstance(row, LeaseRow):
                billed_s[row.group_id] += row.billed_s
        lives_s = {group.name: group.died_s - group.born_s for group in self.groups if group.died_s is not None}
        off_s = {name: billed_s[name] - life_s for name, life_s in lives_s.items()}
        return {name: off for name, off in off_s.items() if abs(off) > 3 * TURN_S}

    @property
    def leased_s(self) -> float:
        """Device-seconds that all groups lived, by the cluster's own account."""
        return sum(group.ranks * ((group.died_s or self.now_s) - group.born_s) for group in self.groups)

    def _come_and_go(self) -> None:
        while self._machines and self._machines[0][0] <= self.now_s:
            self.slots = self._machines.pop(0)[1]
        for group in reversed(self.groups):
            if sum(one.ranks for one in self._alive) <= self.slots:
                break
            if group.died_s is None:
                group.died_s = self.now_s
                if group in self._idle:
                    self._idle.remove(group)
                for trial in [trial for trial, on in self._trial_to_actor.items() if on is group]:
                    self._die(trial, group)
        self.seen.append((self.now_s, self.slots, bool(self._alive)))

    @property
    def _alive(self) -> list[Group]:
        return [group for group in self.groups if group.died_s is None]

    def _ask(self) -> None:
        while not self.finished and (config := self.searcher.suggest("")) is not None:
            if isinstance(config, str):
                self.finished = True
            else:
                self.trials.append(FakeTrial(config))
                self.scheduler.on_trial_add(self, self.trials[-1])
        assert self.finished or self.get_live_trials()  # else Tune would wait for ten minutes

    def _start(self) -> None:
        for trial in self.trials:
            if trial.status != Trial.PENDING or trial in self._trial_to_actor:
                continue
            ranks = trial.spec.batch.world_size
            group = next((group for group in self._idle if group.ranks == ranks), None)
            if group is not None:
                self._idle.remove(group)
                self._wait(0.02, "reset", trial, group)
            elif sum(g.ranks for g in self._alive) + ranks <= self.slots:
                group = Group(f"g{next(self._serial)}", ranks, self.now_s)
                self.groups.append(group)
                self.cluster.groups[group.name] = group
                self.recorder.leases.enter(group.name, ranks, "cpu")
                self._wait(self.setup_s, "ready", trial, group)
            else:
                self._end_idle()  # of another world size
                continue
            trial.group = trial.temporary_state.ray_actor = group
            self._trial_to_actor[trial] = group

    def _wait(self, seconds: float, event: str, trial: FakeTrial, group: Group) -> None:
        heapq.heappush(self._due, (self.now_s + seconds, next(self._serial), event, trial, group))

    def _next(self) -> None:
        """Handle one event, or let a turn pass without one."""
        if not self._due or self._due[0][0] > self.now_s + TURN_S:
            self.now_s += TURN_S
            return
        at_s, _, event, trial, group = heapq.heappop(self._due)
        self.now_s = max(self.now_s, at_s)
        if self._trial_to_actor.get(trial) is not group or group.died_s is not None:
            return  # it was ended meanwhile
        if event == "report":
            self._report(trial, group)
            return
        if next(self._starts) in self._dies_starting:
            self._die(trial, group)
            return
        hand_over_s = 0.02 if event == "reset" else self.setup_s
        group.info = GroupInfo(group.name, ("n",), ("h",), "cpu", None, hand_over_s)
        group.updates, group.ahead, group.waits = trial.attempt.from_updates, False, False
        self.callback.on_trial_start(0, [], trial)
        trial.status, trial.began_s, group.kept_s = Trial.RUNNING, self.now_s, self.now_s
        self._wait(self.interval_s[trial.spec.batch.global_batch], "report", trial, group)

    def _report(self, trial: FakeTrial, group: Group) -> None:
        if next(self._reports) in self._dies:
            self._die(trial, group)
            return
        spec = trial.spec
        group.updates = next(at for at in spec.report_at if at > group.updates)
        if (error := self._fails(spec, group.updates)) is not None:
            self._step(trial, group, StepResult(None, error=error))
            return
        final = group.updates == spec.total_updates
        # The clock that policies grade by is the trial's own, so that drivers and turns do not enter.
        done = spec.report_at.index(group.updates) + 1
        before = sum(at <= trial.attempt.from_updates for at in spec.report_at)
        worked_s = (done - before) * self.interval_s[spec.batch.global_batch]
        accuracy = round(1 - abs(spec.base_lr - 0.1) - 1 / (1 + done) - spec.seed_index / 1e3, 6)
        report = self._reported(spec, group.updates) if self._reported else RankReport(
            updates=group.updates, samples=spec.samples_at(group.updates), epochs=spec.epochs_at(group.updates),
            lr=spec.lr, train_loss=1.0, train_accuracy=None, val_loss=1.0, val_accuracy=accuracy, test_accuracy=None,
            samples_per_s=1.0, phases_s={"train": worked_s, "validate": 0.0}, final=final,
        )  # fmt: skip
        unkept_s = self.now_s - group.kept_s
        due = group.updates in trial.attempt.pause_at or unkept_s >= self.plan.config.recovery.checkpoint_every_s
        kept = due and not final
        if kept:
            group.kept_s = self.now_s
        decided = final or group.waits or group.updates in trial.attempt.wait_at
        group.ahead = not decided and self.interval_s[spec.batch.global_batch] < AHEAD_S
        self._step(trial, group, StepResult(report, b"%d" % group.updates if kept else None, ahead=group.ahead))

    def _step(self, trial: FakeTrial, group: Group, step: StepResult) -> None:
        result = step.to_tune()
        goes_on = self.scheduler.on_trial_result(self, trial, result) == TrialScheduler.CONTINUE
        self.callback.on_trial_result(0, [], trial, result)
        if goes_on:
            self._wait(self.interval_s[trial.spec.batch.global_batch], "report", trial, group)
        else:
            self._complete(trial, group)

    def _complete(self, trial: FakeTrial, group: Group) -> None:
        self.callback.on_trial_complete(0, [], trial)
        trial.status = Trial.TERMINATED
        self._trial_to_actor.pop(trial)
        if self.finished:
            group.died_s = self.now_s
        else:
            self._idle.append(group)

    def _die(self, trial: FakeTrial, group: Group) -> None:
        handed_over = trial.status == Trial.PENDING and group.info is not None
        group.died_s = self.now_s
        self._trial_to_actor.pop(trial)
        trial.failures += 1
        trial.death = Death("the process that drives its group died", group.name)
        turn = next(self._serial)
        if trial.failures <= self.plan.config.max_retries:
            trial.status = Trial.PENDING
            self.callback.on_trial_recover(turn, [], trial)
            if not handed_over:
                return
        trial.status = Trial.ERROR  # Tune reports a death in a hand-over twice, and the second time gives the trial up
        self.callback.on_trial_error(turn, [], trial)

    def _end_idle(self) -> None:
        for group in self._idle:
            group.died_s = self.now_s
        self._idle.clear()

    # The methods of Tune's controller and actor manager that the scheduler calls.

    def set_finished(self) -> None:
        self.finished = True

    def get_live_trials(self) -> list[FakeTrial]:
        return [trial for trial in self.trials if trial.status in (Trial.PENDING, Trial.RUNNING)]

    def _schedule_trial_stop(self, trial: FakeTrial) -> None:
        trial.status = Trial.TERMINATED
        self._trial_to_actor.pop(trial, None)

    def is_actor_started(self, group: Group) -> bool:
        return group.died_s is None

    def remove_actor(self, group: Group, kill: bool) -> None:
        assert kill
        group.died_s = self.now_s


@contextmanager
def without_ray(ranks: int | Callable[[], int]) -> Iterator[None]:
    """Within, the cluster holds `ranks` ranks of one CPU, and actors answer at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "study.tuning.tune_searcher.alive_nodes", lambda: (Node(ranks() if callable(ranks) else ranks, 0),)
        )
        patch.setattr("ray.get", lambda answer: answer)
        patch.setattr("study.tuning.tune_callback.death_of", lambda trial: trial.death)
        yield
