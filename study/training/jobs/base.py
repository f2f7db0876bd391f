"""What a trial trains, behind one small interface, and the embedded workloads behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytorch_lightning as pl
from torch import Tensor, nn

from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.snapshot import Resumed, State
from study.workloads.data.batching import Batch, EvalBatches, TrainBatches
from study.workloads.data.splits import Part, Splits

EVAL_BATCH = 1024


@dataclass(frozen=True)
class ProbeTarget:
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

    def ddp_arguments(self) -> dict[str, Any]:
        """What torch's DistributedDataParallel must know of the module."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch."""

    def before_step(self) -> None:
        """Called between the last backward pass and the optimizer's step, with every gradient averaged over ranks."""

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Called before each validation."""

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """Called at the end of each validation, before the module is."""

    def gathers(self, tensor: Tensor) -> None:
        """Called with what the module gathers from the ranks by Lightning's `all_gather`."""

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Return the metrics of the interval since the last call. Every rank must call it."""

    def test_accuracy(self, done: Callable[[], None]) -> float | None:
        """Accuracy on the held-out part, if there is one. Every rank must call it; it calls `done` as it gets on."""

    def probe_target(self) -> ProbeTarget | None:
        """What probes look at; None where there is nothing for them."""


class TensorJob:
    """What jobs on tensors in memory have in common: to Lightning the whole trial is one epoch."""

    batches_on_device = True

    def __init__(self, spec: TrialSpec, topology: RankTopology, splits: Splits, resumed: Resumed | None) -> None:
        done = resumed.updates if resumed else 0
        self.batches = TrainBatches(splits.train, spec.stages, topology.rank, spec.seed, done)
        shard = (topology.rank, topology.world_size, EVAL_BATCH)
        self.val, self.test = EvalBatches(splits.val, *shard), EvalBatches(splits.test, *shard)

    def wrap_loader(self, loader: Any) -> Any:
        """As it is."""
        return loader

    def data_state(self) -> State:
        """The number of updates says it all."""
        return {}

    def trainer_arguments(self) -> dict[str, Any]:
        """The batches are sharded already."""
        return {"use_distributed_sampler": False, "max_epochs": -1, "logger": False}

    def fit_arguments(self) -> dict[str, Any]:
        """Whole batches."""
        return {"train_dataloaders": self.batches, "val_dataloaders": self.val}

    def ddp_arguments(self) -> dict[str, Any]:
        """Statistics of batch norm are averaged once a validation instead."""
        return {"broadcast_buffers": False}

    def start_epoch(self, epoch: int) -> None:
        """The batches know their own."""

    def before_step(self) -> None:
        """Gradients are taken as they are."""

    def before_validation(self, trainer: pl.Trainer) -> None:
        """The module starts a tally of its own."""

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """The package's own modules reduce their figures themselves."""

    def gathers(self, tensor: Tensor) -> None:
        """The package's own modules reduce their figures themselves."""
