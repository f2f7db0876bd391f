"""SimCLR: learn features from two views of each image, and judge them with a linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from study.training.evalmode import eval_mode
from study.training.lean import LeanModule
from study.training.ntxent import nt_xent, place_in_group
from study.workloads.augment import distort, draw_distortions
from study.workloads.batching import Batch, derived_seed
from study.workloads.data import Part

PROJECTION = 32
TEMPERATURE = 0.5
PROBE_ITERATIONS = 1000


class SimCLR(LeanModule):
    """An encoder of images, and a head that projects its features for NT-Xent alone (arXiv:2002.05709)."""

    def __init__(self, encoder: nn.Module, features: int, seed: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.seed = encoder, seed
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, PROJECTION))
        self.batches_seen = 0

    def views(self, x: Tensor) -> Tensor:
        """Two views of each image (n, 1, h, w) as (2n, 1, h, w): all first ones, then all second ones.

        They follow from the seed and the number of batches so far, whatever the number of ranks.
        """
        rank, world_size = place_in_group()
        n, (height, width) = len(x), x.shape[2:]
        generator = torch.Generator().manual_seed(derived_seed(*self.seed, self.batches_seen))
        rows = slice(rank * n, (rank + 1) * n)
        drawn = [draw_distortions(world_size * n, height, width, generator).rows(rows) for _ in range(2)]
        return torch.cat([distort(x, by.to(x.device)) for by in drawn])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """NT-Xent of a micro batch; the labels are not looked at."""
        projected = self.head(self.encoder(self.views(batch[0])))
        self.batches_seen += 1
        first, second = projected.chunk(2)
        return nt_xent(first, second, TEMPERATURE)

    def configure_optimizers(self) -> Any:
        """Set by the rank, which knows the trial."""
        raise NotImplementedError("a rank assigns configure_optimizers before it fits")


@dataclass(frozen=True)
class ProbeResult:
    """How well a linear classifier reads the classes from features, on samples it was not fitted to."""

    loss: float  # cross-entropy, nats
    accuracy: float


def linear_probe(encoder: nn.Module, train: Part, held_out: Part) -> ProbeResult:
    """Fit a logistic regression to the frozen features of `train`, and judge it on `held_out`; on this rank alone.

    Every class of `held_out` must stand in `train`.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_ITERATIONS))
    classifier.fit(_features(encoder, train), train.y.cpu().numpy())
    x, y = _features(encoder, held_out), held_out.y.cpu().numpy()
    return ProbeResult(
        loss=float(log_loss(y, classifier.predict_proba(x), labels=classifier.classes_)),
        accuracy=float(classifier.score(x, y)),
    )


@torch.no_grad()
def _features(encoder: nn.Module, part: Part) -> Any:
    device = next(encoder.parameters()).device
    with eval_mode(encoder):
        return torch.cat([encoder(x.to(device)) for x in part.x.split(1024)]).cpu().numpy()
