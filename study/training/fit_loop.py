"""One call of Lightning's `fit`, report by report."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from study.config.schema import StudyConfig
from study.config.workloads import Custom
from study.errors import ConfigError
from study.measurement import NO_READINGS, Metrics
from study.planning.trials import TrialSpec
from study.training.compile_rehearsal import uncompiled
from study.training.device_memory import peak_bytes
from study.training.distributed.strategies import strategy
from study.training.distributed.topology import RankTopology
from study.training.energy import EnergyMeter
from study.training.jobs.base import Job
from study.training.lean_loop import use_lean_loop
from study.training.lightning_patches import NoProfiler, cache_entry_points
from study.training.manual_steps import ManualSteps
from study.training.messages import RankReport
from study.training.optimizers import (
    check_plateaus,
    clipping_arguments,
    clips_itself,
    current_rate,
    set_optimizers,
    unscale_before_clipping,
)
from study.training.probes.trial import TrialProbes
from study.training.snapshot import IN_MEMORY, InMemoryCheckpoints, Resumed, State, generators, set_generators
from study.training.stepped_thread import SteppedThread
from study.workloads.user_code.lightning_package import derived


class TrialFit:
    """Runs one call of Lightning's `fit`, and hands over a RankReport at every validation. Has methods of Lightning's
    Callback, which it is made a subclass of.
    """

    def __init__(
        self,
        topology: RankTopology,
        config: StudyConfig,
        spec: TrialSpec,
        job: Job,
        resumed: Resumed | None,
        meter: EnergyMeter | None,
    ) -> None:
        self.topology, self.config, self.spec, self.job = topology, config, spec, job
        self.resumed, self.meter = resumed, meter
        # Reports handed over, in attempts before this one too.
        self.reported = spec.report_at.index(resumed.updates) + 1 if resumed else 0
        self.train_s = self.validate_s = self.probe_s = 0.0
        self.probes = TrialProbes(config.probes, topology, spec, job, self._done)
        self.progress = 0  # grows with all that gets done
        self.ended = False  # by a decision, or with the last report

    def run(self, thread: SteppedThread[RankReport | None]) -> None:
        """Fit, in the thread that the argument steps."""
        self.thread = thread
        spec, module = self.spec, self.job.module
        self.by_hand = None if module.automatic_optimization else ManualSteps()
        clipping = clipping_arguments(self.config.optimizer, module)
        if clipping and clips_itself(module):
            self.job.notes.append(
                "its configure_gradient_clipping is given the study's value, and decides what becomes of it"
            )
        set_optimizers(module, self.config, spec)
        lightning = self.job.lightning
        cache_entry_points(lightning)
        checkpoints = derived(InMemoryCheckpoints, lightning.fabric.plugins.io.checkpoint_io.CheckpointIO)
        self.checkpoints = checkpoints(self.resumed.checkpoint if self.resumed else None)
        self.trainer = trainer = lightning.pytorch.Trainer(
            plugins=[self.checkpoints],
            accelerator=self.topology.device,
            devices=1,  # the strategy knows them
            num_nodes=self.topology.world_size // self.topology.local_world_size,
            strategy=strategy(self.topology, self.job, self.config.hardware.channels_last, self.report),
            profiler=derived(NoProfiler, lightning.pytorch.profilers.Profiler)(),
            precision=self.config.hardware.precision,
            max_steps=-1 if self._whole_epochs() else spec.total_updates,
            accumulate_grad_batches=spec.batch.accumulation,
            check_val_every_n_epoch=None,  # validations are counted in batches, across epochs
            val_check_interval=self._batches_at(self.reported),
            num_sanity_val_steps=0,
            callbacks=[self, *self.job.callbacks()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **clipping,
            **self.job.trainer_arguments(),
        )
        use_lean_loop(trainer, lightning)
        trainer.fit(module, **self.job.fit_arguments(), ckpt_path=IN_MEMORY if self.resumed else None)
        if not self.ended:
            raise self._stopped_early()

    def _stopped_early(self) -> ConfigError:
        return ConfigError(
            f"something in it ended the training after {self.steps} of {self.spec.total_updates} updates (a callback, "
            "trainer.should_stop, or on_train_batch_start that returns -1): a study decides when a trial ends",
            "workload.module",
        )

    @property
    def _is_custom(self) -> bool:
        """Whether the module is the user's own."""
        return isinstance(self.config.workload, Custom)

    def _whole_epochs(self) -> bool:
        """Whether the trial's length is a number of epochs, as a plain Trainer would be given it."""
        whole = self.spec.total_updates % self.spec.updates_per_epoch == 0
        return whole and self.config.budget.updates is None and self._is_custom

    def snapshot(self) -> State:
        """Return this rank's part of a snapshot. Every rank must call it, at the same report."""
        self.trainer.save_checkpoint(IN_MEMORY)
        return {
            "updates": self.spec.report_at[self.reported - 1],
            "worked_s": self._worked_s(),
            "checkpoint": self.checkpoints.checkpoint,  # None but on rank 0
            "rank": {
                "generators": generators(),
                "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
                "buffers": {name: buffer.cpu() for name, buffer in self.job.module.named_buffers()},
                "callbacks": {one.state_key: state for one in self.trainer.callbacks if (state := one.state_dict())},
                "data": self.job.data_state(),
                "steps_by_hand": self.by_hand.each if self.by_hand is not None else None,
            },
        }

    def _batches_at(self, report: int) -> int:
        return self.spec.report_at[report] * self.spec.batch.accumulation

    def _worked_s(self) -> float:
        """Return the seconds of training and validation, of attempts that this one goes on from too."""
        return self.train_s + self.validate_s + (self.resumed.worked_s if self.resumed else 0.0)

    def _done(self) -> None:
        self.progress += 1

    def _now(self) -> float:
        """Return the clock, in seconds, once the device has done all it was given."""
        if self.topology.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # Lightning's hooks, in the order in which they come.

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore what differs between ranks, and so is no part of Lightning's checkpoint."""
        self._done()
        if self.by_hand is not None:  # Lightning would count the steps of all optimizers; the last report ends a trial
            trainer.fit_loop.epoch_loop.max_steps = -1
        if self.resumed is not None:
            set_generators(self.resumed.rank["generators"])
            buffers = dict(pl_module.named_buffers())
            for name, value in self.resumed.rank["buffers"].items():
                buffers[name].copy_(value)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report that the trial is ready, and wait for the first `advance`."""
        self._done()
        if self.resumed is not None:
            metrics = self.resumed.rank["metrics"]  # of which Lightning's checkpoint has none
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
            self._follow_plateaus(trainer, self.resumed)
        if len(self.spec.report_at) > 1:  # a rehearsal does not get as far as its one report
            check_plateaus(trainer, self.spec)
        if trainer.gradient_clip_val is not None or clips_itself(pl_module):
            unscale_before_clipping(trainer.optimizers[0])
        self.steps = self.resumed.updates if self.resumed else 0
        if self.by_hand is not None:
            self.by_hand.begin(trainer, self.resumed.rank["steps_by_hand"] if self.resumed else None)
        elif self._is_custom:  # the package's own modules leave no step out, and their steps are the shortest
            trainer.optimizers[0].register_step_post_hook(self._stepped)
        if not self.thread.give(None):
            self._end(trainer)
        self.mark = self._now()
        self.began_j = self._joules()

    def _stepped(self, *step: Any) -> None:
        self.steps += 1

    def _follow_plateaus(self, trainer: pl.Trainer, resumed: Resumed) -> None:
        """Move the rates that follow a metric, as Lightning does between a validation and the next batch.

        It leaves that out when it goes on from a checkpoint, since a checkpoint of its own holds no metrics.
        """
        if not any(scheduler.reduce_on_plateau for scheduler in trainer.lr_scheduler_configs):
            return
        trainer.fit_loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        if resumed.updates % self.spec.updates_per_epoch == 0:
            trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse more than one training loader, and have the data know the epoch."""
        self.job.start_epoch(trainer.current_epoch)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Let the job finish the gradients, which DDP has averaged by now; they are clipped after this."""
        self.job.before_step()
        if self.by_hand is not None:
            self.by_hand.note(trainer, optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the heartbeat that something got done, and check the steps of a module that optimizes by hand."""
        self._done()
        if self.by_hand is not None:
            self.by_hand.check(trainer)
            self.steps += 1
        if trainer.fit_loop.restarting:
            # Lightning would leave it so to the end of the epoch, and move no rate there that follows a metric.
            trainer.fit_loop.restarting = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the heartbeat that something got done."""
        self._done()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the interval's training time."""
        before = self.train_s
        self._lap("train_s")
        self.interval_s = self.train_s - before
        self.job.before_validation(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the job adjust what was logged: Lightning calls callbacks before the module."""
        self.job.before_validation_ends(trainer)

    def report(self) -> None:
        """Report, wait, and go on or stop; after all hooks of a validation."""
        trainer = self.trainer
        report = self._report(trainer)
        self.reported += 1
        if self.thread.give(report) and not report.final:
            trainer.val_check_batch = self._batches_at(self.reported)
        else:
            self._end(trainer)
        self.mark = self._now()

    def _end(self, trainer: pl.Trainer) -> None:
        self.ended = trainer.should_stop = True

    def _report(self, trainer: pl.Trainer) -> RankReport:
        spec = self.spec
        updates = spec.report_at[self.reported]
        previous = spec.report_at[self.reported - 1] if self.reported else 0
        samples = spec.samples_at(updates)
        scaled = self.config.hardware.precision == "16-mixed" and self.by_hand is None  # the scaler skips steps
        counted = self._is_custom and not scaled
        if counted and self.steps != updates:
            if trainer.should_stop:  # Lightning validates at once
                raise self._stopped_early()
            raise ConfigError(
                f"its optimizer made {self.steps} steps where the study counts {updates} updates (a callback such as "
                "GradientAccumulationScheduler, its optimizer_step, or on_train_batch_start that returns -1)",
                "workload.module",
            )
        metrics = self.job.metrics(trainer)
        self._lap("validate_s")
        final = self._is_final(updates, metrics)
        tested = self.job.test_metrics(self._done) if final and spec.phase == "confirm" else {}
        test_accuracy = tested.pop("test_accuracy", None)
        metrics.metrics = {**metrics.metrics, **tested}
        self._lap("validate_s")
        with uncompiled(self.config.hardware.compile):
            probes = self.probes.measure(updates, final) if spec.phase == "confirm" else NO_READINGS
        self._lap("probe_s")
        return RankReport(
            **asdict(metrics),
            updates=updates,
            samples=samples,
            epochs=spec.epochs_at(updates),
            lr=current_rate(trainer.optimizers[0], self.config, spec),
            test_accuracy=test_accuracy,
            samples_per_s=(samples - spec.samples_at(previous)) / self.interval_s,
            phases_s={"train": self.train_s, "validate": self.validate_s, "probe": self.probe_s},
            final=final,
            probes=probes,
            energy_j=self._used_j(),
            peak_memory_bytes=peak_bytes(self.topology),
        )

    def _joules(self) -> float | None:
        return None if self.meter is None else self.meter.joules()

    def _used_j(self) -> float | None:
        now = self._joules()
        return None if now is None or self.began_j is None else now - self.began_j

    def _lap(self, phase: str) -> None:
        """Count the time since the last mark as the phase's."""
        now = self._now()
        setattr(self, phase, getattr(self, phase) + now - self.mark)
        self.mark = now

    def _is_final(self, updates: int, metrics: Metrics) -> bool:
        """Return whether this is the trial's last report; the same on every rank."""
        budget = self.config.budget
        if updates == self.spec.total_updates:
            return True
        for target in self.config.targets:
            value = metrics.value(target.metric)
            if value is not None and target.met_by(value):
                return True
        if budget.device_seconds is None:
            return False
        used_up = torch.tensor(self.topology.world_size * self._worked_s() >= budget.device_seconds)
        if dist.is_initialized():  # by the clock of rank 0
            used_up = used_up.to(self.topology.torch_device)
            dist.broadcast(used_up, src=0)
        return bool(used_up)
