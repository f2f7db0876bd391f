"""One rank of a trial: a plain class, so that it runs with or without Ray."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from study.plan.config import StudyConfig
from study.plan.trials import TrialSpec
from study.training.classifier import Classifier
from study.training.handover import HandOver
from study.training.optimizers import lightning_optimizers
from study.training.place import Place, PlacedEnvironment, join_group, open_store
from study.training.report import Report
from study.workloads.batching import EvalBatches, TrainBatches, derived_seed
from study.workloads.data import Splits
from study.workloads.models import has_batch_norm
from study.workloads.registry import build_model, load_splits

EVAL_BATCH = 1024


class Rank:
    """Keeps data and process group from trial to trial; everything else is new for each."""

    def __init__(self, place: Place, config: StudyConfig) -> None:
        _quieten()
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

    def begin(self, spec: TrialSpec) -> int | None:
        """Make a trial ready to train; returns the samples behind one batch-norm statistic, if there is any."""
        if self._splits is None:
            self._splits = load_splits(self.config.workload)
        trial = TrialFit(self.place, self.config, spec, self._splits)
        self._fit = HandOver(trial.run)
        self._fit.start()
        return trial.norm_batch

    def advance(self) -> Report:
        """Train up to the next report."""
        assert self._fit is not None, "begin first"
        report = self._fit.go_on()
        assert report is not None
        return report

    def halt(self) -> None:
        """End the trial where it is; the rank is free for the next."""
        if self._fit is not None:
            self._fit.stop()
            self._fit = None


class TrialFit(pl.Callback):
    """One call of Lightning's `fit`, which hands over a Report at every validation."""

    def __init__(self, place: Place, config: StudyConfig, spec: TrialSpec, splits: Splits) -> None:
        self.place, self.config, self.spec, self.splits = place, config, spec, splits
        torch.manual_seed(derived_seed(*spec.seed))
        self.module = Classifier(build_model(config.workload, splits))
        self.norm_batch = spec.batch.micro_batch if has_batch_norm(self.module) else None
        self.batches = TrainBatches(splits.train, spec.batch, place.rank, spec.seed)
        self.reported = 0  # reports handed over
        self.train_s = self.validate_s = 0.0

    def run(self, hand_over: HandOver[Report | None]) -> None:
        """Fit, in the thread of `hand_over`."""
        self.hand_over = hand_over
        spec = self.spec
        self.module.configure_optimizers = lambda: lightning_optimizers(  # type: ignore[method-assign]
            self.config.optimizer, self.config.schedule, self.module.parameters(), spec.lr, spec.total_updates
        )
        trainer = pl.Trainer(
            accelerator=self.place.device,
            devices=self.place.local_world_size,
            num_nodes=self.place.world_size // self.place.local_world_size,
            strategy=self._strategy(),
            precision=self.config.hardware.precision,
            max_epochs=-1,
            max_steps=spec.total_updates,
            accumulate_grad_batches=spec.batch.accumulation,
            check_val_every_n_epoch=None,  # validations are counted in batches, across epochs
            val_check_interval=self._batches_at(0),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[self],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # Lightning broadcasts a flag before every batch, in case one rank got a SIGTERM: a collective a step, a
        # third of a small model's step time. Our ranks are ended by whoever started them (docs/adr/003).
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        trainer.fit(self.module, self.batches, self._shard(self.splits.val))

    def _strategy(self) -> Any:
        if self.place.world_size == 1:
            return "auto"
        return DDPStrategy(
            cluster_environment=PlacedEnvironment(self.place),
            broadcast_buffers=False,  # averaged once a validation instead
            gradient_as_bucket_view=True,
        )

    def _shard(self, part: Any) -> EvalBatches:
        return EvalBatches(part, self.place.rank, self.place.world_size, EVAL_BATCH)

    def _batches_at(self, report: int) -> int:
        return self.spec.report_at[report] * self.spec.batch.accumulation

    def _now(self) -> float:
        """The clock, once the device has done all it was given."""
        if self.place.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # Lightning's hooks, in the order in which they come.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ready: wait for the first `advance`."""
        if not self.hand_over.give(None):
            trainer.should_stop = True
        self.mark = self._now()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The permutation follows Lightning's own count of epochs."""
        self.batches.epoch = trainer.current_epoch

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
        spec, module = self.spec, self.module
        updates = spec.report_at[self.reported]
        previous = spec.report_at[self.reported - 1] if self.reported else 0
        final = updates == spec.total_updates
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        train_loss, train_accuracy = module.train_tally.reduce()
        val_loss, val_accuracy = module.val_tally.reduce()
        test_accuracy = None
        if final and spec.phase == "confirm":
            test_accuracy = module.test_accuracy(self._shard(self.splits.test))
        self.validate_s += self._now() - self.mark
        return Report(
            updates=updates,
            samples=updates * spec.batch.global_batch,
            epochs=updates / spec.updates_per_epoch,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            test_accuracy=test_accuracy,
            samples_per_s=(updates - previous) * spec.batch.global_batch / self.interval_s,
            phases_s={"train": self.train_s, "validate": self.validate_s},
            final=final,
        )


def _quieten() -> None:
    """Lightning's advice is for people at a notebook: each rank and trial would repeat it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
