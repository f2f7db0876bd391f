"""The LightningModule of the embedded workloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.training.distributed.reduced_sums import ReducedSums, average_statistics
from study.training.lightning_patches import LeanModule
from study.workloads.data.batching import Batch, EvalBatches


class Classifier(LeanModule):
    """Cross-entropy on (inputs, labels) batches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def on_fit_start(self) -> None:
        """The device is known from here on."""
        self.train_tally, self.val_tally = ReducedSums(self.device), ReducedSums(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a micro batch."""
        x, y = batch
        logits = self.model(x)
        loss = cross_entropy(logits, y)
        self.train_tally.add(loss, logits, y)
        return loss

    def on_validation_start(self) -> None:
        """All ranks validate the same model."""
        average_statistics(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch."""
        x, y = batch
        logits = self.model(x)
        self.val_tally.add(cross_entropy(logits, y), logits, y)

    @torch.no_grad()
    def test_accuracy(self, batches: EvalBatches, done: Callable[[], None]) -> float:
        """Accuracy over all ranks' shards, in evaluation mode. Every rank must call it; `done` follows each batch."""
        tally = ReducedSums(self.device)
        was_training = self.model.training
        self.model.eval()
        for x, y in batches:
            x, y = x.to(self.device), y.to(self.device)
            logits = self.model(x)
            tally.add(cross_entropy(logits, y), logits, y)
            done()
        self.model.train(was_training)
        return tally.reduce()[1]

    def configure_optimizers(self) -> Any:
        """Set by the rank, which knows the trial."""
        raise NotImplementedError("a rank assigns configure_optimizers before it fits")
