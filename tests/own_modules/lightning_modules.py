"""Modules and data of the package `lightning`, beside those of `pytorch_lightning` in `user_modules`."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy

from tests.own_modules.user_modules import SAMPLES, VAL_LABELS, Batch


class Data(L.LightningDataModule):
    """Samples are their own numbers; five to validate."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        x = torch.arange(SAMPLES).float()[:, None]
        self.train = TensorDataset(x, (x[:, 0] % 2).long())
        y = torch.tensor(VAL_LABELS)
        self.val = TensorDataset(y.float()[:, None], y)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, 2)


class Net(L.LightningModule):
    """Draws random numbers as it trains, and logs to its logger; its accuracy is the share of zeros."""

    seen: list[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
        self.accuracy = BinaryAccuracy()
        self.seen = []

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x, y = batch
        self.seen.append(x[:, 0].int().tolist())
        return cross_entropy(self.layer(x / SAMPLES), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.accuracy(torch.zeros(len(batch[1])), batch[1])
        self.log("val_acc", self.accuracy)

    def on_validation_epoch_end(self) -> None:
        logger: Any = self.logger
        logger.experiment.add_scalar("epoch", self.current_epoch, self.global_step)

    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val_acc", patience=0, mode="max"), ModelCheckpoint("written")]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)}
