"""The networks of the built-in workloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from study.config.workloads import Embedded, ImageFolder, Text
from study.workloads.data.splits import Splits
from study.workloads.models.gpt import GPT


def build_model(config: Embedded, splits: Splits) -> nn.Module:
    """Return a network with fresh weights from torch's global generator, fitted to the data's shape."""
    if isinstance(config, Text):
        return GPT(splits.classes, config.context, config.width, config.depth, config.heads, config.tied_head)
    shape = splits.train.x.shape[1:]
    if isinstance(config, ImageFolder) and config.model == "resnet":
        return resnet(config.depth, shape[0], config.width, splits.classes)
    if config.model == "convnet":
        return convnet(shape[0], config.width, splits.classes)
    return mlp(shape.numel(), config.width, splits.classes)


def mlp(inputs: int, width: int, classes: int) -> nn.Sequential:
    """Return two hidden ReLU layers of `width`; takes (n, ...) with `inputs` numbers a sample."""
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
    """Return three 3x3 convolutions with batch norm, pooled in between, then linear; takes (n, channels, h, w)."""
    return nn.Sequential(
        *_stage(channels, width),
        *_stage(width, 2 * width),
        nn.MaxPool2d(2),
        *_stage(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch norm; weights for ReLU as in He et al. 2015 (arXiv:1502.01852)."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions beside a shortcut without weights, which is the paper's option A."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(inputs, outputs, stride), _convolution(outputs, outputs, 1)
        self.stride, self.new_channels = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        # A shortcut to a smaller, deeper stage leaves out pixels, and has zeros for the new channels.
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return relu(self.second(relu(self.first(x))) + shortcut)


def resnet(depth: int, channels: int, width: int, classes: int) -> nn.Module:
    """Return a residual network of `depth` = 6n + 2 layers (He et al. 2016, arXiv:1512.03385, section 4.2).

    Stages of width, 2 width and 4 width; the paper's width is 16. Takes (n, channels, h, w), meant for 32 x 32 pixels.
    """
    layers: list[nn.Module] = [_convolution(channels, width, 1), nn.ReLU()]
    inputs = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            outputs = width * 2**stage
            layers.append(Block(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether any statistic is taken over the micro batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside; afterwards every submodule has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
