"""Modules and data in the shapes that users bring, each with one thing of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from torchmetrics.classification import BinaryAccuracy

SAMPLES = 48
VAL_LABELS = (1, 0, 0, 0, 1)  # of the validation set; three of five are 0
Batch = tuple[Tensor, Tensor]


class Data(pl.LightningDataModule):
    """Samples are their own numbers; five to validate."""

    def __init__(self, batch_size: int, val_samples: int = 5, val_batch: int = 2) -> None:
        super().__init__()
        self.batch_size, self.val_samples, self.val_batch = batch_size, val_samples, val_batch

    def setup(self, stage: str) -> None:
        x = torch.arange(SAMPLES).float()[:, None]
        self.train = TensorDataset(x, (x[:, 0] % 2).long())
        y = torch.tensor(VAL_LABELS).repeat(-(-self.val_samples // 5))[: self.val_samples]
        self.val = TensorDataset(y.float()[:, None], y)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, self.val_batch)


class Net(pl.LightningModule):
    """Notes the samples of each micro batch; its accuracy is the share of zeros, whatever the weights are."""

    seen: list[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.accuracy = BinaryAccuracy()
        self.seen = []

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x, y = batch
        self.seen.append(x[:, 0].int().tolist())
        return cross_entropy(self.layer(x / SAMPLES), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.accuracy(torch.zeros(len(batch[1])), batch[1])
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def zeros(batch: Batch) -> Tensor:
    """The share of zeros in a batch."""
    return (batch[1] == 0).float().mean()


# How figures are logged.


class Reduced(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", zeros(batch), sync_dist=True)


class NotReduced(Net):
    """Each rank logs the figure of its own part."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", zeros(batch))


class LossNotReduced(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val_loss", zeros(batch))


class Forwarded(Net):
    """Logs what the metric says of a batch, and not the metric."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", self.accuracy(torch.zeros(len(batch[1])), batch[1]))


class Gathered(Net):
    """Gathers all labels; every rank works out the figure."""

    def on_validation_epoch_start(self) -> None:
        self.labels: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.labels.append(batch[1])

    def on_validation_epoch_end(self) -> None:
        labels = self.all_gather(torch.cat(self.labels))
        self.note((labels.flatten() == 0).float().mean())

    def note(self, accuracy: Tensor) -> None:
        self.log("val_acc", accuracy)


class GatheredOnRankZero(Gathered):
    def note(self, accuracy: Tensor) -> None:
        if self.trainer.is_global_zero:
            self.log("val_acc", accuracy, rank_zero_only=True)


class OnRankOne(Gathered):
    def note(self, accuracy: Tensor) -> None:
        if self.global_rank == 1:
            self.log("val_acc", accuracy)


class MeanOfRanks(Gathered):
    """Has Lightning take the mean over the ranks, which have three samples and two."""

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", (torch.cat(self.labels) == 0).float().mean(), sync_dist=True)


class MeanOfRanksByHand(Gathered):
    def on_validation_epoch_end(self) -> None:
        own = (torch.cat(self.labels) == 0).float().mean()
        self.log("val_acc", self.all_gather(own).mean())  # type: ignore[union-attr]


class MeanOfBatchesByHand(Gathered):
    def on_validation_epoch_end(self) -> None:
        own = torch.stack([(labels == 0).float().mean() for labels in self.labels])
        self.log("val_acc", self.all_gather(own).mean())  # type: ignore[union-attr]


class PartOfRankZero(Gathered):
    """Gathers nothing."""

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            self.log("val_acc", (torch.cat(self.labels) == 0).float().mean(), rank_zero_only=True)


class NanOnRankOne(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", torch.tensor(math.nan if self.global_rank else 0.5))


class LossAtFirst(Net):
    """Logs its loss in the first epoch alone."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if self.current_epoch == 0:
            self.log("val_loss", zeros(batch), sync_dist=True)


class EverySecond(Net):
    validations = 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.validations % 2 == 0:
            self.log("val_acc", zeros(batch), sync_dist=True)

    def on_validation_end(self) -> None:
        self.validations += 1


class LastBatch(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", zeros(batch), sync_dist=True, on_step=True, on_epoch=False)


class Percent(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", 100 * zeros(batch), sync_dist=True)


class OfTraining(Net):
    """Logs an accuracy in training alone."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("acc", zeros(batch), sync_dist=True)
        return super().training_step(batch, batch_idx)


# Losses.


class Constant(Net):
    """A network that knows nothing of ten classes."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return 0 * self.layer(batch[0]).sum() + math.log(10)


class Skipping(Net):
    """Leaves out the batch of its odd numbers: on one rank or on all."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx == 1 and self.global_rank == 0 else loss


class Weighted(Net):
    """A sample has as many tokens as its number says, and each weighs the same."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x, y = batch
        self.seen.append(x[:, 0].int().tolist())
        each = cross_entropy(self.layer(x / SAMPLES), y, reduction="none")
        tokens = x[:, 0] + 1
        return {"loss": (tokens * each).sum() / tokens.sum(), "tokens": tokens.sum()}


class Half(Net):
    """A loss in bfloat16, whose sum in bfloat16 would stop at 512."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return (0 * self.layer(batch[0]).sum() + 2.25).bfloat16()


class NoTokens(Weighted):
    """The samples below 40 have none, so that the mean over a micro batch of them is nan."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x, y = batch
        self.seen.append(x[:, 0].int().tolist())
        tokens = (x[:, 0] >= 40).float()
        each = cross_entropy(self.layer(x / SAMPLES), y, reduction="none")
        return {"loss": (tokens * each).sum() / tokens.sum(), "tokens": tokens.sum()}


class FirstSkipped(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if self.global_step == 0 else loss


# Steps that are not counted.


class StepsEverySecond(Net):
    """Accumulates on its own account."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class Accumulates(Net):
    def configure_callbacks(self) -> Any:
        return [GradientAccumulationScheduler({0: 1, 1: 2})]


# What a study has to know of DDP.


class Unfreezes(Net):
    """Trains a layer from the second epoch on, of which DDP does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 1).requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        self.first.requires_grad_(self.current_epoch > 0)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return cross_entropy(self.layer(self.first(batch[0] / SAMPLES)), batch[1])


class DrawsOnItsRank(Net):
    def on_train_start(self) -> None:
        self.layer.weight.data += self.global_rank


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(1, 1)


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)  # type: ignore[assignment]


class StopsItself(Net):
    def on_train_batch_end(self, *args: Any) -> None:
        self.trainer.should_stop = True


class Callbacks(Net):
    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val_acc", patience=0, mode="max"), ModelCheckpoint("written")]


class Judged(Net):
    """Logs a loss that depends on its weights, and draws random numbers as it trains."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x, y = batch
        self.seen.append(x[:, 0].int().tolist())
        return cross_entropy(nn.functional.dropout(self.layer(x / SAMPLES), 0.2), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val_loss", cross_entropy(self.layer(batch[0]), batch[1]), sync_dist=True)


class Shrinking(Callback):
    """Shrinks the weights the more, the more validations and epochs have ended; counts the samples of its own rank."""

    def __init__(self, by: float = 0.1) -> None:
        self.by, self.validations, self.epochs, self.samples = by, 0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "epochs": self.epochs, "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.samples += int(batch[0].sum())
        pl_module.seen.append([self.samples])
        pl_module.layer.weight.data.mul_(1 - self.by * (self.validations + 10 * self.epochs) / 100)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.validations += 1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1


class Judge(Callback):
    """Works the accuracy out and logs it, for modules that log nothing."""

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.counts = torch.zeros(2, dtype=torch.int64)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.counts += torch.tensor([int((batch[1] == 0).sum()), len(batch[1])])

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        right, total = pl_module.all_gather(self.counts).reshape(-1, 2).sum(0)
        pl_module.log("val_acc", right / total)


class LogsNothing(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass


class Shrinks(Judged):
    """The same by its own configure_callbacks."""

    def configure_callbacks(self) -> Any:
        return Shrinking()


class KeepsCount(Judged):
    """Counts its validations in a buffer, after all its callbacks, and trains by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def on_validation_end(self) -> None:
        self.count += 1

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (1 + self.count)


class WithLoaders(Judged):
    """Has its loaders itself, as small projects do, and takes the batch size."""

    def __init__(self, batch_size: int, val_batch: int = 2) -> None:
        super().__init__()
        self.batch_size, self.val_batch = batch_size, val_batch

    def setup(self, stage: str) -> None:
        logger: Any = self.logger
        logger.log_hyperparams({"batch_size": self.batch_size})
        x, y = torch.arange(SAMPLES).float()[:, None], torch.tensor(VAL_LABELS)
        self.train_set, self.val_set = TensorDataset(x, (x[:, 0] % 2).long()), TensorDataset(y.float()[:, None], y)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val_set, self.val_batch)


class WithLoadersOfASection(WithLoaders):
    def __init__(self, config: Any) -> None:
        super().__init__(config.loader.batch_size)


class WantsBatch(Judged):
    """Refuses any batch but the one that it was promised."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        assert len(batch[0]) == self.batch_size
        return super().training_step(batch, batch_idx)


class WantsTrainBatch(WantsBatch):
    def __init__(self, train_batch_size: int) -> None:
        super().__init__(train_batch_size)


class WantsSection(WantsBatch):
    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams.batch_size)


class WantsWidth(Net):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()


class OtherCallback(Net):
    def configure_callbacks(self) -> Any:
        from lightning.pytorch.callbacks import EarlyStopping as Foreign

        return [Foreign("val_acc")]


class Logging(Net):
    def on_validation_epoch_end(self) -> None:
        logger: Any = self.logger
        logger.experiment.add_image("weights", self.layer.weight, self.global_step)
        logger.experiment.config.update({"a": 1}, allow_val_change=True)  # as one does with W&B's
        logger.experiment.summary["best"] = 1.0
        logger.log_image("weights", [self.layer.weight])
        logger.watch(self)
        with open(os.path.join(logger.experiment.dir, f"{logger.experiment.id}-{self.global_rank}"), "w") as file:
            file.write("kept nowhere")
        logger.log_metrics({"a": 1.0})
        with open(os.path.join(logger.log_dir, f"{logger.name}-{logger.version}-{self.global_rank}"), "w") as file:
            file.write("kept nowhere")


class GathersByHand(Gathered):
    """Takes the ranks to have equally many samples."""

    def on_validation_epoch_end(self) -> None:
        own = torch.cat(self.labels)
        found = [torch.zeros_like(own) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(found, own)
        self.log("val_acc", (torch.cat(found) == 0).float().mean())


# Data.


class Divides(Data):
    """Takes the global batch, as many templates do."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.trainer is not None
        assert self.batch_size % self.trainer.world_size == 0
        self.batch_size //= self.trainer.world_size


class OtherName(Data):
    def __init__(self, train_batch_size: int = 8, eval_batch_size: int = 2) -> None:
        super().__init__(train_batch_size, val_batch=eval_batch_size)


class AnyName(Data):
    """Takes what it is given, and ignores what it does not know."""

    def __init__(self, per_device_batch_size: int = 8, **others: Any) -> None:
        super().__init__(per_device_batch_size)


class OfADict(Data):
    def __init__(self, hparams: dict[str, Any]) -> None:
        super().__init__(hparams["batch_size"])


class OfANamespace(Data):
    def __init__(self, config: Any, val_samples: int = 5) -> None:
        super().__init__(config.loader.batch_size, val_samples)


class DividesByAccumulation(Data):
    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return DataLoader(self.train, self.batch_size // self.trainer.accumulate_grad_batches)


class Buckets(BatchSampler):
    """The first half of the set and the second, each with a smaller batch at its end, or without it."""

    def __init__(self, batch_size: int, drop_last: bool) -> None:
        super().__init__(range(SAMPLES), batch_size, drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        half = SAMPLES // 2 + 2
        for part in (list(range(half)), list(range(half, SAMPLES))):
            yield from BatchSampler(part, self.batch_size, self.drop_last)


class Bucketed(Data):
    def __init__(self, batch_size: int, drop_last: bool) -> None:
        super().__init__(batch_size)
        self.drop_last = drop_last

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_sampler=Buckets(self.batch_size, self.drop_last))


class Descending(BatchSampler):
    """Each batch from its largest sample to its smallest."""

    def __iter__(self) -> Iterator[list[int]]:
        return (sorted(batch, reverse=True) for batch in super().__iter__())


class OwnBatchesOfAShare(Data):
    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        share: Any = DistributedSampler(self.train, self.trainer.world_size, self.trainer.global_rank)
        return DataLoader(self.train, batch_sampler=Descending(share, self.batch_size, True))


class Augmented(Data):
    """By a generator of the set's own, which no seed reaches."""

    def train_dataloader(self) -> Any:
        return DataLoader(Noisy(self.train), self.batch_size, shuffle=True)


class Noisy(Dataset[Any]):
    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples, self.rng = samples, np.random.default_rng()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        x, y = self.samples[index]
        return x + float(self.rng.uniform(0, 0.1)), y


class Shards(Data):
    """Keeps this rank's part of both sets."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.trainer is not None
        part = slice(self.trainer.global_rank, None, self.trainer.world_size)
        self.val = TensorDataset(*self.val[part])


class ShardsTraining(Data):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.trainer is not None
        self.train = TensorDataset(*self.train[self.trainer.global_rank :: self.trainer.world_size])


class Drawn(Data):
    """With a sampler by name."""

    def __init__(self, batch_size: int, sampler: str) -> None:
        super().__init__(batch_size)
        self.sampler = sampler

    def train_dataloader(self) -> Any:
        own = {
            "weighted": lambda: WeightedRandomSampler(torch.arange(SAMPLES) + 1.0, SAMPLES),
            "generator": lambda: RandomSampler(self.train, generator=torch.Generator().manual_seed(1)),
            "distributed": lambda: (
                DistributedSampler(self.train)
                if torch.distributed.is_initialized()
                else DistributedSampler(self.train, num_replicas=1, rank=0)
            ),
            "global": lambda: Global(),
            "epochs": lambda: Epochs(),
            "one order": lambda: OneOrder(),
            "in a group": lambda: DistributedSampler(self.train),
        }
        if self.sampler == "batches":
            return DataLoader(self.train, batch_sampler=Pairs(self.batch_size))
        if self.sampler == "batch sampler":
            return DataLoader(
                self.train, batch_sampler=BatchSampler(RandomSampler(self.train), self.batch_size, drop_last=True)
            )
        if self.sampler == "workers that are sent nothing":
            return DataLoader(
                self.train, self.batch_size, shuffle=True, num_workers=1, collate_fn=lambda some: default_collate(some)
            )
        if self.sampler == "workers":
            return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=1, persistent_workers=True)
        return DataLoader(self.train, self.batch_size, sampler=own[self.sampler]())


class Global(Sampler[int]):
    """Draws from the global generator."""

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(SAMPLES).tolist()


class OneOrder(Sampler[int]):
    """Draws from a generator of its own, which starts alike in every trial."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        yield from self.rng.permutation(SAMPLES).tolist()


class Epochs(Sampler[int]):
    """Draws from its seed and the epoch that it is given."""

    seed, epoch = 7, 0

    def __len__(self) -> int:
        return SAMPLES

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        yield from torch.randperm(SAMPLES, generator=generator).tolist()


class Pairs:
    """A batch sampler of its own kind: batches of neighbours."""

    def __init__(self, batch_size: int) -> None:
        self.size = batch_size

    def __len__(self) -> int:
        return SAMPLES // self.size

    def __iter__(self) -> Iterator[list[int]]:
        for first in torch.randperm(len(self)).tolist():
            yield list(range(first * self.size, (first + 1) * self.size))


class StreamOfARank(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for number in range(rank, 2 * SAMPLES, 2):
            yield torch.tensor([float(number)]), number % 2


class ShardedStream(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(StreamOfARank(), self.batch_size)


class Words(Dataset[Any]):
    """A set whose keys are words, and which has no length."""

    def __getitem__(self, key: str) -> Any:
        number = int(key.removeprefix("sample "))
        return torch.tensor([float(number)]), number % 2


class ByWord(Sampler[str]):
    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[str]:
        yield from (f"sample {number}" for number in torch.randperm(SAMPLES).tolist())


class Keyed(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Words(), self.batch_size, sampler=ByWord())
