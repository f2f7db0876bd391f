"""The networks of the built-in workloads."""

import pytest
import torch
from torch import nn

from study.workloads.models.networks import Block, eval_mode, resnet


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("depth", "paper"), [(20, 0.27e6), (32, 0.46e6), (44, 0.66e6), (56, 0.85e6), (110, 1.7e6)])
def test_as_many_parameters_as_in_the_paper(depth: int, paper: float) -> None:
    assert parameters(resnet(depth, 3, 16, 10)) == pytest.approx(paper, rel=0.02)


def test_the_parameters_of_resnet_20_one_by_one() -> None:
    first = 3 * 16 * 9
    stages = 6 * 16 * 16 * 9 + (16 * 32 + 5 * 32 * 32) * 9 + (32 * 64 + 5 * 64 * 64) * 9
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert parameters(resnet(20, 3, 16, 10)) == first + stages + norms + (64 + 1) * 10 == 269_722


@pytest.mark.parametrize(("channels", "side", "depth", "width", "classes"), [(3, 32, 20, 16, 10), (1, 8, 8, 4, 7)])
def test_layers_and_shapes(channels: int, side: int, depth: int, width: int, classes: int) -> None:
    model = resnet(depth, channels, width, classes)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    x = torch.randn(2, channels, side, side)
    assert model(x).shape == (2, classes)
    features = model[:-3](x)
    assert features.shape == (2, 4 * width, side // 4, side // 4)


def test_a_block_whose_weights_are_zero_is_its_shortcut() -> None:
    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.second[0].weight)
    x = torch.rand(1, 2, 4, 4)
    y = block(x)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert not y[:, 2:].any()


def test_a_mixed_model_is_mixed_again_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()  # a frozen layer

    def fail() -> None:
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert [module.training for module in model.modules()] == [True, True, False, True]
