"""Runs a study, from its plan to a finished ledger."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import tune
from ray.tune.experiment import Trial

from study import __version__
from study.cluster.connection import connected
from study.cluster.metrics.export import Export
from study.cluster.sinks.dispatcher import Dispatcher
from study.cluster.target import LOCAL, ClusterTarget
from study.config.loader import config_hash, studied, to_yaml
from study.config.schema import StudyConfig
from study.errors import ConfigError, DiskError, LedgerError, error_context
from study.ledger.atomic_files import remove_unfinished, write_atomic
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, LimitRow, MistakeRow, StudyRow
from study.ledger.store import Ledger
from study.planning.capacity import check_capacity
from study.planning.trials import Plan
from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.ledger_writer import LedgerWriter, Observer
from study.tuning.limit_watch import LimitWatch
from study.tuning.messages import AttemptConfig
from study.tuning.progress import Progress
from study.tuning.recorder import Recorder
from study.tuning.trainable import TrialRun
from study.tuning.tune_callback import RecorderCallback
from study.tuning.tune_scheduler import LedgerScheduler
from study.tuning.tune_searcher import ClusterCapacity, PlanSearcher

RELEASE_TIMEOUT_S = 30.0
REPORT_TAKES_S = 60.0  # at most, to write one file of it


@dataclass(frozen=True)
class RunOutcome:
    """The end of one run of the driver."""

    finished: bool
    quarantined: str | None  # what was wrong with the ledger when it was opened
    cut: LimitRow | None = None  # the limit that was passed, unless the study has finished all the same
    mistake: MistakeRow | None = None  # the error of their own code that all trials failed with


def run_study(plan: Plan, folder: Path, target: ClusterTarget, cpus: int | None, observe: Observer) -> RunOutcome:
    """Run a new study in `folder`. `observe` is called with each row, once it is written.

    Raises ConfigError for a plan that cannot run on the cluster, and LedgerError if the folder already holds a study.
    """
    if StudyPaths(folder).ledger.exists():
        raise LedgerError(f"{folder}: holds a study already; `study resume {folder}` goes on with it")
    if plan.config.hardware.micro_batch == "auto":
        raise ConfigError("auto must be a number by now: see study.tuning.micro_batch_cache", "hardware.micro_batch")
    return resume_study(plan, folder, target, cpus, observe)


def resume_study(plan: Plan, folder: Path, target: ClusterTarget, cpus: int | None, observe: Observer) -> RunOutcome:
    """Run what the ledger in `folder` lacks, the whole study if there is no ledger yet.

    `observe` is called with each row, those of earlier drivers first.

    Raises LedgerError if the ledger was made under another config; limits, recovery and tracking may differ.
    """
    paths = StudyPaths(folder)
    sinks = Dispatcher(plan, folder)
    with Ledger(folder) as ledger, sinks:
        _refuse_other_config(plan.config, ledger)
        progress = Progress(plan, ledger.rows)
        metrics = None if target == LOCAL else Export(plan)  # no Prometheus scrapes a local Ray

        def show(row: AnyRow) -> None:
            observe(row)
            if metrics is not None:
                metrics.follow(row)
            sinks.follow(row)

        for row in ledger.rows:
            show(row)
        sinks.start()
        store = CheckpointStore(paths.checkpoints, plan.config.recovery.checkpoints)
        _tidy(folder, store, progress)
        writer = LedgerWriter(ledger, [progress.follow, show])
        recorder = Recorder(writer, progress, store)
        limits = LimitWatch(writer, progress, recorder.leases)
        recorder.settle()
        if ledger.rows and progress.finished and progress.state.mistake is None:
            return RunOutcome(True, ledger.quarantined)
        if (passed := limits.passed()) is not None:
            limits.record(passed)  # it may be another limit than the one before
            return RunOutcome(False, ledger.quarantined, passed)
        with connected(target, cpus) as nodes, metrics or nullcontext():
            check_capacity(nodes, plan.config.hardware)
            write_atomic(paths.config, to_yaml(plan.config))  # on a resume, limits may be others
            recorder.open_study(_study_row(plan.config, writer, sum(node.gpus for node in nodes)))
            capacity = ClusterCapacity(plan.config.hardware)
            searcher = PlanSearcher(progress, store, capacity)
            scheduler = LedgerScheduler(recorder, limits, progress, capacity)
            try:
                with error_context(DiskError, paths.scratch):
                    paths.scratch.mkdir(exist_ok=True)
                _tune(plan.config, paths.scratch.absolute(), searcher, scheduler, RecorderCallback(recorder))
            finally:
                _remove_scratch(folder)
                if writer.failure is not None:
                    raise writer.failure
            recorder.release(RELEASE_TIMEOUT_S)
        cut = None if progress.finished else progress.state.limit
        return RunOutcome(progress.finished, ledger.quarantined, cut, progress.state.mistake)


def _tidy(folder: Path, store: CheckpointStore, progress: Progress) -> None:
    """Remove what killed drivers have left. Young files of the report stay: another process may be writing them."""
    store.tidy(progress.state.ended.keys())
    remove_unfinished(folder)
    remove_unfinished(StudyPaths(folder).report, REPORT_TAKES_S)
    _remove_scratch(folder)


def _remove_scratch(folder: Path) -> None:
    shutil.rmtree(StudyPaths(folder).scratch, ignore_errors=True)  # the next driver tries again what fails now


def _tune(
    config: StudyConfig, scratch: Path, searcher: PlanSearcher, scheduler: LedgerScheduler, callback: RecorderCallback
) -> None:
    for name in ("ray.tune", "ray.train", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists failed trials, which the ledger does, too

    trainable = tune.with_parameters(TrialRun, study=config)
    trainable.__name__ = trainable.__qualname__ = TrialRun.__name__  # for Ray's pages; Tune's wrapping hides it
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            callbacks=[callback],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=config.max_retries),
            verbose=0,
        ),
    ).fit()


def _name(trial: Trial) -> str:
    return AttemptConfig.from_tune(trial.config).spec.trial_id


def _refuse_other_config(config: StudyConfig, ledger: Ledger) -> None:
    recorded = next((row for row in ledger.rows if isinstance(row, StudyRow)), None)
    if recorded is None or recorded.config_hash == config_hash(config):
        return
    try:
        # Keys that are newer than the ledger had their defaults.
        before = studied(StudyConfig.model_validate_json(json.dumps(recorded.config)))
    except ValidationError:
        before = recorded.config
    if changed := sorted(_differences(before, studied(config))):
        raise LedgerError(f"{ledger.path.parent}: was run under another config; changed: {', '.join(changed)}")


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)]
    return [] if old == new else [at]


def _study_row(config: StudyConfig, writer: LedgerWriter, gpus: float) -> StudyRow:
    first = next((row for row in writer.rows if isinstance(row, StudyRow)), None)
    packages = ["ray", "torch", "pytorch-lightning", "numpy"]
    packages += ["lightning"] if "lightning" in sys.modules else []  # imported by a user's module
    return StudyRow(
        **writer.stamp(),
        study_id=first.study_id if first else uuid.uuid4().hex[:12],
        config=config.model_dump(mode="json"),
        config_hash=config_hash(config),
        hardware={
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "cores": os.cpu_count(),
            "cluster_gpus": gpus,
        },
        versions={"study": __version__, "python": sys.version.split()[0]}
        | {package: version(package) for package in packages},
    )
