"""The largest micro batch that a GPU holds, found by training on it."""

from __future__ import annotations

from dataclasses import replace

from study.config.schema import StudyConfig
from study.planning.batch_split import BatchPlan, divisors, largest
from study.planning.trials import Plan, Stage, TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.messages import OutOfMemory
from study.training.rank import Rank

HEADROOM = 0.1  # of the memory left free: for nccl, and for what fragments over the trials of a warm group


def sizes_of(plan: Plan) -> list[int]:
    """Return every micro batch that a trial of the plan could have, ascending: divisors of a rank's part of a batch."""
    specs = (plan.confirm_trials(cell, plan.rates(cell)[0])[0] for cell in plan.cells)
    locals_ = {stage.batch.global_batch // stage.batch.world_size for spec in specs for stage in spec.stages}
    return sorted({size for local in locals_ for size in divisors(local)})


def largest_micro_batch(plan: Plan, topology: RankTopology) -> tuple[int, int]:
    """Return the largest of `sizes_of(plan)` that every variant trains on, 0 if there is none; and how many were tried.

    `topology` is of a group of one. Raises what a trial raises, except OutOfMemory.
    """
    sizes, tried = sizes_of(plan), set()
    rank = Rank(replace(topology, gpu_share=(1 - HEADROOM) * topology.gpu_share), plan.config)

    def fits(count: int) -> bool:
        size = sizes[count - 1]
        tried.add(size)
        return all(_trains(rank, spec) for spec in _trials_of(plan, size))

    found = largest(fits, len(sizes))
    return (sizes[found - 1] if found else 0), len(tried)


def _trials_of(plan: Plan, size: int) -> list[TrialSpec]:
    """Return one short trial for each variant that can have micro batches of this size.

    Two updates, since the first makes the optimizer's state; of two parts, since gradients then lie beside activations.
    """
    specs = []
    for name, config in plan.variants.items():
        if _can_have(config, size):
            cell = next(cell for cell in plan.cells if cell.variant == name)
            parts = 2 if 2 * size <= plan.train_samples else 1
            batch = BatchPlan(parts * size, 1, size, parts)
            stage = Stage(0, 2, batch, plan.train_samples // batch.global_batch, 1.0)
            spec = plan.confirm_trials(cell, plan.rates(cell)[0])[0]
            specs.append(replace(spec, phase="search", stages=(stage,), report_at=(2,)))
    return specs


def _can_have(config: StudyConfig, size: int) -> bool:
    return config.ghost_batch is None or size % config.ghost_batch == 0


def _trains(rank: Rank, spec: TrialSpec) -> bool:
    try:
        rank.begin(spec)
        rank.advance()
    except OutOfMemory:
        return False
    finally:
        rank.halt()
    return True
