"""Samples per second of a study trial over those of a hand-written DDP loop, world size 2.

Both train the same network on the same batches with the same optimizer, schedule and DDP options, in the same two
processes; the loop does nothing else. The two take turns; each speed is the median over the turns, and the ratio the
median of each turn's own, since the machine's speed drifts from turn to turn. A study trial's figure is the one it
reports: training time of an interval after the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from dataclasses import replace

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from study.config.schema import Budget, Hardware, Search, StudyConfig
from study.config.workloads import Digits
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed import local_group as localgroup
from study.training.distributed.local_group import LocalGroup
from study.training.optimizers import build_optimizer, lr_factor
from study.workloads.data.batching import TrainBatches, derived_seed
from study.workloads.data.splits import load_splits
from study.workloads.models.networks import build_model

WARM_UPDATES = 30
WORLD_SIZE = 2
MODELS = {"mlp": Digits(model="mlp", width=64), "convnet": Digits(model="convnet", width=32)}


def raw_samples_per_s(spec: TrialSpec) -> float:
    """The hand-written loop, on one rank of the group's own processes."""
    rank = localgroup._rank
    config, splits = rank.config, load_splits(rank.config.workload)
    torch.manual_seed(derived_seed(*spec.seed))
    # Its substitute is not there in torch before 2.13.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    model = DistributedDataParallel(
        build_model(config.workload, splits), broadcast_buffers=False, gradient_as_bucket_view=True
    )
    optimizer = build_optimizer(config.optimizer, model.parameters(), spec.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: lr_factor(config.schedule, update, spec.total_updates)
    )
    batches = TrainBatches(splits.train, spec.stages, rank.topology.rank, spec.seed)
    began = 0.0
    for update, (x, y) in enumerate(batches):
        if update == WARM_UPDATES:
            began = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return (spec.total_updates - WARM_UPDATES) * spec.batch.global_batch / (time.perf_counter() - began)


def compare(model: str, batch_size: int, turns: int, updates: int) -> tuple[float, float, float]:
    """Median samples per second of (study, loop), and the median of the turns' ratios."""
    config = StudyConfig(
        name="throughput",
        batch_sizes=(batch_size,),
        search=Search(lr=(0.05,)),
        budget=Budget(updates=updates),
        workload=MODELS[model],
        hardware=Hardware(world_size=WORLD_SIZE),
    )
    plan = make_plan(config)
    spec = replace(plan.confirm_trials(plan.cells[0], 0.05)[0], phase="search", report_at=(WARM_UPDATES, updates))
    study, loop = [], []
    with LocalGroup(config, WORLD_SIZE) as group:
        for _ in range(turns):
            study.append(group.run(spec)[-1].samples_per_s)
            loop.append(group.call(raw_samples_per_s, spec)[0])
    ratio = statistics.median(s / raw for s, raw in zip(study, loop, strict=True))
    return statistics.median(study), statistics.median(loop), ratio


def main() -> None:
    """Compare every model and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--updates", type=int, default=130, help="of each turn, the first 30 not timed")
    arguments = parser.parse_args()
    rows = []
    for model in MODELS:
        for batch_size in (32, 128, 256, 512):
            study, loop, ratio = compare(model, batch_size, arguments.turns, arguments.updates)
            row = {"model": model, "batch": batch_size, "study samples/s": round(study), "loop samples/s": round(loop)}
            rows.append(row | {"ratio": ratio})
    ratios = {model: {row["batch"]: row["ratio"] for row in rows if row["model"] == model} for model in MODELS}
    from show import show

    show(
        f"A study trial over a hand-written DDP loop, {WORLD_SIZE} ranks",
        rows,
        {"convnet_b128_ratio": ratios["convnet"][128], "mlp_b32_ratio": ratios["mlp"][32], "ratios": ratios},
        arguments.json,
    )


if __name__ == "__main__":
    main()
