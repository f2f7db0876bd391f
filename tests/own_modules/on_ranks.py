"""Trials of the modules in `users`, on one rank here or on two ranks that have met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor

from study.config.schema import StudyConfig
from study.planning.batch_split import BatchPlan
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed import local_group as localgroup
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.preflight.dry_run import DryRunRank, dry_run
from study.training.rank import Rank
from study.training.snapshot import State, join_parts
from tests.conftest import make_config
from tests.own_modules.user_modules import SAMPLES

BATCH = 24
ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")


def workload(**changes: Any) -> dict[str, Any]:
    """Of `user_modules`: `module="Reduced"` names a class there, `module="batch_shapes:TextNet"` elsewhere."""
    named = {key: _path(changes.pop(key, default)) for key, default in _CLASSES.items()}
    return {**named, "train_samples": SAMPLES, "val_accuracy": "val_acc", **changes}


_CLASSES = {"module": "Net", "data": "Data"}


def _path(name: str | None) -> str | None:
    return name and f"tests.own_modules.{name if ':' in name else f'user_modules:{name}'}"


def own(world_size: int = 1, budget: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
    """A study of one workload."""
    return make_config(
        workload=workload(**changes), batch_sizes=[BATCH], hardware={"world_size": world_size},
        budget=budget or {"epochs": 2}, search={"lr": [0.1]}, schedule={"kind": "constant", "warmup_fraction": 0.0},
        optimizer={"momentum": 0.0}, confirm={"seeds": 2},
    )  # fmt: skip


def spec_of(config: StudyConfig, accumulation: int = 1, seed: int = 0) -> TrialSpec:
    """A confirm trial."""
    plan = make_plan(config)
    spec = plan.confirm_trials(plan.cells[0], 0.1)[seed]
    ranks = spec.batch.world_size
    batch = BatchPlan(BATCH, ranks, BATCH // ranks // accumulation, accumulation)
    return replace(spec, stages=(replace(spec.stages[0], batch=batch),))


@dataclass(frozen=True)
class Outcome:
    """What one rank saw of a trial."""

    reports: list[RankReport]
    error: str | None
    seen: list[list[int]]  # samples of each micro batch
    weights: list[Tensor]
    notes: list[str]


def run(rank: Rank, spec: TrialSpec, pausing: bool = False) -> Outcome:
    """Train a trial to its end, or to its error; if it pauses, it goes on from a snapshot after each report."""
    reports: list[RankReport] = []
    seen: list[list[int]] = []
    error: str | None = None
    job: Any = None
    try:
        rank.begin(spec)
        job = rank._trial.job  # type: ignore[union-attr]
        while True:
            reports.append(rank.advance())
            if reports[-1].final:
                break
            if pausing:
                snapshot = join_parts(_of_all_ranks(rank.snapshot()))
                rank.halt()
                seen += job.module.seen
                rank.begin(spec, snapshot)
                job = rank._trial.job  # type: ignore[union-attr]
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    rank.halt()
    if job is None:
        return Outcome(reports, error, seen, [], [])
    weights = [weight.detach().clone() for weight in job.module.parameters()]
    return Outcome(reports, error, seen + job.module.seen, weights, job.notes)


def _of_all_ranks(part: State) -> list[State]:
    """Each rank's part of a snapshot."""
    if not dist.is_initialized():
        return [part]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def alone(config: StudyConfig, spec: TrialSpec | None = None, pausing: bool = False) -> Outcome:
    """On one rank, in this process."""
    return run(Rank(ALONE, config), spec or spec_of(config), pausing)


def together(
    group: LocalGroup, config: StudyConfig, spec: TrialSpec | None = None, pausing: bool = False
) -> Sequence[Outcome]:
    """On each rank of a group that stays as it is, whatever is raised."""
    return group.call(_run_here, config, spec or spec_of(config), pausing)


def tried_together(group: LocalGroup, config: StudyConfig, parts: int = 1) -> Sequence[list[str] | str]:
    """On each rank, the notes of a trial as `study check` tries it, or its error."""
    return group.call(_try_here, config, spec_of(config), parts)


def notes_of(config: StudyConfig) -> list[str]:
    """The notes with which `study check` ends."""
    return [note for tried in dry_run(make_plan(config)) for note in tried.notes]


def _run_here(config: StudyConfig, spec: TrialSpec, pausing: bool) -> Outcome:
    return run(Rank(localgroup._rank.topology, config), spec, pausing)


def _try_here(config: StudyConfig, spec: TrialSpec, parts: int) -> list[str] | str:
    spec = replace(spec, phase="search", report_at=(2, 3), stages=(replace(spec.stages[0], updates=3),))
    try:
        return list(DryRunRank(localgroup._rank.topology, config).dry_run(spec, parts).notes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
