"""A user's own LightningModule and LightningDataModule as a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from study.plan.errors import PlanError, did_you_mean
from study.plan.trials import TrialSpec
from study.plan.workload import Custom
from study.training.jobs import Measured
from study.training.place import Place
from study.training.replayable import Replayable
from study.training.snapshot import Resumed, State
from study.training.streams import shared_out, whole_batches
from study.workloads.custom import build_data, build_module
from study.workloads.loaders import KEY, check_batch_size, is_stream, samples_of, the_one

VAL_LOSS = "val_loss"  # looked for where no name is given


class CustomJob:
    """Validation figures are those the module logs."""

    batches_on_device = False

    def __init__(self, config: Custom, spec: TrialSpec, place: Place, resumed: Resumed | None) -> None:
        self.config, self.spec, self.place, self.resumed = config, spec, place, resumed
        self.batches_an_epoch = spec.updates_per_epoch * spec.batch.accumulation
        self.loader: Replayable | None = None
        self.module: pl.LightningModule = build_module(config)
        self.data: pl.LightningDataModule = build_data(config, spec.batch.micro_batch)
        self.loss_sum: Any = 0.0
        self.batches = 0

    def wrap_loader(self, loader: Any) -> Any:
        """The training loader, which comes first, so that it can be shared out and replayed; the others as they are."""
        if self.loader is not None:
            if not is_stream(loader) and not len(loader):
                raise PlanError("its validation set is empty", KEY)
            return loader
        if not is_stream(loader) and (found := samples_of(loader)) != self.config.train_samples:
            raise PlanError(
                f"is {self.config.train_samples}, but the data module has {found}", "workload.train_samples"
            )
        self.loader = Replayable(loader, self.batches_an_epoch, self._deal)
        if self.resumed is not None:
            done = self.spec.micro_batches_at(self.resumed.updates)
            # At the end of an epoch, Lightning first wants to see that nothing is left of it.
            skip = (done - 1) % self.batches_an_epoch + 1
            self.loader.go_on(skip, self.resumed.rank["data"], self.resumed.rank["generators"])
        return self.loader

    def _deal(self, loader: Any) -> Iterator[Any]:
        """This rank's micro batches of an epoch. Raises PlanError for other sizes, and where they end too early."""
        asked, stream = self.spec.batch.micro_batch, is_stream(loader)
        declared = check_batch_size(loader, asked)
        batches = iter(loader)
        if stream or not declared:
            batches = whole_batches(batches, asked)
        if stream and self.place.world_size > 1:
            batches = shared_out(batches, self.place)
        dealt = 0
        for batch in batches:
            yield batch
            dealt += 1
        samples = dealt * asked * self.place.world_size
        raise PlanError(
            f"is {self.config.train_samples}, but the training data end after {samples} samples in whole batches",
            "workload.train_samples",
        )

    def data_state(self) -> State:
        """How the epoch began."""
        assert self.loader is not None
        return self.loader.began

    def trainer_arguments(self) -> dict[str, Any]:
        """Lightning shards map-style loaders; a last batch that is not whole is left out."""
        return {"use_distributed_sampler": True, "limit_train_batches": self.batches_an_epoch}

    def fit_arguments(self) -> dict[str, Any]:
        """The data module."""
        return {"datamodule": self.data}

    def start_epoch(self, epoch: int) -> None:
        """Lightning tells its samplers."""
        the_one(self.module.trainer.train_dataloader)

    def trained_on(self, outputs: Any) -> None:
        """Sum the losses without waiting for the device."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            raise PlanError("its training_step returns no loss", "workload.module")
        self.loss_sum = self.loss_sum + loss.detach()
        self.batches += 1

    def measured(self, trainer: pl.Trainer) -> Measured:
        """Training loss averaged over ranks; the rest as logged.

        From weights that are no numbers none will come, which a module that logs no validation loss would not tell.
        Raises PlanError where nothing was validated on: Lightning would give the figures of the time before.
        """
        if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready:
            raise PlanError("its validation set is empty", KEY)
        whole = all(bool(weight.isfinite().all()) for weight in self.module.parameters())
        loss_sum = self.loss_sum if whole else torch.full_like(self.loss_sum, math.nan)
        sums = torch.stack([loss_sum, loss_sum.new_tensor(self.batches)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.loss_sum, self.batches = 0.0, 0
        logs_loss = self.config.val_loss is not None or VAL_LOSS in trainer.callback_metrics
        return Measured(
            train_loss=float(sums[0] / sums[1]),
            train_accuracy=None,
            val_loss=_logged(trainer, "val_loss", self.config.val_loss or VAL_LOSS) if logs_loss else None,
            val_accuracy=_logged(trainer, "val_accuracy", self.config.val_accuracy),
        )

    def test_accuracy(self, done: Callable[[], None]) -> None:
        """A user's test step is theirs to run."""

    def probed(self) -> None:
        """A training step may log, keep state or need its trainer: it is no function of a batch."""


def _logged(trainer: pl.Trainer, key: str, name: str) -> float:
    metrics = trainer.callback_metrics
    if name not in metrics:
        logged = ", ".join(sorted(metrics)) or "nothing"
        raise PlanError(
            f"the module does not log {name}; it logs {logged}{did_you_mean(name, metrics)}", f"workload.{key}"
        )
    return float(metrics[name])
