"""Classifiers of the built-in workloads: the LightningModule, and the trial that trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.config.workloads import Embedded
from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.reduced_sums import ReducedSums, average_statistics
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import ProbeTarget, TensorJob
from study.training.lightning_patches import FastHookModule
from study.training.snapshot import Resumed
from study.workloads.data.batching import Batch, EvalBatches
from study.workloads.data.splits import Splits
from study.workloads.models.networks import build_model, eval_mode


class Classifier(FastHookModule):
    """A network trained by cross-entropy on batches of inputs (n, ...) and labels: (n,), or (n, t) where it predicts
    at t places of each input.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def on_fit_start(self) -> None:
        """Create the sums on the device, which is known from here on."""
        self.train_sums, self.val_sums = ReducedSums(self.device), ReducedSums(self.device)

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (m, classes) and labels (m,), for all m labels of a batch."""
        x, y = batch
        return self.model(x).flatten(0, -2), y.flatten().long()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a micro batch."""
        logits, y = self.predictions(batch)
        loss = cross_entropy(logits, y)
        self.train_sums.add(loss, logits, y)
        return loss

    def on_validation_start(self) -> None:
        """Average batch-norm statistics, so that all ranks validate the same model."""
        average_statistics(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums of the validation."""
        logits, y = self.predictions(batch)
        self.val_sums.add(cross_entropy(logits, y), logits, y)

    @torch.no_grad()
    def test_metrics(self, batches: EvalBatches, done: Callable[[], None]) -> dict[str, float]:
        """Return test_loss and test_accuracy over all ranks' shards, in evaluation mode. Every rank must call it; it
        calls `done` after each batch.
        """
        tally = ReducedSums(self.device)
        with eval_mode(self.model):
            for x, labels in batches:
                logits, y = self.predictions((x.to(self.device), labels.to(self.device)))
                tally.add(cross_entropy(logits, y), logits, y)
                done()
        loss, accuracy = tally.reduce()
        return {"test_loss": loss, "test_accuracy": accuracy}

    def configure_optimizers(self) -> Any:
        """Refuse: the rank, which knows the trial, replaces this method."""
        raise NotImplementedError("a rank assigns configure_optimizers before it fits")


class EmbeddedJob(TensorJob):
    """Trains a Classifier on the data of a built-in workload."""

    def __init__(
        self, config: Embedded, spec: TrialSpec, topology: RankTopology, splits: Splits, resumed: Resumed | None
    ) -> None:
        super().__init__(spec, topology, splits, resumed)
        self.module = Classifier(build_model(config, splits))
        self.train = splits.train

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Reduce the sums of training and validation over ranks."""
        train_loss, train_accuracy = self.module.train_sums.reduce()
        val_loss, val_accuracy = self.module.val_sums.reduce()
        return Metrics(
            train_loss=train_loss, train_accuracy=train_accuracy, val_loss=val_loss, val_accuracy=val_accuracy
        )

    def test_metrics(self, done: Callable[[], None]) -> dict[str, float]:
        """Return loss and accuracy on the test split."""
        return self.module.test_metrics(self.test, done)

    def probe_target(self) -> ProbeTarget:
        """Return the network, its cross-entropy and the training split."""
        module = self.module

        def loss(batch: Batch) -> Tensor:
            x, y = (part.to(module.device) for part in batch)
            return cross_entropy(*module.predictions((x, y)))

        return ProbeTarget(module.model, loss, self.train)
