"""Modules and data as users write them, good and bad, for the tests of `workload: custom`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

SAMPLES = 64
Batch = tuple[Tensor, Tensor]


def points(samples: int = SAMPLES) -> Batch:
    """Points on either side of a plane; the last number of each is its own number."""
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(0))
    x[:, 3] = torch.arange(samples) / samples
    return x, (x[:, 0] > 0).long()


class Net(pl.LightningModule):
    """Logs a torchmetrics object, and no loss; draws random numbers as it trains."""

    seen: list[list[int]]  # samples of each training batch

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 2))
        self.acc = MulticlassAccuracy(2)
        self.seen = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.layers(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """As a dict."""
        x, y = batch
        self.seen.append((x[:, 3] * SAMPLES).round().int().tolist())
        return {"loss": cross_entropy(self(x), y)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The metric itself."""
        x, y = batch
        self.acc(self(x), y)
        self.log("val_acc", self.acc)

    def configure_optimizers(self) -> Any:
        """For `optimizer: module`: two groups at rates of their own, which halve every second update."""
        first, rest = self.layers[0].parameters(), self.layers[3].parameters()
        optimizer = torch.optim.SGD([{"params": first}, {"params": rest, "lr": 0.2}], lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Data(pl.LightningDataModule):
    """Map-style, shuffled."""

    def __init__(self, batch_size: int, samples: int = SAMPLES, val_samples: int = SAMPLES) -> None:
        super().__init__()
        self.batch_size, self.samples, self.val_samples = batch_size, samples, val_samples

    def setup(self, stage: str) -> None:
        """The sets are there from here on."""
        self.train: Dataset[Any] = TensorDataset(*points(self.samples))
        self.val = TensorDataset(*points(self.val_samples)) if self.val_samples else []

    def train_dataloader(self) -> Any:
        """Shuffled."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        """As it is."""
        return DataLoader(self.val, 16)  # type: ignore[arg-type]


class Stream(IterableDataset[Any]):
    """The points in an order drawn from the global generator, another each time."""

    def __init__(self, samples: int, noisy: bool = False) -> None:
        self.x, self.y = points(samples)
        self.noisy = noisy

    def __iter__(self) -> Iterator[Batch]:
        for i in torch.randperm(len(self.y)).tolist():
            # Noise that is drawn sample by sample, between the training's own draws.
            x = self.x[i].clone()
            x[:3] += 0.01 * torch.randn(3) if self.noisy else 0
            yield x, self.y[i]


class Streamed(Data):
    """An iterable training set."""

    def __init__(self, batch_size: int, samples: int = SAMPLES, noisy: bool = False) -> None:
        super().__init__(batch_size, samples)
        self.noisy = noisy

    def setup(self, stage: str) -> None:
        """A stream."""
        super().setup(stage)
        self.train = Stream(self.samples, self.noisy)

    def train_dataloader(self) -> Any:
        """A stream has its own order."""
        return DataLoader(self.train, self.batch_size)


class SharesItself(Streamed):
    """Deals each rank other samples, as some libraries do."""

    def setup(self, stage: str) -> None:
        """Every other sample, where there are two ranks."""
        super().setup(stage)
        if dist.is_initialized():
            self.train.x += dist.get_rank()  # type: ignore[attr-defined]


# What goes wrong.


class FixedSize(Data):
    """Ignores batch_size, and happens to draw what the test asks for first."""

    def train_dataloader(self) -> Any:
        """Eight."""
        return DataLoader(self.train, 8)


class FixedStream(Streamed):
    """Ignores batch_size where no loader declares it."""

    def train_dataloader(self) -> Any:
        """Threes."""
        return [tuple(part[i : i + 3] for part in points()) for i in range(0, 60, 3)].__iter__()


class NoBatchSize(Data):
    """Does not take batch_size."""

    def __init__(self, batch: int = 8) -> None:
        super().__init__(batch)


class ReadyMade(Data):
    """Its samples are batches already."""

    def train_dataloader(self) -> Any:
        """Eight at a time."""
        return DataLoader(TensorDataset(*(part.unflatten(0, (8, 8)) for part in points())), batch_size=None)


class TwoLoaders(Data):
    """Trains on two sets at once."""

    def train_dataloader(self) -> Any:
        """Both."""
        return {"a": super().train_dataloader(), "b": super().train_dataloader()}


class NoVal(pl.LightningDataModule):
    """Has no validation set."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()


class Wide(Net):
    """Its last layer does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[3] = nn.Linear(9, 2)


class NoLoss(Net):
    """Forgets to return the loss."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing."""


class Silent(Net):
    """Logs nothing."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing."""


class Normed(Net):
    """With batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[1] = nn.BatchNorm1d(8)


class ByHand(Net):
    """Optimizes by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Foreign(type("LightningModule", (), {})):  # type: ignore[misc]
    """Of a namesake in another package."""


class NoTraining(pl.LightningModule):
    """Has no training step."""


class NoOptimizer(Net):
    """Leaves the optimizer to the study."""

    configure_optimizers = pl.LightningModule.configure_optimizers


class Hoarder(Net):
    """Keeps an object in its checkpoint."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A stranger."""
        checkpoint["stranger"] = Stranger()


class Stranger:
    """Of no known type."""
