"""Samples per second of a study trial over those of a hand-written loop, on one GPU; says so where there is none.

Both train the same network on the same batches at the same precision with the same optimizer and schedule, in one
process; the loop does nothing else. The two take turns; each speed is the median over the turns, and the ratio the
median of each turn's own. A study trial's figures are those it reports: training time after the first interval. Energy
is that of NVML's counter over the same time, and for the trial one validation besides. The images are noise: how fast a
network learns from them is not asked. Last, the largest micro batch is looked for, as `micro_batch: auto` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.config.schema import Budget, Hardware, Search, StudyConfig
from study.config.workloads import ImageFolder, Workload
from study.planning.trials import Plan, TrialSpec, make_plan
from study.training.device_memory import peak_bytes, place_splits, start_measuring
from study.training.distributed.topology import RankTopology
from study.training.energy import EnergyMeter, open_meter
from study.training.optimizers import build_optimizer, lr_factor
from study.training.preflight.micro_batch import largest_micro_batch
from study.training.rank import Rank
from study.workloads.data.batching import TrainBatches, derived_seed
from study.workloads.data.splits import load_splits
from study.workloads.models.networks import build_model, eval_mode

LR = 0.05
IMAGES, VAL_IMAGES = 50_000, 1_000
WARM_UPDATES = 30
CASES: tuple[dict[str, Any], ...] = (
    {"batch": 128, "precision": "32"},
    {"batch": 128, "precision": "bf16-mixed"},
    {"batch": 1024, "precision": "32"},
    {"batch": 1024, "precision": "bf16-mixed"},
    {"batch": 1024, "precision": "bf16-mixed", "channels_last": True},
)


@dataclass(frozen=True)
class Turn:
    """One side's turn."""

    samples_per_s: float
    j_per_1000: float | None  # None without a meter
    peak_bytes: int | None  # None on the CPU
    val_loss: float


def loop(config: StudyConfig, spec: TrialSpec, topology: RankTopology, meter: EnergyMeter | None = None) -> Turn:
    """The hand-written loop."""
    splits, device = place_splits(load_splits(config.workload), topology), topology.torch_device
    layout = torch.channels_last if config.hardware.channels_last else torch.preserve_format
    start_measuring(topology)
    torch.manual_seed(derived_seed(*spec.seed))
    model = build_model(config.workload, splits).to(device, memory_format=layout)
    optimizer = build_optimizer(config.optimizer, model.parameters(), spec.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: lr_factor(config.schedule, update, spec.total_updates)
    )
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=config.hardware.precision == "bf16-mixed")
    began, began_j = 0.0, None
    for update, (x, y) in enumerate(TrainBatches(splits.train, spec.stages, 0, spec.seed)):
        if update == spec.report_at[0]:
            began, began_j = _now(device), meter and meter.joules()
        optimizer.zero_grad()
        with mixed:
            loss = cross_entropy(model(x.to(memory_format=layout)), y)
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = _now(device) - began
    samples = _timed_samples(spec)
    peak = peak_bytes(topology)
    with eval_mode(model), torch.no_grad(), mixed:
        val_loss = _mean_loss(model, splits.val.x.to(device), splits.val.y.to(device))
    return Turn(samples / seconds, _per_1000(began_j, meter and meter.joules(), samples), peak, val_loss)


def study_trial(rank: Rank, spec: TrialSpec) -> Turn:
    """The product's."""
    rank.begin(spec)
    first, last = (rank.advance() for _ in spec.report_at)
    rank.halt()
    return Turn(
        last.samples_per_s,
        _per_1000(first.energy_j, last.energy_j, _timed_samples(spec)),
        last.peak_memory_bytes,
        last.val_loss,
    )


def plan_of(workload: Workload, batch: int, updates: int, **hardware: object) -> Plan:
    """A study of one trial, which reports when it is warm and at its end."""
    return make_plan(
        StudyConfig(
            name="gpu",
            batch_sizes=(batch,),
            search=Search(lr=(LR,)),
            budget=Budget(updates=updates, report_every_updates=min(WARM_UPDATES, updates - 1)),
            workload=workload,
            hardware=Hardware(**hardware),
        )
    )


def trial_of(plan: Plan) -> TrialSpec:
    """That trial."""
    spec = plan.confirm_trials(plan.cells[0], LR)[0]
    return replace(spec, phase="search", report_at=(spec.report_at[0], spec.report_at[-1]))


def take_turns(plan: Plan, topology: RankTopology, turns: int) -> tuple[list[Turn], list[Turn]]:
    """Turns of (study, loop), one after the other."""
    spec, rank = trial_of(plan), Rank(topology, plan.config)
    meter = open_meter([topology.gpu], os.environ) if topology.device == "cuda" else None
    both = [(study_trial(rank, spec), loop(plan.config, spec, topology, meter)) for _ in range(turns)]
    return [study for study, _ in both], [by_hand for _, by_hand in both]


def median_ratio(study: Sequence[Turn], by_hand: Sequence[Turn]) -> float:
    """The median of the turns' own ratios."""
    return statistics.median(s.samples_per_s / raw.samples_per_s for s, raw in zip(study, by_hand, strict=True))


def write_noise(folder: Path, images: int, test_images: int) -> None:
    """Files as CIFAR-10's binary version has them, five for training and one for the test: label, then pixels."""
    rng = np.random.default_rng(0)
    for name, n in (*((f"data_batch_{i}", images // 5) for i in range(1, 6)), ("test_batch", test_images)):
        records = rng.integers(0, 256, (n, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def _timed_samples(spec: TrialSpec) -> int:
    return spec.samples_at(spec.report_at[-1]) - spec.samples_at(spec.report_at[0])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _per_1000(began_j: float | None, ended_j: float | None, samples: int) -> float | None:
    return None if began_j is None or ended_j is None else 1000 * (ended_j - began_j) / samples


def _mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    losses = [cross_entropy(model(a), b, reduction="sum") for a, b in zip(x.split(1024), y.split(1024), strict=True)]
    return float(torch.stack(losses).sum()) / len(y)


def _median(turns: Sequence[Turn], of: Callable[[Turn], float | None]) -> float | None:
    known = [value for turn in turns if (value := of(turn)) is not None]
    return statistics.median(known) if known else None


def measure(topology: RankTopology, workload: Workload, turns: int, updates: int) -> list[dict[str, Any]]:
    """A row for each case."""
    rows = []
    for case in CASES:
        hardware = {key: value for key, value in case.items() if key != "batch"} | {"gpus_per_rank": 1.0}
        study, by_hand = take_turns(plan_of(workload, case["batch"], updates, **hardware), topology, turns)
        row: dict[str, Any] = {
            "precision": str(case["precision"]) + (", channels last" if case.get("channels_last") else ""),
            "batch": case["batch"],
            "study samples/s": round(statistics.median(turn.samples_per_s for turn in study)),
            "loop samples/s": round(statistics.median(turn.samples_per_s for turn in by_hand)),
            "ratio": median_ratio(study, by_hand),
        }
        for name, side in (("study", study), ("loop", by_hand)):
            row[f"{name} J/1000"] = _median(side, lambda turn: turn.j_per_1000)
            peak = _median(side, lambda turn: turn.peak_bytes)
            row[f"{name} peak GB"] = peak and peak / 1e9
        rows.append(row)
    return rows


def main() -> None:
    """Compare every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--updates", type=int, default=230, help="of each turn, the first 30 not timed")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing to measure.")
        return
    from show import show

    topology = RankTopology(0, 1, 0, 1, 0, "cuda")
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), IMAGES, VAL_IMAGES)
        workload = ImageFolder(kind="cifar10", path=folder, images=IMAGES, val_samples=VAL_IMAGES)
        rows = measure(topology, workload, arguments.turns, arguments.updates)
        largest, tried = largest_micro_batch(plan_of(workload, 32_768, 2, gpus_per_rank=1.0), topology)
    ratios = [row["ratio"] for row in rows]
    show(f"A study trial over a hand-written loop, {torch.cuda.get_device_name(0)}", rows, {}, False)
    print(f"Largest micro batch at precision 32: {largest}, {tried} sizes tried.")
    if arguments.json:
        result = {"gpu": torch.cuda.get_device_name(0), "least_ratio": min(ratios), "cases": rows}
        print(json.dumps(result | {"largest_micro_batch": largest}))


if __name__ == "__main__":
    main()
