"""Microseconds that a study's trial adds to a step of a hand-written DDP loop, world size 2.

All train the same network on the same number of batches with the same optimizer, schedule and DDP options, in the same
two processes; the loop does nothing else. They take turns, since the machine's speed drifts: an overhead is the mean of
the turns' own differences, with a 95% interval, and a ratio the median of the turns' own. A study trial's figure is the
one it reports: training time of an interval after the first.

`mlp` and `convnet` are the package's own workloads; `own` is a user's module with DataLoaders (own_net.py), compared
with a loop over the same loaders and with a plain Lightning Trainer too.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment
from own_net import LR, SPLITS, OwnData, OwnNet, network
from scipy import stats
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from study.config.schema import Budget, Hardware, Search, StudyConfig
from study.config.workloads import Custom, Digits, Workload
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed import local_group as localgroup
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.rendezvous import PlacedEnvironment
from study.training.optimizers import build_optimizer, lr_factor
from study.workloads.data.batching import TrainBatches, derived_seed
from study.workloads.data.splits import load_splits
from study.workloads.models.networks import build_model
from study.workloads.user_code.lightning_package import derived

WARM_UPDATES = 30
WORLD_SIZE = 2
BATCHES = (32, 128, 256, 512)
UPDATES = {"mlp": 630, "convnet": 90, "own": 630}  # of a turn, the first 30 not timed
OWN = Custom(module="own_net:OwnNet", data="own_net:OwnData", train_samples=len(SPLITS.train.y), optimizer="module")
WORKLOADS: dict[str, Workload] = {
    "mlp": Digits(model="mlp", width=64),
    "convnet": Digits(model="convnet", width=32),
    "own": OWN,
}


def data_parallel(model: torch.nn.Module, **options: Any) -> DistributedDataParallel:
    """Return the network in DDP."""
    # Its substitute is not there in torch before 2.13.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def seconds_a_step(steps: int, began: float) -> float:
    """Return the mean time of a step since then."""
    return (time.perf_counter() - began) / steps


def loop(spec: TrialSpec) -> float:
    """Return seconds a step of the loop for a workload of the package, on one rank of the group's own processes."""
    rank = localgroup._rank
    config, splits = rank.config, load_splits(rank.config.workload)
    torch.manual_seed(derived_seed(*spec.seed))
    model = data_parallel(build_model(config.workload, splits), broadcast_buffers=False)
    optimizer = build_optimizer(config.optimizer, model.parameters(), spec.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: lr_factor(config.schedule, update, spec.total_updates)
    )
    began = 0.0
    for update, (x, y) in enumerate(TrainBatches(splits.train, spec.stages, rank.topology.rank, spec.seed)):
        if update == WARM_UPDATES:
            began = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return seconds_a_step(spec.total_updates - WARM_UPDATES, began)


def sampled(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """Return a loader of this rank's part, as DDP's tutorial has it."""
    rank = localgroup._rank.topology.rank
    sampler = DistributedSampler(loader.dataset, WORLD_SIZE, rank, drop_last=True)
    return DataLoader(loader.dataset, batch_size, sampler=sampler, drop_last=True)


def own_loop(spec: TrialSpec) -> float:
    """Return seconds a step of the loop over a user's loaders."""
    size = spec.batch.micro_batch
    loader = sampled(OwnData(size).train_dataloader(), size)
    model = data_parallel(network())
    optimizer = torch.optim.SGD(model.parameters(), LR, fused=True)
    update, epoch, began = 0, 0, 0.0
    while update < spec.total_updates:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for x, y in loader:
            if update == WARM_UPDATES:
                began = time.perf_counter()
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            update += 1
            if update == spec.total_updates:
                break
        epoch += 1
    return seconds_a_step(spec.total_updates - WARM_UPDATES, began)


class Stopwatch(pl.Callback):
    """Times the steps after the warm ones."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start."""
        if trainer.global_step == WARM_UPDATES:
            self.began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop."""
        self.step_s = seconds_a_step(trainer.global_step - WARM_UPDATES, self.began)


def plain_lightning(spec: TrialSpec) -> float:
    """Return seconds a step of a plain Trainer, with a user's module and loaders."""
    topology, watch, size = localgroup._rank.topology, Stopwatch(), spec.batch.micro_batch
    environment = derived(PlacedEnvironment, ClusterEnvironment)(topology)
    trainer = pl.Trainer(
        accelerator="cpu", devices=WORLD_SIZE, max_steps=spec.total_updates, callbacks=[watch],
        strategy=pl.strategies.DDPStrategy(cluster_environment=environment, gradient_as_bucket_view=True),
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(OwnNet(), sampled(OwnData(size).train_dataloader(), size))
    return watch.step_s


def profiled(trains: Callable[[TrialSpec], Any], spec: TrialSpec) -> str:
    """Return where the time of a training goes: the functions with most time of their own, for each step."""
    profiler = cProfile.Profile()
    profiler.enable()
    trains(spec)
    profiler.disable()
    found = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    rows = sorted(((own_s, calls, where) for where, (_, calls, own_s, _, _) in found), reverse=True)
    return "\n".join(
        f"{own_s / spec.total_updates * 1e6:8.1f} us {calls / spec.total_updates:6.1f} calls a step  "
        f"{os.path.basename(file)}:{line} {name}"
        for own_s, calls, (file, line, name) in rows[:25]
    )


def profile_study(spec: TrialSpec) -> str:
    """Return the profile of a study's trial on one rank, whose `fit` runs in a thread of its own."""
    from study.training.fit_loop import TrialFit

    rank, original, found = localgroup._rank, TrialFit.run, []

    def run(fit: TrialFit, thread: Any) -> None:
        found.append(profiled(lambda _: original(fit, thread), spec))

    TrialFit.run = run  # type: ignore[method-assign]
    rank.begin(spec)
    for _ in spec.report_at:
        rank.advance()
    rank.halt()
    TrialFit.run = original  # type: ignore[method-assign]
    return found[0]


def plan_of(workload: str, batch_size: int) -> tuple[StudyConfig, TrialSpec]:
    """Return a study, and its only trial."""
    updates = UPDATES[workload]
    config = StudyConfig(
        name="throughput",
        batch_sizes=(batch_size,),
        search=Search(lr=(1.0 if workload == "own" else 0.05,)),
        budget=Budget(updates=updates),
        workload=WORKLOADS[workload],
        hardware=Hardware(world_size=WORLD_SIZE),
    )
    plan = make_plan(config)
    spec = plan.confirm_trials(plan.cells[0], config.search.lr[0])[0]  # type: ignore[index]
    return config, replace(spec, phase="search", report_at=(WARM_UPDATES, updates))


def compare(workload: str, batch_size: int, turns: int, profile: bool) -> dict[str, list[float]]:
    """Return seconds a step of each turn, by who trains."""
    config, spec = plan_of(workload, batch_size)
    others: dict[str, Callable[[TrialSpec], Any]] = (
        {"loop": own_loop, "lightning": plain_lightning} if workload == "own" else {"loop": loop}
    )
    steps_s: dict[str, list[float]] = {name: [] for name in ("study", *others)}
    with LocalGroup(config, WORLD_SIZE) as group:
        for _ in range(turns):
            steps_s["study"].append(batch_size / group.run(spec)[-1].samples_per_s)
            for name, trains in others.items():
                steps_s[name].append(group.call(trains, spec)[0])
        if profile:
            print(f"\n{workload}, batch {batch_size}: a study's trial\n{group.call(profile_study, spec)[0]}")
            print(f"\n{workload}, batch {batch_size}: the loop\n{group.call(profiled, others['loop'], spec)[0]}")
    return steps_s


def overhead(study: list[float], other: list[float]) -> tuple[float, float]:
    """Return the mean difference of the turns in microseconds, and half the width of its 95% t interval."""
    differences = [(a - b) * 1e6 for a, b in zip(study, other, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.mean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * error


def ratio(study: list[float], other: list[float]) -> float:
    """Return the median of the turns' ratios of speeds."""
    return statistics.median(b / a for a, b in zip(study, other, strict=True))


def main() -> None:
    """Compare every workload and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--profile", action="store_true", help="also print where the time of a step goes")
    arguments = parser.parse_args()
    if arguments.turns < 2:
        parser.error("--turns: at least 2, for an interval")
    rows: list[dict[str, object]] = []
    ratios: dict[str, dict[int, float]] = {name: {} for name in arguments.workloads}
    overhead_us: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in arguments.workloads}
    over_lightning: dict[int, float] = {}
    for workload in arguments.workloads:
        for batch_size in arguments.batches:
            steps_s = compare(workload, batch_size, arguments.turns, arguments.profile)
            mean, half = overhead(steps_s["study"], steps_s["loop"])
            ratios[workload][batch_size] = ratio(steps_s["study"], steps_s["loop"])
            overhead_us[workload][batch_size] = mean, half
            row: dict[str, object] = {
                "workload": workload, "batch": batch_size,
                "study us": round(statistics.median(steps_s["study"]) * 1e6),
                "loop us": round(statistics.median(steps_s["loop"]) * 1e6),
                "more us": f"{mean:.0f} +- {half:.0f}", "over the loop": ratios[workload][batch_size],
            }  # fmt: skip
            if workload == "own":
                over_lightning[batch_size] = ratio(steps_s["study"], steps_s["lightning"])
            rows.append(row | {"over Lightning": over_lightning.get(batch_size, "") if workload == "own" else ""})
    from show import show

    result = {"ratios": ratios, "overhead_us": overhead_us}
    if "own" in ratios:
        result |= {"own_over_lightning": over_lightning, "own_over_loop": ratios["own"]}  # type: ignore[dict-item]
    show(f"A step of a study's trial, and of a hand-written DDP loop, {WORLD_SIZE} ranks", rows, result, arguments.json)


if __name__ == "__main__":
    main()
