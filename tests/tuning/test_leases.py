"""The driver's books of leases, on a fake clock and a fake cluster."""

import os

import pytest
import ray
from ray.exceptions import RayActorError
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.tuning.leases import ClosedLease, Death, GroupRequest, Leases, RayCluster
from study.tuning.messages import GroupInfo
from tests.conftest import make_config


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeCluster:
    """Places a group 2 s after its request; `removed` groups were given back. The actor of group `g` is `g-driver`."""

    def __init__(self) -> None:
        self.removed: set[str] = set()
        self.waiting: set[str] = set()
        self.clock_set_by_s = 0.0

    def creation_s(self, group_id: str) -> float | None:
        return None if group_id in self.waiting else 2.0 + self.clock_set_by_s

    def is_removed(self, group_id: str) -> bool:
        return group_id in self.removed

    def group_of(self, actor_id: str) -> str | None:
        return actor_id.removesuffix("-driver")


def info(group: str, hand_over_s: float = 0.5) -> GroupInfo:
    return GroupInfo(group, ("node",), ("host",), "cpu", None, hand_over_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def books(clock: Clock, cluster: FakeCluster) -> Leases:
    return Leases(cluster, clock)


def died(group: str | None) -> Death:
    """The death of an attempt whose driving process was in this group; None: it has no process."""
    return Death("died", None if group is None else f"{group}-driver")


def enter(books: Leases, group: str) -> None:
    """Tune asks Ray for a group of two CPU devices."""
    books.enter(group, 2, "cpu")


def billed(closed: ClosedLease) -> float:
    return closed.lease.bill(closed.closed_s, closed.reason)[0]


def test_a_group_is_billed_without_gap_from_placement_to_removal(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    enter(books, "g")  # at 100: placed at 102
    clock.now_s = 110
    _, none_closed = books.start("a", 1, 2, info("g"))
    assert none_closed == []
    clock.now_s = 120
    books.mark_ended("a")
    clock.now_s = 121
    _, (first,) = books.start("b", 1, 2, info("g", hand_over_s=0.5))
    assert (first.lease.trial_id, first.closed_s, first.reason) == ("a", 120.5, "hand_over")
    clock.now_s = 130
    books.mark_ended("b")
    assert books.sweep() == []  # not given back yet
    clock.now_s = 131
    cluster.removed.add("g")
    (second,) = books.sweep()
    assert (second.lease.trial_id, second.reason) == ("b", "released")
    assert billed(first) + billed(second) == 131 - 102
    assert books.open == []


def test_the_time_before_the_first_report_is_setup(books: Leases, clock: Clock, cluster: FakeCluster) -> None:
    enter(books, "g")
    clock.now_s = 110
    books.start("a", 1, 2, info("g"))
    clock.now_s = 111
    books.mark_ended("a")
    clock.now_s = 114
    cluster.removed.add("g")
    (closed,) = books.sweep()
    assert closed.lease.bill(closed.closed_s, closed.reason)[1] == {"setup": 8, "teardown": 3, "idle": 1}


def test_an_attempt_that_died_is_billed_as_lost_and_its_retry_apart(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    enter(books, "g")
    clock.now_s = 110
    lease, _ = books.start("a", 1, 2, info("g"))
    lease.add_report(115, {"train": 4})
    clock.now_s = 118
    assert books.mark_lost("a", 1, 2, died("g")) == (lease, [])
    enter(books, "h")  # at 118: placed at 120
    cluster.waiting.add("h")
    clock.now_s = 119
    cluster.removed.add("g")
    (closed,) = books.sweep()
    assert closed.reason == "lost"
    assert closed.lease.bill(closed.closed_s, closed.reason)[1] == {"setup": 8, "train": 4, "lost": 4, "idle": 1}
    clock.now_s = 125
    cluster.waiting.clear()
    retry, _ = books.start("a", 2, 2, info("h"))
    assert (retry.attempt, retry.opened_s) == (2, 120)


def test_a_group_that_died_in_setup_is_billed_to_the_attempt_it_was_for(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    enter(books, "waiting")
    cluster.waiting.add("waiting")
    enter(books, "g")
    enter(books, "alive")
    clock.now_s = 109
    cluster.removed.add("g")
    lease, _ = books.mark_lost("a", 1, 2, died("g"))
    assert lease is not None
    assert (lease.group_id, lease.opened_s) == ("g", 102)
    (closed,) = books.sweep()
    assert closed.lease.bill(closed.closed_s, closed.reason)[1] == {"setup": 0, "lost": 7, "idle": 0}


@pytest.mark.parametrize("death", [died(None), died("unknown")])
def test_a_death_without_a_name_is_billed_to_the_group_that_has_just_gone(
    books: Leases, clock: Clock, cluster: FakeCluster, death: Death
) -> None:
    """Ray names no actor where memory or a runtime environment was lacking."""
    for group in ("idle", "other", "g", "alive"):
        enter(books, group)
    clock.now_s = 105
    cluster.removed.add("other")
    books.sweep()  # seen to be gone before
    clock.now_s = 109
    cluster.removed.add("g")
    lease, closed = books.mark_lost("a", 1, 2, death)
    assert lease is not None
    assert (lease.group_id, lease.opened_s, closed) == ("g", 102, [])


@pytest.mark.parametrize("death", [None, died(None), died("unknown")])
def test_a_trial_that_never_had_a_group_costs_nothing(
    books: Leases, clock: Clock, cluster: FakeCluster, death: Death | None
) -> None:
    enter(books, "waiting")
    cluster.waiting.add("waiting")
    assert books.mark_lost("a", 1, 2, death) == (None, [])


def test_tune_pools_groups_of_one_size_of_any_study() -> None:
    sizes = [GroupRequest(make_config(name=name), size) for size in (1, 2) for name in ("a", "b")]
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]
    assert len(set(sizes)) == 2


def test_a_group_that_tune_gave_back_unused_costs_nothing_more_and_is_billed_to_no_trial_while_another_waits(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    enter(books, "unused")
    enter(books, "used")
    clock.now_s += 10
    assert books.starting_device_s() == 2 * 2 * (10 - 2)
    cluster.removed.add("unused")
    clock.now_s += 3600
    assert books.starting_device_s() == 2 * (3610 - 2)
    lease, _ = books.mark_lost("t", 1, 2)  # the driver ends it
    assert lease is not None
    assert lease.group_id == "used"


def test_a_group_is_billed_up_to_when_the_cluster_had_it_back_however_late_an_attempt_takes_the_bill(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    enter(books, "g")  # placed at 102
    clock.now_s = 105
    cluster.removed.add("g")
    assert books.sweep() == []
    clock.now_s = 3600
    lease, _ = books.mark_lost("t", 1, 2, died("g"))
    assert lease is not None
    (closed,) = books.sweep()
    assert billed(closed) == 3


@pytest.mark.parametrize("set_by_s", [-3600.0, 3600.0])
def test_a_wall_clock_set_while_a_group_waits_for_placement_changes_no_bill(
    books: Leases, clock: Clock, cluster: FakeCluster, set_by_s: float
) -> None:
    cluster.waiting.add("g")
    enter(books, "g")
    cluster.clock_set_by_s = set_by_s
    clock.now_s = 500  # it has waited long
    books.sweep()
    cluster.waiting.clear()
    clock.now_s = 500.2
    books.sweep()
    clock.now_s = 510
    lease, _ = books.start("t", 1, 2, info("g"))
    assert 500 <= lease.opened_s <= 500.2


def paused_in_g(books: Leases, clock: Clock) -> None:
    """Until 120: trial `a` has paused in group `g`, which waits idle with its lease."""
    enter(books, "g")
    clock.now_s = 110
    books.start("a", 1, 2, info("g"))
    clock.now_s = 120
    books.mark_ended("a")


def test_events_of_a_trial_are_booked_on_its_running_attempt(books: Leases, clock: Clock, cluster: FakeCluster) -> None:
    enter(books, "h")
    clock.now_s = 110
    books.start("b", 1, 2, info("h"))
    paused_in_g(books, clock)
    books.mark_ended("b")
    clock.now_s = 121
    lease, _ = books.start("a", 2, 2, info("h"))
    assert books.lease_of("a") is lease
    clock.now_s = 130
    assert books.mark_lost("a", 2, 2, died("h")) == (lease, [])
    assert books.lease_of("a") is None
    assert not books.running
    cluster.removed |= {"g", "h"}
    by_group = {closed.lease.group_id: closed for closed in books.sweep()}
    assert {name: (closed.reason, closed.lease.why) for name, closed in by_group.items()} == {
        "g": ("released", ""),
        "h": ("lost", "died"),
    }
    assert billed(by_group["h"]) == 130 - 120.5


def test_an_attempt_that_dies_in_setup_is_not_booked_on_the_group_in_which_its_trial_paused(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    paused_in_g(books, clock)
    enter(books, "h")  # placed at 122
    clock.now_s = 130
    assert books.lease_of("a") is None
    cluster.removed.add("h")
    lease, _ = books.mark_lost("a", 2, 2, died("h"))
    assert lease is not None
    assert (lease.group_id, lease.attempt, lease.opened_s) == ("h", 2, 122)
    (closed,) = books.sweep()
    assert (closed.lease.group_id, closed.reason, billed(closed)) == ("h", "lost", 8)


def test_an_attempt_that_dies_in_hand_over_is_booked_on_that_group_and_not_on_a_living_one(
    books: Leases, clock: Clock, cluster: FakeCluster
) -> None:
    paused_in_g(books, clock)
    enter(books, "young")  # in its set-up, for another trial
    clock.now_s = 125
    cluster.removed.add("g")
    lease, (before,) = books.mark_lost("b", 1, 2, died("g"))
    assert lease is not None
    assert (lease.group_id, lease.trial_id, lease.why, lease.hosts) == ("g", "b", "died", ("host",))
    assert (before.lease.trial_id, before.reason, before.closed_s) == ("a", "hand_over", 125)
    (closed,) = books.sweep()
    assert (closed.lease, closed.reason, billed(closed)) == (lease, "lost", 0)
    young, _ = books.start("c", 1, 2, info("young"))
    assert books.open == [young]
    assert (young.opened_s, young.attempt) == (122, 1)


class DyingActor:
    """Fails as it starts, if it is asked to, or else when it is called."""

    def __init__(self, fails: bool) -> None:
        if fails:
            raise ValueError("in its set-up")

    def die(self) -> None:
        os._exit(1)


def test_ray_knows_the_group_of_a_dead_actor_and_when_the_group_is_gone(local_ray: None) -> None:
    cluster = RayCluster()
    books = Leases(cluster)
    placement = GroupRequest(make_config(), 1, books).to_placement_group()
    group_id = placement.id.hex()
    ray.get(placement.ready())
    waited_s = cluster.creation_s(group_id)
    assert waited_s is not None
    assert waited_s > 0
    for fails in (True, False):
        strategy = PlacementGroupSchedulingStrategy(placement)
        actor = ray.remote(DyingActor).options(num_cpus=0, scheduling_strategy=strategy).remote(fails)
        with pytest.raises(RayActorError) as died:
            ray.get(actor.die.remote())
        assert cluster.group_of(died.value.actor_id) == group_id
    assert not cluster.is_removed(group_id)
    remove_placement_group(placement)
    lease, _ = books.mark_lost("a", 1, 1, Death("died", died.value.actor_id))
    assert lease is not None
    assert lease.group_id == group_id
    assert cluster.is_removed(group_id)
    assert cluster.group_of("f" * len(died.value.actor_id)) is None
