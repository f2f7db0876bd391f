"""From a workload's config to its data and a fresh network."""

from __future__ import annotations

from torch import nn

from study.config.workloads import Contrastive, Digits, Embedded, ImageFolder, Teacher
from study.workloads.data.splits import Splits, digits, image_folder, teacher
from study.workloads.models.resnet import resnet
from study.workloads.models.small import convnet, mlp


def load_splits(config: Embedded | Contrastive) -> Splits:
    """The data of a workload that comes with the package. Raises ConfigError if it is not where it should be."""
    if isinstance(config, Digits | Contrastive):
        return digits(config)
    return teacher(config) if isinstance(config, Teacher) else image_folder(config)


def build_model(config: Embedded, splits: Splits) -> nn.Module:
    """A network with fresh weights from torch's global generator, fitted to the data's shape."""
    shape = splits.train.x.shape[1:]
    if isinstance(config, ImageFolder) and config.model == "resnet":
        return resnet(config.depth, shape[0], config.width, splits.classes)
    if config.model == "convnet":
        return convnet(shape[0], config.width, splits.classes)
    return mlp(shape.numel(), config.width, splits.classes)
