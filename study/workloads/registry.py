"""From a workload's config to its data and a fresh network."""

from __future__ import annotations

from torch import nn

from study.plan.config import Digits, Teacher
from study.workloads.data import Splits, digits, teacher
from study.workloads.models import convnet, mlp


def load_splits(config: Digits | Teacher) -> Splits:
    """The data of an embedded workload."""
    return digits(config) if isinstance(config, Digits) else teacher(config)


def build_model(config: Digits | Teacher, splits: Splits) -> nn.Module:
    """A network with fresh weights from torch's global generator, fitted to the data's shape."""
    shape = splits.train.x.shape[1:]
    if config.model == "convnet":
        return convnet(shape[0], config.width, splits.classes)
    return mlp(shape.numel(), config.width, splits.classes)
