"""The model: nothing in it knows of `study`."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy


class Net(pl.LightningModule):
    """A small convolutional network for images of 8 x 8 pixels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * width, 10),
        )
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss."""
        x, y = batch
        return cross_entropy(self.layers(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs val_acc, which the study file names."""
        x, y = batch
        logits = self.layers(x)
        self.accuracy(logits, y)
        self.log("val_acc", self.accuracy)
        self.log("val_loss", cross_entropy(logits, y), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """For its own training script; a study uses it with `optimizer: module`."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
