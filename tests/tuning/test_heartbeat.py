"""When a heartbeat gives a group up, on a fake clock without Ray."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import GetTimeoutError

from study.config.sections import Recovery
from study.tuning.heartbeat import ASK_EVERY_S, STARTING, Heartbeat, RankLost

BOUNDS = st.floats(1.0, 4000.0)


class Ranks:
    """Fake ranks, and a fake ray module: each rank answers with its progress at that time, or not at all."""

    def __init__(self, ready_s: float, *alive: Callable[[float], int | None]) -> None:
        self.now_s, self.ready_s, self.alive = 0.0, ready_s, alive
        self.asked = 0
        self.actors = [SimpleNamespace(alive=SimpleNamespace(remote=lambda of=of: self._ask(of))) for of in alive]

    def _ask(self, of: Callable[[float], int | None]) -> Callable[[float], int | None]:
        self.asked += 1
        return of

    def get(self, calls: Any, timeout: float = math.inf) -> Any:
        """Return a ping's answer, or the awaited calls once they are ready."""
        if callable(calls):
            return calls(self.now_s)
        if self.ready_s <= self.now_s + timeout:
            self.now_s = self.ready_s
            return calls
        self.now_s += timeout
        raise GetTimeoutError

    def wait(self, pings: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """Return the answered pings first."""
        return [ping for ping in pings if ping(self.now_s) is not None], []


def wait_for(ranks: Ranks, recovery: Recovery, *met: int) -> list[Any]:
    heartbeat = Heartbeat(ranks.actors, recovery)
    heartbeat._met.update(met)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.tuning.heartbeat.ray", ranks)
        return heartbeat.get(["call"])


def working(now_s: float) -> int:
    """Make progress every second."""
    return int(now_s)


@given(silent_s=BOUNDS, stuck_s=BOUNDS, from_s=st.floats(0.0, 300.0))
def test_a_silent_rank_is_lost_at_its_limit_and_not_much_later(silent_s: float, stuck_s: float, from_s: float) -> None:
    ranks = Ranks(math.inf, working, lambda now_s: working(now_s) if now_s < from_s else None)
    recovery = Recovery(silent_s=silent_s, stuck_s=stuck_s)
    with pytest.raises(RankLost, match=r"^rank 1 did not answer for"):
        wait_for(ranks, recovery, 1)
    every_s = min(silent_s / 4, stuck_s / 4, ASK_EVERY_S)
    # Its last answer may be from up to two looks before it fell silent.
    assert silent_s - 2 * every_s <= ranks.now_s - from_s <= silent_s + 2 * every_s + 1e-6


@given(silent_s=BOUNDS, stuck_s=BOUNDS, from_s=st.floats(0.0, 300.0))
def test_a_group_without_progress_is_lost_at_its_limit_and_not_much_later(
    silent_s: float, stuck_s: float, from_s: float
) -> None:
    ranks = Ranks(math.inf, *[lambda now_s: working(min(now_s, from_s))] * 2)
    with pytest.raises(RankLost, match=r"^no rank made progress for"):
        wait_for(ranks, Recovery(silent_s=silent_s, stuck_s=stuck_s))
    every_s = min(silent_s / 4, stuck_s / 4, ASK_EVERY_S)
    assert stuck_s - 2 * every_s <= ranks.now_s - int(from_s) <= stuck_s + 3 * every_s + 1


@given(silent_s=BOUNDS, stuck_s=st.floats(8.0, 4000.0), ready_s=st.floats(0.0, 2000.0))
def test_a_group_with_one_rank_in_progress_is_waited_for(silent_s: float, stuck_s: float, ready_s: float) -> None:
    ranks = Ranks(ready_s, lambda now_s: 7, working)
    assert wait_for(ranks, Recovery(silent_s=silent_s, stuck_s=stuck_s)) == ["call"]
    assert ranks.now_s == ready_s


def test_a_call_that_is_soon_answered_sends_no_heartbeat() -> None:
    ranks = Ranks(1.0, working)
    wait_for(ranks, Recovery())
    assert ranks.asked == 0


def test_a_rank_whose_process_has_yet_to_start_has_more_time() -> None:
    ranks = Ranks(math.inf, lambda now_s: None)
    with pytest.raises(RankLost):
        wait_for(ranks, Recovery(silent_s=8.0))
    assert ranks.now_s == 8.0 * STARTING


@given(silent_s=st.floats(8.0, 100.0), stuck_s=st.floats(8.0, 1000.0))
def test_a_group_whose_processes_have_yet_to_start_is_not_stuck(silent_s: float, stuck_s: float) -> None:
    ranks = Ranks(math.inf, lambda now_s: 7, lambda now_s: None)
    with pytest.raises(RankLost, match=r"^rank 1 did not answer for"):
        wait_for(ranks, Recovery(silent_s=silent_s, stuck_s=stuck_s), 0)
    assert ranks.now_s == pytest.approx(silent_s * STARTING, abs=ASK_EVERY_S)
