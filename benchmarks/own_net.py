"""A module and data as users write them, for `throughput.py`: scikit-learn's digits through DataLoaders."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from study.config.workloads import Digits
from study.workloads.data.splits import load_splits

SPLITS = load_splits(Digits())
LR = 0.05


def network() -> nn.Module:
    """Return the network, with one output for each digit."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class OwnNet(pl.LightningModule):
    """Logs its validation accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss (a scalar) of images (n, 1, 8, 8) and labels (n,)."""
        return cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the accuracy of a batch."""
        right = self.network(batch[0]).argmax(1) == batch[1]
        self.log("val_accuracy", right.float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), LR, fused=True)


class OwnData(pl.LightningDataModule):
    """Draws batches of `batch_size`."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the training split, shuffled, in whole batches."""
        return DataLoader(TensorDataset(SPLITS.train.x, SPLITS.train.y), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation split."""
        return DataLoader(TensorDataset(SPLITS.val.x, SPLITS.val.y), 256)
