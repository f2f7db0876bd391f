"""Drivers that are killed, wherever in their work: who goes on finds nothing lost, and says and decides the same."""

from __future__ import annotations

import ast
import math
import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import study
from study.analysis.summary.summarize import summarize
from study.ledger.schema import AnyRow, LeaseRow, PulseRow
from study.ledger.store import Ledger, read
from study.planning.trials import Plan, make_plan
from study.tuning.recorder import PULSE_EVERY_S
from tests.conftest import make_config
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit, trial_facts
from tests.tuning.faketune import TURN_S, FakeStore, FakeTune, Memory, without_ray

INTERVAL_S = {16: 5.0, 64: 2.0}
STUDIES: dict[str, dict[str, Any]] = {
    "grid": {"scheduler": {"kind": "grid"}, "recovery": {"checkpoint_every_s": 7}},
    "asha": {
        "scheduler": {"kind": "asha", "grace": 1, "eta": 2, "audit": 0.4},
        "recovery": {"checkpoint_every_s": 4, "checkpoints": 1},
    },
    "frontier_asha": {
        "scheduler": {"kind": "frontier_asha", "audit": 0.4, "profile": "quick"},
        "recovery": {"checkpoint_every_s": 0},
    },
}
SAMPLED = 6  # points of each study in the short part


def study_plan(name: str) -> Plan:
    """Two batch sizes, four rates, five reports a trial. Costs are counted in samples: no clock enters them."""
    base: dict[str, Any] = {
        "search": {"lr": [0.2, 0.1, 0.05, 0.01]},
        "budget": {"epochs": 5},
        "confirm": {"seeds": 1},
        "report": {"cost": "samples"},
        "max_retries": 50,
    }
    return make_plan(make_config(**base | STUDIES[name]))


class Killed(BaseException):
    """Nothing of the driver's runs after it."""


class KillPoints:
    """Kills the driver at the points that it is given; a point is just before or just behind a write."""

    def __init__(self, *points: int) -> None:
        self.seen: list[str] = []  # what came by, as "before report"
        self._points = set(points)

    def at(self, point: str) -> None:
        """Raises Killed if this is one of the points."""
        self.seen.append(point)
        if len(self.seen) - 1 in self._points:
            raise Killed(point)


class KillingLedger(Ledger):
    """On disk, as far as its driver came."""

    def __init__(self, folder: Path, kill_points: KillPoints) -> None:
        self.kill_points = kill_points
        super().__init__(folder)

    def append(self, *rows: AnyRow, durable: bool = True) -> None:
        what = " + ".join(row.kind for row in rows)
        self.kill_points.at(f"before {what}")
        super().append(*rows, durable=durable)
        self.kill_points.at(f"behind {what}")


class KillingStore(FakeStore):
    """Checkpoints outlive their driver."""

    def __init__(self, keep: int, kill_points: KillPoints) -> None:
        super().__init__(keep)
        self.kill_points = kill_points

    def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
        self.kill_points.at("before checkpoint")
        super().put(trial_id, updates, checkpoint)
        self.kill_points.at("behind checkpoint")


def driven(plan: Plan, folder: Path, kill_points: KillPoints, slots: int = 1, dies: tuple[int, ...] = ()) -> int:
    """Run a study and resume it until it is over. Returns how often its driver was killed."""
    shelf, kills = KillingStore(plan.config.recovery.checkpoints, kill_points), 0
    with without_ray(slots):
        while True:
            with KillingLedger(folder, kill_points) as ledger:
                try:
                    assert FakeTune(plan, ledger, shelf, slots, INTERVAL_S, dies=dies).run()
                    break
                except Killed:
                    kills += 1
    assert not any(shelf.held.values())
    return kills


def frontier(plan: Plan, rows: list[AnyRow]) -> list[tuple[Any, ...]]:
    """What is drawn."""
    return [
        (point.batch_size, point.lr, point.cost.samples, point.quality, point.on_frontier)
        for point in summarize(rows, plan).points
    ]


@cache
def undisturbed(name: str) -> tuple[list[str], list[AnyRow]]:
    """The points at which a study can be killed, and its rows."""
    plan, kill_points, ledger = study_plan(name), KillPoints(), Memory()

    class Watched(Memory):
        def append(self, *rows: AnyRow, durable: bool = True) -> None:
            what = " + ".join(row.kind for row in rows)
            kill_points.at(f"before {what}")
            ledger.append(*rows)
            kill_points.at(f"behind {what}")

    with without_ray(1):
        watched = Watched()
        watched.rows = ledger.rows
        assert FakeTune(plan, watched, KillingStore(plan.config.recovery.checkpoints, kill_points), 1, INTERVAL_S).run()
    return kill_points.seen, ledger.rows


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed takes nothing with it of what the system holds for the disk."""
    monkeypatch.setattr("study.ledger.store.os.fsync", lambda handle: None)


def check_every(name: str, points: list[int], tmp_path: Path, line: Injections) -> None:
    plan, (_, rows) = study_plan(name), undisturbed(name)
    expected, drawn = trial_facts(rows), frontier(plan, rows)
    for point in points:
        line.inject()
        folder = tmp_path / f"{name}-{point}"
        assert driven(plan, folder, KillPoints(point)) == 1
        found = list(read(folder).rows)
        assert trial_facts(found) == expected, undisturbed(name)[0][point]
        assert frontier(plan, found) == drawn
        line.survived(audit(found))


@pytest.mark.parametrize("name", list(STUDIES))
def test_a_driver_killed_at_some_writes(name: str, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    seen = undisturbed(name)[0]
    points = random.Random(name).sample(range(len(seen)), SAMPLED)
    check_every(name, points, tmp_path, faults("driver killed, simulated"))


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(STUDIES))
def test_a_driver_killed_at_every_write(name: str, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    """Before and behind each append, decision and checkpoint, between search and confirm among them."""
    seen = undisturbed(name)[0]
    kinds = {"study", "attempt", "report", "decision", "end", "checkpoint"}
    assert {f"{when} {kind}" for when in ("before", "behind") for kind in kinds} <= set(seen)
    check_every(name, list(range(len(seen))), tmp_path, faults("driver killed, simulated"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(list(STUDIES)),
    gaps=st.lists(st.integers(0, 90), min_size=2, max_size=8),
    dies=st.lists(st.integers(0, 60), max_size=4),
)
def test_drivers_killed_one_after_the_other_and_groups_with_them(
    tmp_path_factory: pytest.TempPathFactory,
    faults: Callable[[str], Injections],
    name: str,
    gaps: list[int],
    dies: list[int],
) -> None:
    points = [sum(gaps[: n + 1]) + n for n in range(len(gaps))]
    plan, (_, rows) = study_plan(name), undisturbed(name)
    folder = tmp_path_factory.mktemp(name)
    line = faults("driver killed, simulated")
    kills = driven(plan, folder, KillPoints(*points), dies=tuple(dies))
    line.inject(kills)
    found = list(read(folder).rows)
    assert trial_facts(found) == trial_facts(rows)
    assert frontier(plan, found) == frontier(plan, rows)
    line.survived(audit(found), kills)


class KilledTune(FakeTune):
    """Killed at a moment of its own clock, whatever it does."""

    def __init__(self, *arguments: Any, lives_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._dies_s = self.now_s + lives_s

    def _come_and_go(self) -> None:
        if self.now_s >= self._dies_s:
            raise Killed
        super()._come_and_go()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scheduler=st.sampled_from(["grid", "frontier_asha"]),
    lives_s=st.lists(st.floats(0, 300), min_size=1, max_size=6),
    slots=st.integers(1, 7),
    interval_s=st.floats(1, 100),
)
def test_all_but_the_time_since_the_last_sign_of_life_is_billed(
    faults: Callable[[str], Injections], scheduler: str, lives_s: list[float], slots: int, interval_s: float
) -> None:
    """And the setup of groups that no trial had started on: of these no row tells. Never a second too many."""
    plan = make_plan(make_config(scheduler={"kind": scheduler}, confirm={"seeds": 1}))
    ledger, shelf, line = Memory(), FakeStore(), faults("driver killed, simulated")
    leased_s = missing_s = 0.0
    groups = kills = 0
    for life_s in (*lives_s, math.inf):
        with without_ray(slots):
            tune = KilledTune(plan, ledger, shelf, slots, {16: interval_s, 64: interval_s / 2}, lives_s=life_s)
            try:
                assert tune.run()
            except Killed:
                kills += 1
                alive = [group for group in tune.groups if group.died_s is None]
                missing_s += sum(
                    tune.now_s - group.born_s if group.info is None else PULSE_EVERY_S + TURN_S for group in alive
                )
        leased_s, groups = leased_s + tune.leased_s, groups + len(tune.groups)
        if tune.progress.finished:
            break
    line.inject(kills)
    billed_s = sum(row.devices * row.billed_s for row in ledger.rows if isinstance(row, LeaseRow))
    slack_s = 3 * TURN_S * groups  # that a group is gone is noticed within some turns of the loop
    assert leased_s - missing_s - slack_s <= billed_s <= leased_s + slack_s
    pulses = [row.at_s for row in ledger.rows if isinstance(row, PulseRow)]
    assert all(then - at_s >= PULSE_EVERY_S for at_s, then in pairwise(pulses))
    line.survived(audit(ledger.rows), kills)


class Jumping(datetime):
    """A wall clock that is set back by an hour each time it has been looked at so often."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        cls.looks += 1
        back = timedelta(hours=cls.looks // 25)
        return datetime(2026, 1, 1, 12, tzinfo=tz) + timedelta(seconds=cls.looks) - back


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(STUDIES)), points=st.lists(st.integers(0, 200), max_size=3))
def test_a_wall_clock_that_jumps_back_changes_nothing_but_what_is_written_for_people(
    faults: Callable[[str], Injections], tmp_path_factory: pytest.TempPathFactory, name: str, points: list[int]
) -> None:
    plan, folder, line = study_plan(name), tmp_path_factory.mktemp(name), faults("wall clock set back")
    driven(plan, folder / "steady", KillPoints(*points))
    Jumping.looks = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.tuning.ledger_writer.datetime", Jumping)
        patch.setattr("time.time", lambda: Jumping.now().timestamp())
        driven(plan, folder / "jumping", KillPoints(*points))
    steady, jumping = read(folder / "steady").rows, read(folder / "jumping").rows
    jumps = sum(then.written < row.written for row, then in pairwise(jumping))
    line.inject(jumps)
    assert jumps >= 4
    assert [row.model_dump(exclude={"written"}) for row in jumping] == [
        row.model_dump(exclude={"written"}) for row in steady
    ]
    line.survived(audit(jumping), jumps)


def test_durations_are_told_by_no_wall_clock() -> None:
    """Where it is read at all in what runs and bills a study: for people, for a unique name, for a file's age."""
    allowed = {"tuning/ledger_writer.py": 1, "ledger/store.py": 1, "ledger/atomic_files.py": 1}
    root = Path(study.__file__).parent
    found: Counter[str] = Counter()
    for room in ("tuning", "training", "ledger", "pareto"):
        for path in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow"):
                    found[str(path.relative_to(root))] += 1
    assert found == allowed
