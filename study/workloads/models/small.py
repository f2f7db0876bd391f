"""The networks of the embedded workloads."""

from __future__ import annotations

from torch import nn


def mlp(inputs: int, width: int, classes: int) -> nn.Sequential:
    """Two hidden ReLU layers of `width`; takes (n, ...) with `inputs` numbers a sample."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def convnet(channels: int, width: int, classes: int) -> nn.Module:
    """Three 3x3 convolutions with batch norm, pooled in between, and a linear layer; takes (n, channels, h, w)."""
    return nn.Sequential(
        *_stage(channels, width),
        *_stage(width, 2 * width),
        nn.MaxPool2d(2),
        *_stage(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any statistic is taken over the micro batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
