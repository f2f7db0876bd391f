"""The interface between a trial and what it trains, and what jobs on tensors in memory share."""

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
from study.workloads.user_code.lightning_package import LightningPackage, lightning_package

EVAL_BATCH = 1024
MOST_LABELS = 2**16  # predicted at once: samples of a text have as many as its context


@dataclass(frozen=True)
class ProbeTarget:
    """A network, its loss on a batch, and the training set."""

    model: nn.Module
    loss: Callable[[Batch], Tensor]
    train: Part


class Job(Protocol):
    """A module, its data, and the reading of its metrics."""

    batches_on_device: bool
    notes: list[str]  # what a user should know of how the module is run

    @property
    def lightning(self) -> LightningPackage:
        """Return the package that the module is of."""

    def wrap_loader(self, loader: Any) -> Any:
        """Return the loader that is used for one that Lightning set up; the training loader comes first."""

    def data_state(self) -> State:
        """Return what the data need to go on from here."""

    @property
    def module(self) -> pl.LightningModule:
        """Return the LightningModule that is trained."""

    def trainer_arguments(self) -> dict[str, Any]:
        """Return arguments of Lightning's Trainer that depend on the data."""

    def callbacks(self) -> list[Any]:
        """Return further callbacks of Lightning's Trainer."""

    def fit_arguments(self) -> dict[str, Any]:
        """Return arguments of Lightning's `fit`, besides the module."""

    def ddp_arguments(self) -> dict[str, Any]:
        """Return arguments of torch's DistributedDataParallel that depend on the module."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare the data for an epoch; called before each."""

    def before_step(self) -> None:
        """Finish the gradients; called between the last backward pass and the optimizer's step, with every gradient
        averaged over ranks.
        """

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Prepare for a validation; called before each."""

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """Adjust what was logged; called at the end of each validation, before the module's own hook."""

    def gathers(self, tensor: Tensor) -> None:
        """Inspect what the module gathers from the ranks by Lightning's `all_gather`."""

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Return the metrics of the interval since the last call. Every rank must call it."""

    def test_metrics(self, done: Callable[[], None]) -> dict[str, float]:
        """Return test_loss and test_accuracy on the test set; nothing without one. Every rank must call it; it calls
        `done` as it proceeds.
        """

    def probe_target(self) -> ProbeTarget | None:
        """Return what probes measure; None where there is nothing for them."""


def samples_at_once(part: Part, most: int) -> int:
    """Return how many samples to evaluate at once: `most`, or fewer where each has many labels."""
    return max(min(most, MOST_LABELS // part.y.shape[1:].numel()), 1)


class TensorJob:
    """The common part of jobs on tensors in memory: to Lightning the whole trial is one epoch."""

    batches_on_device = True
    lightning = lightning_package()

    def __init__(self, spec: TrialSpec, topology: RankTopology, splits: Splits, resumed: Resumed | None) -> None:
        self.notes: list[str] = []
        done = resumed.updates if resumed else 0
        self.batches = TrainBatches(splits.train, spec.stages, topology.rank, spec.seed, done)
        shard = (topology.rank, topology.world_size, samples_at_once(splits.val, EVAL_BATCH))
        self.val, self.test = EvalBatches(splits.val, *shard), EvalBatches(splits.test, *shard)

    def wrap_loader(self, loader: Any) -> Any:
        """Return the loader unchanged."""
        return loader

    def data_state(self) -> State:
        """Return nothing: the order of the data follows from the number of updates."""
        return {}

    def trainer_arguments(self) -> dict[str, Any]:
        """Keep Lightning from sharding batches that are sharded already."""
        return {"use_distributed_sampler": False, "max_epochs": -1, "logger": False}

    def callbacks(self) -> list[Any]:
        """Return no callbacks: the package's own modules need none."""
        return []

    def fit_arguments(self) -> dict[str, Any]:
        """Return what Lightning's fit takes: the loaders of this rank."""
        return {"train_dataloaders": self.batches, "val_dataloaders": self.val}

    def ddp_arguments(self) -> dict[str, Any]:
        """Leave buffers alone: statistics of batch norm are averaged once a validation instead."""
        return {"broadcast_buffers": False}

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: the batches count their epochs themselves."""

    def before_step(self) -> None:
        """Do nothing: gradients are complete."""

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Do nothing: the module starts its own sums."""

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """Do nothing: the package's own modules reduce their metrics themselves."""

    def gathers(self, tensor: Tensor) -> None:
        """Do nothing: the package's own modules do not gather."""
