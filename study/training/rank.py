"""One rank of a trial: a plain class, so that it runs with or without Ray."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch

from study.plan.config import StudyConfig
from study.plan.trials import TrialSpec
from study.plan.workload import Contrastive, Custom
from study.training.contrastive_job import ContrastiveJob
from study.training.handover import HandOver
from study.training.jobs import CustomJob, EmbeddedJob, Job
from study.training.lean import NoProfiler, no_sigterm_broadcast, remember_entry_points
from study.training.optimizers import lightning_optimizers
from study.training.place import Place, join_group, open_store
from study.training.report import Report
from study.training.snapshot import InMemory, Resumed, State, generators, set_generators
from study.training.strategies import strategy
from study.workloads.batching import derived_seed
from study.workloads.data import Splits
from study.workloads.models import has_batch_norm
from study.workloads.registry import load_splits


class Rank:
    """Keeps data and process group from trial to trial; everything else is new for each."""

    def __init__(self, place: Place, config: StudyConfig) -> None:
        _quieten()
        remember_entry_points()
        torch.set_num_threads(config.hardware.cpus_per_rank)
        self.place, self.config = place, config
        self._splits: Splits | None = None
        self._fit: HandOver[Report | None] | None = None
        self._store: Any = None

    def open_store(self, host: str) -> int:
        """On rank 0: where the group will meet."""
        self._store, port = open_store(host, self.place.world_size)
        return port

    def join(self, host: str, port: int) -> None:
        """Meet the other ranks. A group of one has nobody to meet."""
        if self.place.world_size > 1:
            join_group(self.place, host, port, self._store)

    def begin(self, spec: TrialSpec, snapshot: bytes | None = None) -> int | None:
        """Make a trial ready to train, from its beginning or from a snapshot of its group; returns the samples
        behind one batch-norm statistic, if there is any.
        """
        torch.manual_seed(derived_seed(*spec.seed))
        resumed = Resumed.read(snapshot, self.place.rank) if snapshot is not None else None
        job = self._job(spec, resumed)
        self._trial = TrialFit(self.place, self.config, spec, job, resumed)
        self._fit = HandOver(self._trial.run)
        self._fit.start()
        return spec.batch.micro_batch if has_batch_norm(job.module) else None

    def _job(self, spec: TrialSpec, resumed: Resumed | None) -> Job:
        workload = self.config.workload
        if isinstance(workload, Custom):
            return CustomJob(workload, spec, resumed)
        if self._splits is None:
            self._splits = load_splits(workload)
        if isinstance(workload, Contrastive):
            return ContrastiveJob(workload, spec, self.place, self._splits, resumed)
        return EmbeddedJob(workload, spec, self.place, self._splits, resumed)

    def advance(self) -> Report:
        """Train up to the next report."""
        assert self._fit is not None, "begin first"
        report = self._fit.go_on()
        assert report is not None, "only `begin` is answered without a report"
        return report

    def snapshot(self) -> State:
        """This rank's part of a snapshot, at a report. Every rank must be asked; `join_parts` makes one of them."""
        assert self._fit is not None, "begin first"
        return self._fit.ask(self._trial.snapshot)

    def halt(self) -> None:
        """End the trial where it is; the rank is free for the next."""
        fit, self._fit = self._fit, None
        if fit is not None:
            fit.stop()


class TrialFit(pl.Callback):
    """One call of Lightning's `fit`, which hands over a Report at every validation."""

    def __init__(self, place: Place, config: StudyConfig, spec: TrialSpec, job: Job, resumed: Resumed | None) -> None:
        self.place, self.config, self.spec, self.job = place, config, spec, job
        self.resumed = resumed
        # Reports handed over, in attempts before this one too.
        self.reported = spec.report_at.index(resumed.updates) + 1 if resumed else 0
        self.train_s = self.validate_s = 0.0

    def run(self, hand_over: HandOver[Report | None]) -> None:
        """Fit, in the thread of `hand_over`."""
        self.hand_over = hand_over
        spec, module = self.spec, self.job.module
        module.configure_optimizers = lambda: lightning_optimizers(  # type: ignore[method-assign]
            self.config.optimizer, self.config.schedule, module.parameters(), spec.lr, spec.total_updates
        )
        self.checkpoints = InMemory(self.resumed.checkpoint if self.resumed else None)
        self.trainer = trainer = pl.Trainer(
            plugins=[self.checkpoints],
            accelerator=self.place.device,
            devices=self.place.local_world_size,
            num_nodes=self.place.world_size // self.place.local_world_size,
            strategy=strategy(self.place, self.job),
            profiler=NoProfiler(),
            precision=self.config.hardware.precision,
            max_epochs=-1,
            max_steps=spec.total_updates,
            accumulate_grad_batches=spec.batch.accumulation,
            check_val_every_n_epoch=None,  # validations are counted in batches, across epochs
            val_check_interval=self._batches_at(self.reported),
            num_sanity_val_steps=0,
            callbacks=[self],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **self.job.trainer_arguments(),
        )
        no_sigterm_broadcast(trainer)
        trainer.fit(module, **self.job.fit_arguments(), ckpt_path="at hand" if self.resumed else None)

    def snapshot(self) -> State:
        """What this rank adds to a snapshot. Every rank must call it, at the same report."""
        self.trainer.save_checkpoint("at hand")
        return {
            "updates": self.spec.report_at[self.reported - 1],
            "checkpoint": self.checkpoints.checkpoint,  # None but on rank 0
            "rank": {
                "generators": generators(),
                "buffers": {name: buffer.cpu() for name, buffer in self.job.module.named_buffers()},
                "data": self.job.data_state(),
            },
        }

    def _batches_at(self, report: int) -> int:
        return self.spec.report_at[report] * self.spec.batch.accumulation

    def _now(self) -> float:
        """The clock, once the device has done all it was given."""
        if self.place.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # Lightning's hooks, in the order in which they come.

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What differs between ranks is no part of Lightning's checkpoint."""
        if self.resumed is not None:
            set_generators(self.resumed.rank["generators"])
            buffers = dict(pl_module.named_buffers())
            for name, value in self.resumed.rank["buffers"].items():
                buffers[name].copy_(value)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ready: wait for the first `advance`."""
        if not self.hand_over.give(None):
            trainer.should_stop = True
        self.mark = self._now()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the data."""
        self.job.start_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the job."""
        self.job.trained_on(outputs)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The interval's training ends here."""
        now = self._now()
        self.interval_s = now - self.mark
        self.train_s += self.interval_s
        self.mark = now

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, wait, and go on or stop."""
        report = self._report(trainer)
        self.reported += 1
        if self.hand_over.give(report) and not report.final:
            trainer.val_check_batch = self._batches_at(self.reported)
        else:
            trainer.should_stop = True
        self.mark = self._now()

    def _report(self, trainer: pl.Trainer) -> Report:
        spec = self.spec
        updates = spec.report_at[self.reported]
        previous = spec.report_at[self.reported - 1] if self.reported else 0
        final = updates == spec.total_updates
        measured = self.job.measured(trainer)
        test_accuracy = self.job.test_accuracy() if final and spec.phase == "confirm" else None
        self.validate_s += self._now() - self.mark
        return Report(
            updates=updates,
            samples=updates * spec.batch.global_batch,
            epochs=updates / spec.updates_per_epoch,
            lr=trainer.optimizers[0].param_groups[0]["lr"],
            train_loss=measured.train_loss,
            train_accuracy=measured.train_accuracy,
            val_loss=measured.val_loss,
            val_accuracy=measured.val_accuracy,
            test_accuracy=test_accuracy,
            samples_per_s=(updates - previous) * spec.batch.global_batch / self.interval_s,
            phases_s={"train": self.train_s, "validate": self.validate_s},
            final=final,
        )


def _quieten() -> None:
    """Lightning's advice is for people at a notebook: each rank and trial would repeat it."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
