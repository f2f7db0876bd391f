"""A trial as Ray Tune sees it: a class Trainable whose actor drives a warm group of ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayTaskError

from study.config.schema import StudyConfig
from study.errors import ConfigError, DataError
from study.planning.trials import TrialSpec
from study.training.messages import Mistake, OutOfMemory
from study.tuning.checkpoint_store import CheckpointRef
from study.tuning.heartbeat import RankLost
from study.tuning.worker_group import WarmGroup
from study.workloads.user_code.build import describe


@dataclass(frozen=True)
class GroupInfo:
    """What the driver's books need to know of a group when a trial starts on it."""

    group_id: str
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]
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
        self.study, self.world_size = study, spec.batch.world_size
        self._build()
        self._begin(config)

    def _build(self) -> None:
        try:
            self.group, self.ended = WarmGroup(self.study, self.world_size), False
        except RayActorError:
            raise
        except RayTaskError as error:  # nothing of a trial's own has run yet
            raise RankLost(f"its group could not be built: {_describe(error)}") from None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Hand the group over to the next trial."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        began = time.perf_counter()
        self.failure: str | None = None
        self.lost: Exception | None = None
        self.infeasible = False
        self.pause_at: frozenset[int] = config["pause_at"]
        self.checkpoint_s, self.kept_s = 0.0, began
        shelved: CheckpointRef | None = config["snapshot"]
        spec: TrialSpec = config["spec"]
        cell = spec.cell
        norm_batch = None
        try:
            if self.ended:
                self._build()  # anew, where it was
            self._free()
            self.group.serves = " ".join(f"{spec.phase} {cell.variant} b{cell.batch_size} w{cell.world_size}".split())
            norm_batch = self.group.all("begin", spec, shelved.read() if shelved else None)[0]
        except (RankLost, RayActorError) as error:
            # Told by the first step: this group's attempt has then begun, and Tune retries what dies in a step, not
            # what dies in a reset.
            self.lost = error
        except RayTaskError as error:
            self._fail(error)
        group, hand_over_s = self.group, time.perf_counter() - began
        self.info = GroupInfo(group.group_id, group.nodes, group.hosts, group.device, norm_batch, hand_over_s)

    def _free(self) -> None:
        """End the trial before. Its end is written: if that fails, or a rank dies of it, the next is not to blame."""
        try:
            self.group.all("halt")
        except RayActorError:
            raise
        except (RankLost, RayTaskError):
            gone = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            if gone.intersection(self.group.nodes):
                raise  # here is no room any more
            self.group.kill()
            self._build()

    def describe(self) -> GroupInfo:
        """Asked by the driver before the first step."""
        return self.info

    def step(self) -> dict[str, Any]:
        """Advance every rank by one report interval."""
        if self.lost is not None:
            raise self.lost
        if self.failure is None:
            try:
                reports = self.group.all("advance")
                report = replace(
                    reports[0],
                    energy_j=_total([one.energy_j for one in reports]),
                    peak_memory_bytes=_most([one.peak_memory_bytes for one in reports]),
                )
                over = report.final or report.diverged
                snapshot = self.snapshot()[0] if not over and self._is_due(report.updates) else None
                report = replace(report, phases_s=report.phases_s | {"checkpoint": self.checkpoint_s})
                return {
                    "report": report,
                    "snapshot": snapshot,
                    "over": over,
                    "done": over,
                    "error": None,
                    "infeasible": False,
                    "val_accuracy": report.val_accuracy,
                }
            except RayActorError:
                raise
            except RayTaskError as error:
                self._fail(error)
        return {
            "report": None,
            "snapshot": None,
            "over": True,
            "done": True,
            "error": self.failure,
            "infeasible": self.infeasible,
            "val_accuracy": float("nan"),
        }

    def _fail(self, error: RayTaskError) -> None:
        """The trial is over. Where one rank of several failed, the others wait for it in a collective, for minutes."""
        self.failure, self.infeasible = _describe(error), isinstance(error.cause, OutOfMemory)
        self.ended = self.world_size > 1
        if self.ended:
            self.group.kill()

    def _is_due(self, updates: int) -> bool:
        """Whether the report comes with a checkpoint: the trial may pause at it, or could lose too much."""
        unkept_s = time.perf_counter() - self.kept_s
        return updates in self.pause_at or unkept_s >= self.study.recovery.checkpoint_every_s

    def snapshot(self) -> tuple[bytes, float]:
        """What the trial needs to go on from its last report, and the seconds that snapshots of this attempt took so
        far. Asked by the driver too, at a report that it cuts the trial at.
        """
        began = time.perf_counter()
        snapshot = self.group.snapshot()
        self.kept_s = time.perf_counter()
        self.checkpoint_s += self.kept_s - began
        return snapshot, self.checkpoint_s

    def cleanup(self) -> None:
        """End the ranks, which the placement group's removal would do too, but later."""
        if hasattr(self, "group"):
            self.group.kill()


def _total(energies_j: list[float | None]) -> float | None:
    """Of all ranks, each on a GPU of its own; None if one is not known."""
    known = [joules for joules in energies_j if joules is not None]
    return sum(known) if len(known) == len(energies_j) else None


def _most(peaks_bytes: list[int | None]) -> int | None:
    """Of the rank that needed most; None if one is not known."""
    known = [peak for peak in peaks_bytes if peak is not None]
    return max(known) if len(known) == len(peaks_bytes) else None


def _describe(error: RayTaskError) -> str:
    """What a rank told, without Ray's wrapping."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    return str(cause) if isinstance(cause, Mistake | ConfigError | DataError) else describe(cause)
