"""What the process that drives a group does when the trial before ends badly, without Ray."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import RayTaskError

from study.tuning import trainable
from study.tuning.heartbeat import RankLost
from study.tuning.trainable import TrialRun

LOST = RankLost("rank 1 died")
RAISED = RayTaskError("halt", "Traceback", ValueError("on_fit_end"))


class Group:
    """On one machine; its ranks cannot end their trial."""

    nodes = ("here",)

    def __init__(self, error: Exception) -> None:
        self.error, self.killed = error, False

    def all(self, method: str) -> list[Any]:
        assert method == "halt"
        raise self.error

    def kill(self) -> None:
        self.killed = True


def free(group: Group, monkeypatch: pytest.MonkeyPatch, alive: bool) -> object:
    """The group that the next trial gets."""
    nodes = [{"NodeID": "here", "Alive": alive}, {"NodeID": "there", "Alive": False}]
    monkeypatch.setattr(trainable.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(trainable, "WarmGroup", lambda study, world_size: "fresh")
    run = TrialRun.__new__(TrialRun)
    run.study, run.world_size, run.group = None, 2, group  # type: ignore[assignment]
    run._free()
    return run.group


@pytest.mark.parametrize("error", [LOST, RAISED], ids=["lost", "raised"])
def test_a_group_whose_trial_ends_badly_is_built_anew_for_the_next(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(error)
    assert free(group, monkeypatch, alive=True) == "fresh"
    assert group.killed


def test_a_group_whose_machine_is_gone_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RankLost, match=r"^rank 1 died$"):
        free(Group(LOST), monkeypatch, alive=False)
