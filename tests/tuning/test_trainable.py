"""The process that drives a group: when the end of the previous trial fails, and when ranks train on; without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from study.training.messages import RankReport
from study.tuning import trainable
from study.tuning.heartbeat import RankLost
from study.tuning.trainable import TrialRun

LOST = RankLost("rank 1 died")
RAISED = RayTaskError("halt", "Traceback", ValueError("on_fit_end"))


class BrokenGroup:
    """A group on one machine whose ranks fail to end their trial."""

    nodes = ("here",)

    def __init__(self, error: Exception) -> None:
        self.error, self.killed = error, False

    def halt(self) -> None:
        raise self.error

    def kill(self) -> None:
        self.killed = True


def group_after_free(group: BrokenGroup, monkeypatch: pytest.MonkeyPatch, alive: bool) -> object:
    """Return the group that the next trial gets."""
    nodes = [{"NodeID": "here", "Alive": alive}, {"NodeID": "there", "Alive": False}]
    monkeypatch.setattr(trainable.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(trainable, "WarmGroup", lambda study, world_size: "fresh")
    run = TrialRun.__new__(TrialRun)
    run.study, run.world_size, run._group = None, 2, group  # type: ignore[assignment]
    run._free()
    return run.group


@pytest.mark.parametrize("error", [LOST, RAISED], ids=["lost", "raised"])
def test_a_group_whose_trial_fails_to_end_is_built_again_for_the_next(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = BrokenGroup(error)
    assert group_after_free(group, monkeypatch, alive=True) == "fresh"
    assert group.killed


def test_a_group_whose_machine_is_gone_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RankLost, match=r"^rank 1 died$"):
        group_after_free(BrokenGroup(LOST), monkeypatch, alive=False)


class AskedGroup:
    """A group that notes what it is asked, and whose every interval takes `interval_s`."""

    def __init__(self, clock: SimpleNamespace, interval_s: float) -> None:
        self.asked: list[str] = []
        self._clock, self._interval_s, self._updates = clock, interval_s, 0

    def train_on(self) -> None:
        self.asked.append("train_on")

    def snapshot(self) -> bytes:
        self.asked.append("snapshot")
        return b"state"

    def advance(self) -> list[RankReport]:
        self.asked.append("advance")
        self._clock.now_s += self._interval_s
        self._updates += 10
        report = RankReport(
            updates=self._updates, samples=0, epochs=0.0, lr=0.1, train_loss=1.0, train_accuracy=None, val_loss=1.0,
            val_accuracy=0.5, test_accuracy=None, samples_per_s=1.0, phases_s={}, final=self._updates == 50,
        )  # fmt: skip
        return [report, report]


def driving(monkeypatch: pytest.MonkeyPatch, interval_s: float) -> tuple[TrialRun, AskedGroup]:
    """Return the driver of a trial of five reports, whose policy may pause it at the second and stop it at the third,
    and its group.
    """
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(trainable, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    run: Any = TrialRun.__new__(TrialRun)
    group = AskedGroup(clock, interval_s)
    run.study = SimpleNamespace(recovery=SimpleNamespace(checkpoint_every_s=1e9))
    run._group, run.lost, run.failed = group, None, None
    run.pause_at, run.wait_at, run.waits = {20}, {20, 30}, False
    run.reported_s = run.kept_s = run.checkpoint_s = 0.0
    return run, group


def test_ranks_train_on_where_a_trial_can_only_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run, group = driving(monkeypatch, interval_s=0.2)
    ahead = [run._advance().ahead for _ in range(5)]
    assert ahead == [True, False, False, True, False]
    assert group.asked == [
        "advance", "train_on", "advance", "snapshot", "advance", "advance", "train_on", "advance"
    ]  # fmt: skip


def test_ranks_wait_once_they_are_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = driving(monkeypatch, interval_s=0.2)
    assert run._advance().ahead
    run.wait_for_decisions()
    assert not any(run._advance().ahead for _ in range(4))


def test_ranks_wait_where_an_interval_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    run, group = driving(monkeypatch, interval_s=1.5)
    assert not any(run._advance().ahead for _ in range(5))
    assert "train_on" not in group.asked
