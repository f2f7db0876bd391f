"""What a trial trains, behind one small interface: the embedded workloads, or a user's own module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.plan.errors import PlanError
from study.plan.trials import TrialSpec
from study.plan.workload import Custom, Embedded
from study.training.classifier import Classifier
from study.training.place import Place
from study.training.replayable import Replayable
from study.training.snapshot import Resumed, State
from study.workloads.batching import Batch, EvalBatches, TrainBatches
from study.workloads.custom import build_data, build_module
from study.workloads.data import Part, Splits
from study.workloads.registry import build_model

EVAL_BATCH = 1024


@dataclass(frozen=True)
class Measured:
    """Over all ranks and one interval."""

    train_loss: float
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Probed:
    """A network, its loss on a batch, and the training set."""

    model: nn.Module
    loss: Callable[[Batch], Tensor]
    train: Part


class Job(Protocol):
    """A module, its data, and how to read its figures."""

    batches_on_device: bool

    def wrap_loader(self, loader: Any) -> Any:
        """Called by Lightning with each loader before it is used, the training one first."""

    def data_state(self) -> State:
        """What the data needs to go on from here."""

    @property
    def module(self) -> pl.LightningModule:
        """What is trained."""

    def trainer_arguments(self) -> dict[str, Any]:
        """What Lightning's Trainer must know of the data."""

    def fit_arguments(self) -> dict[str, Any]:
        """What Lightning's `fit` gets besides the module."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch."""

    def trained_on(self, outputs: Any) -> None:
        """Called after each micro batch with what `training_step` returned."""

    def measured(self, trainer: pl.Trainer) -> Measured:
        """The figures since the last call. Every rank must call it."""

    def test_accuracy(self) -> float | None:
        """Accuracy on the held-out part, if there is one. Every rank must call it."""

    def probed(self) -> Probed | None:
        """What probes look at; None where there is nothing for them."""


class TensorJob:
    """What jobs on tensors in memory have in common: to Lightning the whole trial is one epoch."""

    batches_on_device = True

    def __init__(self, spec: TrialSpec, place: Place, splits: Splits, resumed: Resumed | None) -> None:
        done = resumed.updates if resumed else 0
        self.batches = TrainBatches(splits.train, spec.stages, place.rank, spec.seed, done)
        shard = (place.rank, place.world_size, EVAL_BATCH)
        self.val, self.test = EvalBatches(splits.val, *shard), EvalBatches(splits.test, *shard)

    def wrap_loader(self, loader: Any) -> Any:
        """As it is."""
        return loader

    def data_state(self) -> State:
        """The number of updates says it all."""
        return {}

    def trainer_arguments(self) -> dict[str, Any]:
        """The batches are sharded already."""
        return {"use_distributed_sampler": False}

    def fit_arguments(self) -> dict[str, Any]:
        """Whole batches."""
        return {"train_dataloaders": self.batches, "val_dataloaders": self.val}

    def start_epoch(self, epoch: int) -> None:
        """The batches know their own."""

    def trained_on(self, outputs: Any) -> None:
        """The module keeps its own tally."""


class EmbeddedJob(TensorJob):
    """A Classifier."""

    def __init__(
        self, config: Embedded, spec: TrialSpec, place: Place, splits: Splits, resumed: Resumed | None
    ) -> None:
        super().__init__(spec, place, splits, resumed)
        self.module = Classifier(build_model(config, splits))
        self.train = splits.train

    def measured(self, trainer: pl.Trainer) -> Measured:
        """From the tallies."""
        return Measured(*self.module.train_tally.reduce(), *self.module.val_tally.reduce())

    def test_accuracy(self) -> float:
        """On the test split."""
        return self.module.test_accuracy(self.test)

    def probed(self) -> Probed:
        """The classifier's cross-entropy."""
        model = self.module.model

        def loss(batch: Batch) -> Tensor:
            x, y = (part.to(self.module.device) for part in batch)
            return cross_entropy(model(x), y)

        return Probed(model, loss, self.train)


class CustomJob:
    """A user's LightningModule and LightningDataModule; validation figures are those the module logs."""

    def __init__(self, config: Custom, spec: TrialSpec, resumed: Resumed | None) -> None:
        self.config, self.spec = config, spec
        self.batches_an_epoch = spec.updates_per_epoch * spec.batch.accumulation
        self.resumed = resumed
        self.loader: Replayable | None = None
        self.batches_on_device = False
        self.module: pl.LightningModule = build_module(config)
        self.data: pl.LightningDataModule = build_data(config, spec.batch.micro_batch)
        self.loss_sum: Any = 0.0
        self.batches = 0

    def wrap_loader(self, loader: Any) -> Any:
        """The training loader, so that it can go on in the middle of an epoch; the others as they are."""
        if self.loader is not None:
            return loader
        self.loader = Replayable(loader, self.batches_an_epoch)
        if self.resumed is not None:
            done = self.spec.micro_batches_at(self.resumed.updates)
            # At the end of an epoch, Lightning first wants to see that nothing is left of it.
            skip = (done - 1) % self.batches_an_epoch + 1
            self.loader.go_on(skip, self.resumed.rank["data"], self.resumed.rank["generators"])
        return self.loader

    def data_state(self) -> State:
        """How the epoch began."""
        assert self.loader is not None
        return self.loader.began

    def trainer_arguments(self) -> dict[str, Any]:
        """Lightning shards the loaders; a last batch that is not whole is left out."""
        return {"use_distributed_sampler": True, "limit_train_batches": self.batches_an_epoch}

    def fit_arguments(self) -> dict[str, Any]:
        """The data module."""
        return {"datamodule": self.data}

    def start_epoch(self, epoch: int) -> None:
        """Lightning tells its samplers. The first time, the data must be as large as the plan was told."""
        loader: Any = self.module.trainer.train_dataloader
        if self.resumed is None and epoch == 0 and (found := len(loader.dataset)) != self.config.train_samples:
            raise PlanError(
                f"is {self.config.train_samples}, but the data module has {found}", "workload.train_samples"
            )

    def trained_on(self, outputs: Any) -> None:
        """Sum the losses without waiting for the device."""
        self.loss_sum = self.loss_sum + (outputs["loss"] if isinstance(outputs, dict) else outputs).detach()
        self.batches += 1

    def measured(self, trainer: pl.Trainer) -> Measured:
        """Training loss averaged over ranks; the rest as logged."""
        sums = torch.stack([self.loss_sum, self.loss_sum.new_tensor(self.batches)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.loss_sum, self.batches = 0.0, 0
        return Measured(
            train_loss=float(sums[0] / sums[1]),
            train_accuracy=None,
            val_loss=self._logged(trainer, "val_loss"),
            val_accuracy=self._logged(trainer, "val_accuracy"),
        )

    def test_accuracy(self) -> None:
        """A user's test step is theirs to run."""

    def probed(self) -> None:
        """A training step may log, keep state or need its trainer: it is no function of a batch."""

    def _logged(self, trainer: pl.Trainer, key: str) -> float:
        name = getattr(self.config, key)
        if name not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise PlanError(f"the module does not log {name}; it logs {logged}", f"workload.{key}")
        return float(trainer.callback_metrics[name])
