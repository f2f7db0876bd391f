"""A trial as Ray Tune sees it: a class Trainable whose actor drives a warm group of ranks."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayTaskError

from study.plan.config import StudyConfig
from study.plan.trials import TrialSpec
from study.tuning.actor import WarmGroup
from study.tuning.shelf import Shelved


@dataclass(frozen=True)
class GroupInfo:
    """What the driver's books need to know of a group when a trial starts on it."""

    group_id: str
    nodes: tuple[str, ...]
    device: str
    norm_batch: int | None
    hand_over_s: float  # from the call that gave us this trial to the ranks being ready


class TrialRun(tune.Trainable):
    """One report a step. A trial's own mistake ends it; a process that dies is Tune's to retry."""

    def __repr__(self) -> str:
        """What Ray's dashboard calls the actor, whose name is Tune's to give."""
        return f"{self.group.name}/driver" if hasattr(self, "group") else super().__repr__()

    def setup(self, config: dict[str, Any], study: StudyConfig) -> None:
        """Build the group, then begin its first trial."""
        spec: TrialSpec = config["spec"]
        self.group = WarmGroup(study, spec.batch.world_size)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Hand the group over to the next trial."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        began = time.perf_counter()
        self.failure: str | None = None
        self.pause_at: frozenset[int] = config["pause_at"]
        self.checkpoint_s = 0.0
        shelved: Shelved | None = config["snapshot"]
        norm_batch = None
        try:
            self.group.all("halt")
            norm_batch = self.group.all("begin", config["spec"], shelved.read() if shelved else None)[0]
        except RayTaskError as error:
            self.failure = _one_line(error)
        self.info = GroupInfo(
            self.group.group_id, self.group.nodes, self.group.device, norm_batch, time.perf_counter() - began
        )

    def describe(self) -> GroupInfo:
        """Asked by the driver before the first step."""
        return self.info

    def step(self) -> dict[str, Any]:
        """Advance every rank by one report interval."""
        if self.failure is None:
            try:
                reports = self.group.all("advance")
                report = replace(reports[0], energy_j=_total([one.energy_j for one in reports]))
                over = report.final or report.diverged
                snapshot = self._snapshot() if report.updates in self.pause_at and not over else None
                report = replace(report, phases_s=report.phases_s | {"checkpoint": self.checkpoint_s})
                return {
                    "report": report,
                    "snapshot": snapshot,
                    "over": over,
                    "done": over,
                    "error": None,
                    "val_accuracy": report.val_accuracy,
                }
            except RayTaskError as error:
                self.failure = _one_line(error)
        return {"report": None, "over": True, "done": True, "error": self.failure, "val_accuracy": float("nan")}

    def _snapshot(self) -> bytes:
        began = time.perf_counter()
        snapshot = self.group.snapshot()
        self.checkpoint_s += time.perf_counter() - began
        return snapshot

    def cleanup(self) -> None:
        """End the ranks, which the placement group's removal would do too, but later."""
        if hasattr(self, "group"):
            self.group.kill()


def _total(energies_j: list[float | None]) -> float | None:
    """Of all ranks, each on a GPU of its own; None if one is not known."""
    known = [joules for joules in energies_j if joules is not None]
    return sum(known) if len(known) == len(energies_j) else None


def _one_line(error: RayTaskError) -> str:
    """The user's exception, without Ray's wrapping."""
    if isinstance(error, RayActorError):  # a dead process is not the trial's mistake
        raise error
    cause = error.cause if isinstance(error.cause, BaseException) else error
    return traceback.format_exception_only(type(cause), cause)[-1].strip()
