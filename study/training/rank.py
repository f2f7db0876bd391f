"""One rank of a trial: a plain class, so that it runs with or without Ray."""

from __future__ import annotations

import os
import random
import warnings
from datetime import timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from study.config.schema import Probes, StudyConfig
from study.config.workloads import Contrastive, Custom, Workload
from study.planning.trials import TrialSpec
from study.training.compile_rehearsal import compile_children, rehearsal, rehearsing
from study.training.device_memory import give_back, limit_memory_to_share, place_splits, start_measuring, within_memory
from study.training.distributed.rendezvous import COLLECTIVE_TIMEOUT, join_group, open_store
from study.training.distributed.topology import RankTopology
from study.training.energy import EnergyMeter, open_meter
from study.training.fit_loop import TrialFit
from study.training.jobs.base import Job
from study.training.jobs.classifier import EmbeddedJob
from study.training.jobs.custom import CustomJob
from study.training.jobs.simclr import ContrastiveJob
from study.training.lightning_patches import ADVICE
from study.training.messages import RankReport
from study.training.snapshot import Resumed, State
from study.training.stepped_thread import SteppedThread
from study.workloads.data.batching import derived_seed
from study.workloads.data.splits import load_splits
from study.workloads.models.ghost_norm import with_ghost_norm
from study.workloads.models.networks import has_batch_norm
from study.workloads.user_code.lightning_package import derived


class Rank:
    """Keeps data and process group from trial to trial; the rest is new for each trial."""

    custom_job: type[CustomJob] = CustomJob  # of the user's own modules

    def __init__(self, topology: RankTopology, config: StudyConfig) -> None:
        _silence_advice()
        torch.set_num_threads(config.hardware.cpus_per_rank)
        self.topology, self.config = topology, config
        limit_memory_to_share(topology)
        # Variants may have data of their own.
        self._splits = cache(lambda workload: place_splits(load_splits(workload), topology))
        self._fit: SteppedThread[RankReport | None] | None = None
        self._trial: TrialFit | None = None
        self._store: Any = None
        # The driver's heartbeat detects a stuck rank before this timeout.
        self._patience = COLLECTIVE_TIMEOUT + timedelta(seconds=config.recovery.stuck_s)
        # A counter is of a whole GPU.
        metered = topology.device == "cuda" and topology.gpu_share == 1
        self._meter = open_meter([topology.gpu], os.environ) if metered else None

    def open_store(self, host: str) -> int:
        """Open the store where the group will meet, and return its port; on rank 0."""
        self._store, port = open_store(host, self.topology.world_size, self._patience)
        return port

    def join(self, host: str, port: int) -> None:
        """Join the group; a group of one has no other rank to meet."""
        if self.topology.world_size > 1:
            join_group(self.topology, host, port, self._patience, self._store)

    def begin(self, spec: TrialSpec, snapshot: bytes | None = None) -> int | None:
        """Make a trial ready to train, from its beginning or from a snapshot of its group.

        Return the samples behind one batch-norm statistic; None without batch norm. Raises OutOfMemory, and what the
        trial's own code raises.
        """
        return within_memory(partial(self._begin, spec, snapshot))

    def _begin(self, spec: TrialSpec, snapshot: bytes | None) -> int | None:
        config = self.config.variant(spec.cell.variant)
        if config.hardware.compile:
            self._rehearse(config, spec)
        start_measuring(self.topology)
        resumed = Resumed.read(snapshot, self.topology.rank) if snapshot is not None else None
        self._trial = self._trial_fit(config, spec, resumed, self._meter)
        self._fit = SteppedThread(self._trial.run)
        self._fit.start()
        if not has_batch_norm(self._trial.job.module):
            return None
        return config.ghost_batch or spec.batch.micro_batch

    def _rehearse(self, config: StudyConfig, spec: TrialSpec) -> None:
        """Compile for every shape of batch that the trial will have."""
        config, spec = config.model_copy(update={"probes": Probes()}), rehearsal(spec)
        with rehearsing():
            self._trial = self._trial_fit(config, spec, None, None)
            fit = SteppedThread(self._trial.run)
            fit.start()
            fit.go_on()
            fit.stop()
        self._trial = None
        give_back(self.topology)

    def _trial_fit(
        self, config: StudyConfig, spec: TrialSpec, resumed: Resumed | None, meter: EnergyMeter | None
    ) -> TrialFit:
        job = self._job(config, spec, resumed)
        fit = derived(TrialFit, job.lightning.pytorch.Callback)
        return fit(self.topology, config, spec, job, resumed, meter)

    def _job(self, config: StudyConfig, spec: TrialSpec, resumed: Resumed | None) -> Job:
        """Return a fresh module with its data, its weights drawn from the trial's seed."""
        seed = derived_seed(*spec.seed)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        job = self._of(config.workload, spec, resumed)
        if config.ghost_batch is not None:
            with_ghost_norm(job.module, config.ghost_batch)
        if config.hardware.channels_last:
            job.module.to(memory_format=torch.channels_last)
        if config.hardware.compile:
            compile_children(job.module)
        return job

    def _of(self, workload: Workload, spec: TrialSpec, resumed: Resumed | None) -> Job:
        if isinstance(workload, Custom):
            return self.custom_job(workload, spec, self.topology, resumed, self.config.objective)
        if isinstance(workload, Contrastive):
            return ContrastiveJob(workload, spec, self.topology, self._splits(workload), resumed)
        return EmbeddedJob(workload, spec, self.topology, self._splits(workload), resumed)

    def advance(self) -> RankReport:
        """Train up to the next report. Raises OutOfMemory; the rank is then free for the next trial."""
        assert self._fit is not None, "begin first"
        report = within_memory(self._fit.go_on)
        assert report is not None, "only `begin` is answered without a report"
        return report

    @property
    def progress(self) -> int:
        """A counter that grows whenever something got done; another thread may read it."""
        trial = self._trial
        return 0 if trial is None else trial.progress

    def snapshot(self) -> State:
        """Return this rank's part of a snapshot, at a report. Every rank must be asked; `join_parts` joins them."""
        assert self._fit is not None, "begin first"
        assert self._trial is not None, "with it"
        return self._fit.ask(self._trial.snapshot)

    def halt(self) -> None:
        """End the trial where it is; the rank is free for the next."""
        fit, self._fit = self._fit, None
        if fit is not None:
            fit.stop()
        self._trial = fit = None
        give_back(self.topology)


def _silence_advice() -> None:
    """Silence Lightning's advice to people who write training scripts: each rank and trial would repeat it."""
    for advice in ADVICE:
        warnings.filterwarnings("ignore", message=f".*{advice}")
