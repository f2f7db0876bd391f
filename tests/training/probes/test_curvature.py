"""The top of a spectrum that is known."""

import numpy as np
import pytest
import torch
from torch import nn

from study.training.probes.curvature import model_curvature, top_eigenvalue


def test_of_an_indefinite_matrix() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((300, 300))
    matrix = half + half.T - 5 * np.eye(300)  # the eigenvalue of largest size is negative
    expected = np.linalg.eigvalsh(matrix)[-1]
    assert top_eigenvalue(lambda v: matrix @ v, 300, rng) == pytest.approx(expected, rel=1e-4)


def test_of_least_squares_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 40)
    model = nn.Linear(40, 1, bias=False)
    found = model_curvature(
        model,
        lambda batch: ((model(batch[0]).squeeze(1) - batch[1]) ** 2).mean() / 2,
        list(zip(x.split(30), torch.randn(100).split(30), strict=True)),
        np.random.default_rng(0),
    )
    assert found == pytest.approx(np.linalg.eigvalsh((x.T @ x / 100).numpy())[-1], rel=1e-4)


def test_of_a_network_is_that_of_its_whole_hessian() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randint(0, 3, (50,))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]

    def loss_at(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    here = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    whole = torch.autograd.functional.hessian(loss_at, here).numpy()
    found = model_curvature(
        model, lambda batch: nn.functional.cross_entropy(model(batch[0]), batch[1]), [(x, y)], np.random.default_rng(0)
    )
    assert found == pytest.approx(np.linalg.eigvalsh(whole)[-1], rel=1e-4)
