"""SimCLR as a trial: learn features from two views of each image, and judge them with a linear probe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from study.config.workloads import Contrastive
from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import TensorJob
from study.training.jobs.nt_xent import nt_xent, rank_and_world_size
from study.training.lightning_patches import FastHookModule
from study.training.snapshot import Resumed
from study.workloads.data.augment import distort, draw_distortions
from study.workloads.data.batching import Batch, derived_seed
from study.workloads.data.splits import Part, Splits
from study.workloads.models.networks import eval_mode, mlp

PROJECTION = 32
PROBE_ITERATIONS = 1000
_VIEWS = 2  # sets their draws apart from those of the order of the data


class SimCLR(FastHookModule):
    """An encoder of images, and a head that projects its features for NT-Xent alone (arXiv:2002.05709)."""

    def __init__(self, encoder: nn.Module, features: int, temperature: float, seed: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.temperature, self.seed = encoder, temperature, seed
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, PROJECTION))
        self.losses: list[Tensor] = []

    def views(self, x: Tensor, batch_idx: int) -> Tensor:
        """Return two views of each image (n, 1, h, w) as (2n, 1, h, w): all first views, then all second ones.

        They follow from the seed and the batch's number in the trial, for any number of ranks.
        """
        rank, world_size = rank_and_world_size()
        n, (height, width) = len(x), x.shape[2:]
        generator = torch.Generator().manual_seed(derived_seed(*self.seed, batch_idx, _VIEWS))
        rows = slice(rank * n, (rank + 1) * n)
        drawn = [draw_distortions(world_size * n, height, width, generator).rows(rows) for _ in range(2)]
        return torch.cat([distort(x, by.to(x.device)) for by in drawn])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return NT-Xent of a micro batch; the labels are not used."""
        first, second = self.head(self.encoder(self.views(batch[0], batch_idx))).chunk(2)
        loss = nt_xent(first, second, self.temperature)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Do nothing: the linear probe judges the features."""

    def mean_loss(self) -> float:
        """Return the mean over all ranks and the training steps since the last call. Every rank must call it."""
        mean, self.losses = torch.stack(self.losses).double().mean(), []
        if dist.is_initialized():
            dist.all_reduce(mean)
        return mean.item() / rank_and_world_size()[1]

    def configure_optimizers(self) -> Any:
        """Refuse: the rank, which knows the trial, replaces this method."""
        raise NotImplementedError("a rank assigns configure_optimizers before it fits")


@dataclass(frozen=True)
class ProbeResult:
    """How well a linear classifier reads the classes from features, on samples it was not fitted to."""

    loss: float  # cross-entropy, nats
    accuracy: float


def linear_probe(encoder: nn.Module, train: Part, held_out: Part) -> ProbeResult:
    """Fit a logistic regression to the frozen features of `train`, and judge it on `held_out`; on this rank alone.

    Every class of `held_out` must occur in `train`. Where features are not finite, the loss is NaN and the accuracy 0.
    """
    # Imported here: every rank starts faster without scikit-learn.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known, x = _features(encoder, train), _features(encoder, held_out)
    if not (np.isfinite(known).all() and np.isfinite(x).all()):
        return ProbeResult(loss=math.nan, accuracy=0.0)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_ITERATIONS))
    classifier.fit(known, train.y.cpu().numpy())
    y = held_out.y.cpu().numpy()
    return ProbeResult(
        loss=float(log_loss(y, classifier.predict_proba(x), labels=classifier.classes_)),
        accuracy=float(classifier.score(x, y)),
    )


def probe_together(encoder: nn.Module, train: Part, held_out: Part) -> ProbeResult:
    """Return the `linear_probe` of rank 0 on every rank. Every rank must call it."""
    found = torch.zeros(2, dtype=torch.float64, device=next(encoder.parameters()).device)
    if rank_and_world_size()[0] == 0:
        probe = linear_probe(encoder, train, held_out)
        found[0], found[1] = probe.loss, probe.accuracy
    if dist.is_initialized():
        dist.broadcast(found, src=0)
    return ProbeResult(*found.tolist())


def few_labelled(part: Part, n: int) -> Part:
    """Return the `n` earliest samples of a part, as many of each class as it has, up to equal numbers."""
    place_in_class = torch.zeros_like(part.y)
    for label in part.y.unique():
        of_class = part.y == label
        place_in_class[of_class] = torch.arange(int(of_class.sum()), device=part.y.device)
    chosen = place_in_class.argsort(stable=True)[:n]
    return Part(part.x[chosen], part.y[chosen])


@torch.no_grad()
def _features(encoder: nn.Module, part: Part) -> NDArray[np.float64]:
    device = next(encoder.parameters()).device
    with eval_mode(encoder):
        return torch.cat([encoder(x.to(device)) for x in part.x.split(1024)]).double().cpu().numpy()


class ContrastiveJob(TensorJob):
    """SimCLR. Validation loss and accuracy are those of a linear probe, fitted at each report on a few labels."""

    def __init__(
        self, config: Contrastive, spec: TrialSpec, topology: RankTopology, splits: Splits, resumed: Resumed | None
    ) -> None:
        super().__init__(spec, topology, splits, resumed)
        encoder = mlp(splits.train.x[0].numel(), config.width, splits.classes)[:-1]
        self.module = SimCLR(encoder, config.width, config.temperature, spec.seed)
        self.labelled = few_labelled(splits.train, config.probe_labels)
        self.splits = splits

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Fit the linear probe and judge it on the validation split."""
        probe = probe_together(self.module.encoder, self.labelled, self.splits.val)
        return Metrics(
            train_loss=self.module.mean_loss(), train_accuracy=None, val_loss=probe.loss, val_accuracy=probe.accuracy
        )

    def test_metrics(self, done: Callable[[], None]) -> dict[str, float]:
        """Return the probe's loss and accuracy on the test split."""
        probe = probe_together(self.module.encoder, self.labelled, self.splits.test)
        return {"test_loss": probe.loss, "test_accuracy": probe.accuracy}

    def probe_target(self) -> None:
        """Return None: the loss depends on views and ranks, and is no function of a batch."""
