"""Ghost batch norm against batch norm itself, and against ghosts one after the other."""

import copy

import pytest
import torch
from torch import Tensor, nn

from study.workloads.models.ghost_norm import GhostNorm1d, GhostNorm2d, with_ghost_norm
from study.workloads.models.networks import convnet

SHAPES = {nn.BatchNorm1d: [(24, 5), (24, 5, 7)], nn.BatchNorm2d: [(24, 5, 4, 3)]}
CASES = [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes]


def plain_norm(kind: type[nn.Module], momentum: float = 0.1) -> nn.Module:
    """Batch norm of 5 channels that has already seen something."""
    torch.manual_seed(0)
    norm = kind(5, momentum=momentum).double()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


def run(norm: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Output, gradients and statistics of one pass."""
    x = x.clone().requires_grad_()
    y = norm(x)
    gradients = torch.autograd.grad((y**3).sum(), [x, *norm.parameters()]) if norm.training else ()
    return (y.detach(), *gradients, *(buffer.double() for buffer in norm.buffers()))


@pytest.mark.parametrize(("kind", "shape"), CASES)
@pytest.mark.parametrize("training", [True, False])
def test_one_ghost_is_plain_batch_norm(kind: type[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    plain = plain_norm(kind).train(training)
    ghost = with_ghost_norm(copy.deepcopy(plain), shape[0])
    x = torch.randn(shape, dtype=torch.float64)
    for found, expected in zip(run(ghost, x), run(plain, x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kind", "shape"), CASES)
@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_ghosts_are_plain_batch_norm_on_one_part_after_the_other(
    kind: type[nn.Module], shape: tuple[int, ...], momentum: float
) -> None:
    plain = plain_norm(kind, momentum)
    ghost = with_ghost_norm(copy.deepcopy(plain), 8)
    x = torch.randn(shape, dtype=torch.float64) * torch.arange(1, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))
    found = run(ghost, x)
    parts = [run(plain, part) for part in x.split(8)]
    outputs, inputs, weights, biases, *_ = zip(*parts, strict=True)
    expected = (torch.cat(outputs), torch.cat(inputs), sum(weights), sum(biases), *parts[-1][-3:])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_weight_and_bias_each_ghost_is_standardized() -> None:
    ghost = with_ghost_norm(nn.BatchNorm1d(5, eps=1e-12, affine=False).double(), 8)
    parts = ghost(torch.randn(24, 5, dtype=torch.float64)).view(3, 8, 5)
    torch.testing.assert_close(parts.mean(dim=1), torch.zeros(3, 5).double())
    torch.testing.assert_close(parts.var(dim=1, unbiased=False), torch.ones(3, 5).double())


@pytest.mark.parametrize("ghost_batch", [5, 48])
def test_ghosts_that_do_not_fill_the_batch_are_refused(ghost_batch: int) -> None:
    ghost = GhostNorm1d(3, ghost_batch, eps=1e-5, momentum=0.1, affine=True)
    with pytest.raises(ValueError, match=f"24 cannot be cut into ghost batches of {ghost_batch}"):
        ghost(torch.randn(24, 3))
    assert ghost.eval()(torch.randn(7, 3)).shape == (7, 3)


def test_models_keep_their_parameters_and_statistics() -> None:
    model = convnet(1, 4, 10)
    model[1].eval()
    state, parameters = model.state_dict(), [id(parameter) for parameter in model.parameters()]
    ghost = with_ghost_norm(model, 8)
    assert sum(isinstance(module, GhostNorm2d) for module in ghost.modules()) == 3
    assert [id(parameter) for parameter in ghost.parameters()] == parameters
    assert list(ghost.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ghost.state_dict().items())
    assert [module.training for module in ghost][:3] == [True, False, True]
    assert ghost(torch.randn(16, 1, 8, 8)).shape == (16, 10)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm3d(2), nn.BatchNorm1d(2, momentum=None), nn.BatchNorm2d(2, track_running_stats=False)]
)
def test_batch_norms_without_a_ghost_are_refused(norm: nn.Module) -> None:
    with pytest.raises(ValueError, match="no ghost batch norm for BatchNorm"):
        with_ghost_norm(nn.Sequential(norm), 4)
