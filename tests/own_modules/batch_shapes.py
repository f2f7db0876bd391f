"""Texts and graphs of unequal size, in the batches that tokenizers and graph libraries make of them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset

SAMPLES, VAL_SAMPLES, WORDS = 48, 11, 7


def length(number: int) -> int:
    """The tokens of a text, or nodes of a graph: 2 to 12, longer at the end of the set."""
    return 2 + (5 * number) % 7 + number // 12


def tokens(number: int) -> list[int]:
    """A text, which counts up from its number."""
    return [(number + place) % WORDS for place in range(length(number))]


class Encoding(UserDict[str, Tensor]):
    """As tokenizers of transformers return it: a mapping that is no dict, with a `to` of its own."""

    def to(self, device: Any) -> Encoding:
        return Encoding({name: values.to(device) for name, values in self.items()})


def padded(texts: Sequence[dict[str, Any]]) -> Encoding:
    longest = max(len(text["input_ids"]) for text in texts)
    rows = [text["input_ids"] + [0] * (longest - len(text["input_ids"])) for text in texts]
    mask = [[1] * len(text["input_ids"]) + [0] * (longest - len(text["input_ids"])) for text in texts]
    numbers = torch.tensor([text["number"] for text in texts])
    return Encoding({"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "number": numbers})


class Set(Dataset[dict[str, Any]]):
    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": tokens(number), "number": number}


class Texts(pl.LightningDataModule):
    """Padded to the longest of a batch."""

    collate: Any = staticmethod(padded)

    def __init__(self, batch_size: int, val_batch: int = 4) -> None:
        super().__init__()
        self.batch_size, self.val_batch = batch_size, val_batch

    def train_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), self.batch_size, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> Any:
        return DataLoader(Set(VAL_SAMPLES), self.val_batch, collate_fn=self.collate)


class TextNet(pl.LightningModule):
    """Predicts the next token from the last; a loss is the mean over the tokens of a batch."""

    seen: list[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Embedding(WORDS, WORDS)
        self.seen = []

    def losses(self, batch: Any) -> Tensor:
        """The loss of every token but the first of each text, (tokens,)."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        each = cross_entropy(self.layer(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return each[mask[:, 1:].flatten().bool()]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append(batch["number"].tolist())
        losses = self.losses(batch)
        return {"loss": losses.mean(), "tokens": losses.numel()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        losses = self.losses(batch)
        self.log("val_acc", losses.neg().exp().mean(), batch_size=losses.numel(), sync_dist=True)
        self.log("val_loss", losses.mean(), batch_size=losses.numel(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LogsTokens(TextNet):
    """Logs the weight, and returns the loss alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        output = super().training_step(batch, batch_idx)
        self.log_dict({"tokens": float(output["tokens"]), "train_loss": output["loss"].detach()})
        return output["loss"]


class MeansOfBatches(TextNet):
    """Leaves it to Lightning to weight the mean of a batch, which takes its samples."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        losses = self.losses(batch)
        self.log("val_acc", losses.neg().exp().mean(), batch_size=losses.numel(), sync_dist=True)
        self.log("val_loss", losses.mean(), sync_dist=True, batch_size=len(batch["number"]))


class LossAlone(TextNet):
    """As most language models."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        losses = self.losses(batch)
        self.log("val_loss", losses.mean(), batch_size=losses.numel(), sync_dist=True)


class MeansByHand(TextNet):
    def on_validation_epoch_start(self) -> None:
        self.means: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.means.append(self.losses(batch).neg().exp().mean())

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", torch.stack(self.means).mean(), sync_dist=True)


class Perplexity(TextNet):
    """Logs what is no mean over anything."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        losses = self.losses(batch)
        self.log("val_acc", losses.mean().neg().exp(), batch_size=losses.numel(), sync_dist=True)


class Masked(TextNet):
    """Leaves tokens out at random, in training and validation, and weights all texts alike."""

    def losses(self, batch: Any) -> Tensor:
        ids, mask = batch["input_ids"], batch["attention_mask"][:, 1:]
        each = cross_entropy(self.layer(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        left = mask * (torch.rand(mask.shape) < 0.7)
        return (each.view(mask.shape) * left).sum(dim=1) / mask.sum(dim=1)


class Fixed(Texts):
    """Texts of one length."""

    def train_dataloader(self) -> Any:
        data = [{"input_ids": tokens(number)[:2], "number": number} for number in range(SAMPLES)]
        return DataLoader(data, self.batch_size, shuffle=True, collate_fn=padded)  # type: ignore[arg-type]


class ByLength:
    """A batch sampler of its own: texts of like length, the batches in an order of the seed."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def __len__(self) -> int:
        return SAMPLES // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = sorted(range(SAMPLES), key=length)
        for place in torch.randperm(len(self)).tolist():
            yield order[place * self.batch_size : (place + 1) * self.batch_size]


class Bucketed(Texts):
    def train_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), batch_sampler=ByLength(self.batch_size), collate_fn=padded)


class Balanced(ByLength):
    """Without its size; draws each batch three times in an epoch."""

    def __init__(self, batch_size: int) -> None:
        self.size = batch_size

    def __len__(self) -> int:
        return 3 * SAMPLES // self.size

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(SAMPLES))
        for _ in range(3):
            for place in torch.randperm(SAMPLES // self.size).tolist():
                yield order[place * self.size : (place + 1) * self.size]


class Oversampled(Texts):
    def train_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), batch_sampler=Balanced(self.batch_size), collate_fn=padded)


class ByTokens:
    """As many texts as stay below a number of tokens, padding included; without a length."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for number in sorted(range(SAMPLES), key=length):
            if batch and (len(batch) + 1) * length(number) > self.most:
                yield batch
                batch = []
            batch.append(number)
        yield batch


class OfTokens(Texts):
    def train_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), batch_sampler=ByTokens(4 * self.batch_size), collate_fn=padded)


class ValidatesByTokens(Texts):
    def val_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), batch_sampler=ByTokens(24), collate_fn=padded)


class Stream(IterableDataset[dict[str, Any]]):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(2 * SAMPLES):
            yield {"input_ids": tokens(number % SAMPLES), "number": number}


class Streamed(Texts):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), self.batch_size, collate_fn=padded)


class Packed(Texts):
    """All tokens of a batch one after the other, with where each text begins: no tensor is as long as the batch."""

    @staticmethod
    def collate(texts: Sequence[dict[str, Any]]) -> Any:  # type: ignore[override]
        ids = torch.tensor([token for text in texts for token in text["input_ids"]])
        ends = torch.tensor([0] + [len(text["input_ids"]) for text in texts]).cumsum(0)
        return {"input_ids": ids, "ends": ends, "number": [text["number"] for text in texts]}


class PackedBuckets(Packed):
    def train_dataloader(self) -> Any:
        return DataLoader(Set(SAMPLES), batch_sampler=Balanced(self.batch_size), collate_fn=self.collate)


class PackedStream(Packed):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), self.batch_size, collate_fn=self.collate)


class PackedNet(TextNet):
    def losses(self, batch: Any) -> Tensor:
        ids, ends = batch["input_ids"], batch["ends"]
        each = cross_entropy(self.layer(ids[:-1]), ids[1:], reduction="none")
        inside = torch.ones(len(each), dtype=torch.bool)
        inside[ends[1:-1] - 1] = False
        return each[inside]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append(batch["number"])
        losses = self.losses(batch)
        return {"loss": losses.mean(), "tokens": losses.numel()}


class Graphs:
    """As graph libraries batch: the nodes of all graphs in one tensor, whose they are, and a way through all fields."""

    def __init__(self, x: Tensor, batch: Tensor, y: Tensor, number: list[int]) -> None:
        self.x, self.batch, self.y, self.number = x, batch, y, number
        self.num_graphs = len(number)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from vars(self).items()

    def to(self, device: Any, *args: Any, **kwargs: Any) -> Graphs:
        return Graphs(self.x.to(device), self.batch.to(device), self.y.to(device), self.number)


def united(graphs: Sequence[dict[str, Any]]) -> Graphs:
    parts = [graph["input_ids"] for graph in graphs]
    x = torch.tensor([node for part in parts for node in part]).float()[:, None] / WORDS
    numbers = [graph["number"] for graph in graphs]
    owners = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
    return Graphs(x, owners, torch.tensor([number % 2 for number in numbers]), numbers)


class GraphData(Texts):
    collate: Any = staticmethod(united)


class GraphStream(Texts):
    collate: Any = staticmethod(united)

    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), self.batch_size, collate_fn=united)


class GraphNet(TextNet):
    """Lightning takes the nodes, the first dimension that it finds, for the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)  # type: ignore[assignment]

    def each(self, batch: Graphs) -> Tensor:
        out = torch.zeros(batch.num_graphs, 2).index_add(0, batch.batch, self.layer(batch.x))
        return cross_entropy(out, batch.y, reduction="none")

    def training_step(self, batch: Graphs, batch_idx: int) -> Any:
        self.seen.append(batch.number)
        return self.each(batch).mean()

    def validation_step(self, batch: Graphs, batch_idx: int) -> None:
        self.log("val_acc", self.each(batch).neg().exp().mean(), sync_dist=True)


class GraphNetOfGraphs(GraphNet):
    def validation_step(self, batch: Graphs, batch_idx: int) -> None:
        self.log("val_acc", self.each(batch).neg().exp().mean(), sync_dist=True, batch_size=batch.num_graphs)
