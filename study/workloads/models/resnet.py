"""Residual networks for images of 32 x 32 pixels (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, relu


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3, with batch norm; weights for ReLU as in He et al. 2015 (arXiv:1502.01852)."""
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
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        # A shortcut to a smaller, deeper stage leaves out pixels, and has zeros for the new channels.
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return relu(self.second(relu(self.first(x))) + shortcut)


def resnet(depth: int, channels: int, width: int, classes: int) -> nn.Module:
    """ResNet of `depth` = 6n + 2 layers with stages of width, 2 width and 4 width; takes (n, channels, h, w).

    The paper's have a width of 16.
    """
    layers: list[nn.Module] = [_convolution(channels, width, 1), nn.ReLU()]
    inputs = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            outputs = width * 2**stage
            layers.append(Block(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
