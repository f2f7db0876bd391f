"""Data held in memory as tensors, split once and for all by the data seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from study.plan.config import Digits, Teacher


@dataclass(frozen=True)
class Part:
    """Inputs (n, ...) float32 and labels (n,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Splits:
    """Three parts that share no sample."""

    train: Part
    val: Part
    test: Part
    classes: int


def digits(config: Digits) -> Splits:
    """scikit-learn's digits as images (n, 1, 8, 8) in [0, 1]."""
    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.float32) / 16.0).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(config.data_seed).permutation(len(y)))
    n_train = len(y) - config.val_samples - config.test_samples
    train, val, test = order.split([n_train, config.val_samples, config.test_samples])
    return Splits(Part(x[train], y[train]), Part(x[val], y[val]), Part(x[test], y[test]), classes=10)


def teacher(config: Teacher) -> Splits:
    """Standard normal inputs (n, features), labelled by the argmax of a random two-layer ReLU network.

    `label_noise` of the training labels are redrawn; validation and test labels stay clean, so that accuracy
    means agreement with the teacher.
    """
    rng = np.random.default_rng(config.data_seed)
    first = rng.standard_normal((config.features, config.teacher_width)) / np.sqrt(config.features)
    second = rng.standard_normal((config.teacher_width, config.classes)) / np.sqrt(config.teacher_width)
    sizes = [config.train_samples, config.val_samples, config.test_samples]
    x = rng.standard_normal((sum(sizes), config.features))
    hidden = np.maximum(x @ first, 0)
    # Centred, so that no class swallows the others.
    y = ((hidden - hidden.mean(axis=0)) @ second).argmax(axis=1)
    redrawn = rng.random(config.train_samples) < config.label_noise
    y[: config.train_samples][redrawn] = rng.integers(config.classes, size=int(redrawn.sum()))
    xs = torch.from_numpy(x.astype(np.float32)).split(sizes)
    ys = torch.from_numpy(y.astype(np.int64)).split(sizes)
    train, val, test = (Part(x_, y_) for x_, y_ in zip(xs, ys, strict=True))
    return Splits(train, val, test, classes=config.classes)
