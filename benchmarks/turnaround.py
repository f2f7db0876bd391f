"""How long a grid of short trials takes from end to end: warm groups against one TorchTrainer per trial.

The peer follows Ray's guide for tuning Ray Train runs: a Tune function calls `TorchTrainer.fit()` for each trial and
`TuneReportCallback` hands its metrics on. It gets 64 logical CPUs, since its driver, controller and workers all ask
for some, and a health check every 0.1 s instead of 2 s. It saves no checkpoints, which spares it their upload.

Both sides train the same trials with the same module, batches and reports, one trial of two ranks at a time, on a Ray
that is up already; each side has a Ray of its own. Nothing is stopped early, so that both train exactly the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"

import ray

from study.cluster.target import LOCAL
from study.config.schema import Budget, Confirm, Hardware, Search, StudyConfig
from study.planning.trials import Plan, TrialSpec, make_plan

WORLD_SIZE = 2
PEER_CPUS = 64


def grid(seeds: int) -> Plan:
    """Six batch sizes at one rate, some seeds each: no search, so every trial is known before the start."""
    return make_plan(
        StudyConfig(
            name="turnaround",
            batch_sizes=(32, 64, 128, 256, 512, 1024),
            search=Search(lr=(0.1,)),
            budget=Budget(epochs=6),
            confirm=Confirm(seeds=seeds),
            hardware=Hardware(world_size=WORLD_SIZE),
        )
    )


def trials(plan: Plan) -> list[TrialSpec]:
    """The plan's trials."""
    return [spec for cell in plan.cells for spec in plan.confirm_trials(cell, plan.rates(cell)[0])]


def run_study_side(plan: Plan) -> dict[str, float]:
    """Through warm groups; a hand-over is from a trial's last decision to the next one's ranks being ready."""
    from study.ledger.schema import AttemptRow, DecisionRow, LeaseRow
    from study.ledger.store import read
    from study.tuning.driver import run_study

    ray.init("local", num_cpus=WORLD_SIZE, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_study(plan, Path(folder), LOCAL, None, lambda row: None)
        wall_s = time.perf_counter() - began
        rows = read(Path(folder)).rows
    gaps, last_s = [], None
    for row in rows:
        if isinstance(row, DecisionRow) and row.decision == "stop":
            last_s = row.at_s
        elif isinstance(row, AttemptRow) and last_s is not None:
            gaps.append(row.at_s - last_s)
    leases = [row for row in rows if isinstance(row, LeaseRow)]
    idle_s, billed_s = sum(lease.phases_s["idle"] for lease in leases), sum(lease.billed_s for lease in leases)
    return {
        "wall_s": wall_s,
        "hand_over_s_median": statistics.median(gaps),
        "idle_fraction": idle_s / billed_s,
        "trials": len(gaps) + 1,
    }


def peer_worker(loop: dict[str, object]) -> None:
    """One rank of the peer: the same module, batches and optimizer, reported at every validation."""
    sys.modules["lightning"] = None  # type: ignore[assignment]  # Ray would take it, if it is there, for pytorch_lightning
    import pytorch_lightning as pl
    import torch
    from ray import train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, prepare_trainer

    from study.training.distributed.topology import RankTopology
    from study.training.jobs.classifier import EmbeddedJob
    from study.training.optimizers import set_optimizers
    from study.workloads.data.batching import derived_seed
    from study.workloads.data.splits import load_splits

    config, spec = loop["config"], loop["spec"]
    assert isinstance(config, StudyConfig)
    assert isinstance(spec, TrialSpec)
    rank = train.get_context().get_world_rank()
    torch.set_num_threads(1)
    torch.manual_seed(derived_seed(*spec.seed))
    topology = RankTopology(rank, WORLD_SIZE, rank, WORLD_SIZE, 0, "cpu")
    job = EmbeddedJob(config.workload, spec, topology, load_splits(config.workload), None)
    set_optimizers(job.module, config, spec)

    class Report(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            measured = job.metrics(trainer)
            train.report({"val_accuracy": measured.val_accuracy, "train_loss": measured.train_loss})

    trainer = prepare_trainer(
        pl.Trainer(
            accelerator="cpu",
            devices="auto",
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
            callbacks=[Report()],
            max_epochs=1,  # the batches are those of the whole trial
            val_check_interval=spec.updates_per_epoch,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    )
    trainer.fit(job.module, **job.fit_arguments())


def peer_trial(space: dict[str, object]) -> None:
    """The Tune function of the guide."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        peer_worker,
        train_loop_config=space["loop"],
        scaling_config=ScalingConfig(num_workers=WORLD_SIZE, use_gpu=False),
        run_config=RunConfig(storage_path=str(space["folder"]), callbacks=[TuneReportCallback()]),
    ).fit()


def run_peer_side(plan: Plan) -> dict[str, float]:
    """Through one TorchTrainer a trial."""
    from ray import tune

    ray.init("local", num_cpus=PEER_CPUS, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        space = {
            "loop": tune.grid_search([{"config": plan.config, "spec": spec} for spec in trials(plan)]),
            "folder": folder,
        }
        tuner = tune.Tuner(
            peer_trial,
            param_space=space,
            tune_config=tune.TuneConfig(max_concurrent_trials=1, trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the CSV loggers that are off
        began = time.perf_counter()
        results = tuner.fit()
        wall_s = time.perf_counter() - began
    if results.errors:
        raise SystemExit(f"the peer failed: {results.errors[0]}")
    accuracies = [result.metrics["val_accuracy"] for result in results]
    return {"wall_s": wall_s, "trials": len(accuracies)}


def main() -> None:
    """Run each side in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seeds", type=int, default=2, help="trials of each of the six batch sizes")
    parser.add_argument("--side", choices=["study", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = run_study_side if arguments.side == "study" else run_peer_side
        print(json.dumps(side(grid(arguments.seeds))))
        return
    sides = {}
    for side_name in ("study", "peer"):
        command = [sys.executable, __file__, "--side", side_name, "--seeds", str(arguments.seeds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        sides[side_name] = json.loads(done.stdout.splitlines()[-1])
    from show import show

    study, peer = sides["study"], sides["peer"]
    ratio = peer["wall_s"] / study["wall_s"]
    show(
        f"{study['trials']} trials of {WORLD_SIZE} ranks, from end to end",
        [
            {
                "side": "one TorchTrainer a trial",
                "wall_s": peer["wall_s"],
                "hand_over_s (median)": "-",
                "idle": "-",
                "ratio": ratio,
            },
            {
                "side": "warm groups",
                "wall_s": study["wall_s"],
                "hand_over_s (median)": study["hand_over_s_median"],
                "idle": f"{study['idle_fraction']:.0%} of the bill",
                "ratio": 1.0,
            },
        ],
        {
            "end_to_end_ratio": ratio,
            "hand_over_s_median": study["hand_over_s_median"],
            "idle_fraction": study["idle_fraction"],
            "peer_wall_s": peer["wall_s"],
            "study_wall_s": study["wall_s"],
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
