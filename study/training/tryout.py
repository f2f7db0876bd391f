"""Two batches of a user's own module, trained here and now, before anything is paid for."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from study.plan.batches import BatchPlan
from study.plan.config import Hardware, StudyConfig
from study.plan.errors import PlanError
from study.plan.trials import Plan, TrialSpec
from study.plan.workload import Custom, Workload
from study.training.custom_job import CustomJob
from study.training.jobs import Job
from study.training.place import Place
from study.training.rank import Rank
from study.training.snapshot import Resumed, join_parts
from study.workloads.custom import blaming, build_data
from study.workloads.loaders import check_batch_size, the_one

ALONE = Place(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
UPDATES = 2
MOST_SAMPLES = 32


def try_out(plan: Plan) -> None:
    """Train two batches and validate one, on the CPU, with every module of the user's that the plan has.

    Raises PlanError, which says what is missing in one line.
    """
    tried: list[Any] = []
    for name, config in plan.variants.items():
        same = (config.workload, config.ghost_batch)
        if isinstance(config.workload, Custom) and same not in tried:
            tried.append(same)
            cells = [cell for cell in plan.cells if cell.variant == name]
            specs = [plan.confirm_trials(cell, plan.rates(cell)[0])[0] for cell in cells]
            try:
                _try(config, config.workload, specs)
            except PlanError as error:
                raise PlanError(error.text, f"variants.{name}.{error.key}" if name else error.key) from error


def _try(config: StudyConfig, workload: Custom, specs: Sequence[TrialSpec]) -> None:
    sizes = sorted({spec.batch.micro_batch for spec in specs})
    asked = _few(sizes[0], config.ghost_batch)
    # A size that is written into a loader could be just the one that is tried: any other is asked for, too.
    other = sizes[-1] + asked
    with blaming("workload"):
        data = build_data(workload, other)
        data.prepare_data()
        data.setup("fit")
        check_batch_size(the_one(data.train_dataloader()), other)
        try:
            _train(config, _brief(specs[0], asked, workload.train_samples or 0))
        except ValueError as error:
            if (config.ghost_batch or asked) > 1 or "more than 1 value per channel" not in str(error):
                raise
            if config.ghost_batch:
                raise PlanError("is 1, on which batch norm cannot train", "ghost_batch") from error
            raise PlanError("a rank has a micro batch of 1, on which batch norm cannot train", "batch_sizes") from error


def _few(micro_batch: int, ghost_batch: int | None) -> int:
    """Samples enough to train on: the smallest micro batch, halved while it is large and even."""
    while micro_batch > MOST_SAMPLES and micro_batch % (2 * (ghost_batch or 1)) == 0:
        micro_batch //= 2
    return micro_batch


def _brief(spec: TrialSpec, micro_batch: int, samples: int) -> TrialSpec:
    """A trial of two updates on one rank."""
    stage = replace(
        spec.stages[0],
        updates=UPDATES,
        batch=BatchPlan(micro_batch, 1, micro_batch, 1),
        updates_per_epoch=min(UPDATES, samples // micro_batch),
    )
    cell = replace(spec.cell, variant="")
    return replace(spec, phase="search", cell=cell, stages=(stage,), report_at=(UPDATES,))


def _train(config: StudyConfig, spec: TrialSpec) -> None:
    rank = _BriefRank(ALONE, config.model_copy(update={"hardware": Hardware()}))
    try:
        rank.begin(spec)
        rank.advance()
        Resumed.read(join_parts([rank.snapshot()]), 0)
    except pickle.UnpicklingError as error:
        said = str(error).split(" Do it only")[0]
        raise PlanError(f"keeps in its checkpoint what cannot be read back: {said}", "workload.module") from error
    finally:
        rank.halt()


class _BriefRank(Rank):
    """Validates one batch."""

    def _of(self, workload: Workload, spec: TrialSpec, resumed: Resumed | None) -> Job:
        assert isinstance(workload, Custom)
        return _BriefJob(workload, spec, self.place, resumed)


class _BriefJob(CustomJob):
    def trainer_arguments(self) -> dict[str, Any]:
        return super().trainer_arguments() | {"limit_val_batches": 1}
