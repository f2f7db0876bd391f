"""The process that drives a group, when the end of the previous trial fails; without Ray."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

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
