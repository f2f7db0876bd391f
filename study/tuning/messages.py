"""What passes between the driver, Ray Tune and a trial's actor. Tune wants dicts: they are made and read only here."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from study.planning.trials import TrialSpec
from study.training.messages import RankReport
from study.tuning.checkpoint_store import CheckpointRef

METRIC, MODE = "train_loss", "min"  # Tune asks for a metric in every result; study policies do not read it
_ATTEMPT, _STEP = "attempt", "step"  # keys of Tune's config dict and of its result dict


@dataclass(frozen=True)
class AttemptConfig:
    """One attempt at a trial, from the driver to the actor that trains it."""

    spec: TrialSpec
    checkpoint: CheckpointRef | None  # where the attempt starts; None: at the trial's beginning
    pause_at: frozenset[int]  # updates after which the policy may pause the trial
    wait_at: frozenset[int]  # updates after which it may stop or pause it; at other reports a trial goes on

    @property
    def from_updates(self) -> int:
        """Updates that the attempt starts after; 0 at the trial's beginning."""
        return 0 if self.checkpoint is None else self.checkpoint.updates

    def to_tune(self) -> dict[str, Any]:
        """Return the config dict of a Tune trial."""
        return {_ATTEMPT: self}

    @staticmethod
    def from_tune(config: Mapping[str, Any]) -> AttemptConfig:
        """Read the config dict of a Tune trial."""
        attempt: AttemptConfig = config[_ATTEMPT]
        return attempt


@dataclass(frozen=True)
class StepResult:
    """The result of one step of a trial: its next report, or the error of its own code that ended it."""

    report: RankReport | None  # None: the trial's code failed
    snapshot: bytes | None = None  # the checkpoint after the report, where one is due
    error: str | None = None  # one line
    infeasible: bool = False  # the error: the device has too little memory
    ahead: bool = False  # the ranks train on already; they may be asked for a snapshot at the next report

    @property
    def last(self) -> bool:
        """Whether the trial has ended by itself: it is complete, diverged or failed."""
        return self.report is None or self.report.final or self.report.diverged

    def to_tune(self) -> dict[str, Any]:
        """Return the result dict of a Tune trial. It never says `done`: every report goes through the scheduler."""
        return {_STEP: self, METRIC: math.nan if self.report is None else self.report.train_loss}

    @staticmethod
    def from_tune(result: Mapping[str, Any]) -> StepResult:
        """Read the result dict of a Tune trial."""
        step: StepResult = result[_STEP]
        return step

    @staticmethod
    def drop_from(result: MutableMapping[str, Any]) -> None:
        """Remove the step from Tune's dict, because Tune keeps the last result of every trial to the end."""
        result.pop(_STEP, None)


@dataclass(frozen=True)
class GroupInfo:
    """A group of ranks at the start of an attempt, as its actor describes it to the driver."""

    group_id: str
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]  # of the nodes, in their order: name and address
    device: str  # "cpu", or the GPU's name
    norm_batch: int | None  # samples behind one batch-norm statistic; None without batch norm
    hand_over_s: float  # from the call that started the attempt until its ranks were ready
