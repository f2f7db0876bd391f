"""The highest place in a box, where it is known."""

import numpy as np
import pytest
import torch
from torch import nn

from study.training.probes.sharpness import (
    EPSILONS,
    model_curvature,
    model_sharpness,
    random_basis,
    sharpness,
    top_eigenvalue,
)


def quadratic(curvatures: np.ndarray, minimum: np.ndarray):
    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(curvatures @ (x - minimum) ** 2) / 2, curvatures * (x - minimum)

    return value_and_gradient


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-6])
def test_of_a_diagonal_quadratic(eps: float, distance: float) -> None:
    # Each coordinate has a maximum of its own: the end of its interval that lies farther from the minimum.
    rng = np.random.default_rng(0)
    curvatures, minimum = rng.lognormal(0, 2, 200), rng.standard_normal(200)
    x = minimum + distance * rng.standard_normal(200)
    radius = eps * (np.abs(x) + 1)
    here = curvatures @ (x - minimum) ** 2 / 2
    top = curvatures @ (np.abs(x - minimum) + radius) ** 2 / 2
    expected = 100 * (top - here) / (1 + here)
    assert sharpness(quadratic(curvatures, minimum), x, eps) == pytest.approx(expected, rel=0.01)


def test_of_a_quadratic_in_a_subspace() -> None:
    # Columns that are multiples of unit vectors keep the problem diagonal: moving z_i moves x_i by s_i z_i.
    n, p, eps = 50, 10, 1e-3
    rng = np.random.default_rng(1)
    curvatures, minimum, stretch = rng.lognormal(size=n), rng.standard_normal(n), rng.uniform(1, 3, p)
    x = minimum + 1e-2 * rng.standard_normal(n)
    basis = np.zeros((n, p))
    basis[np.arange(p), np.arange(p)] = stretch
    radius = stretch * eps * (np.abs(x[:p] / stretch) + 1)  # the pseudo-inverse divides by s_i
    away = np.abs(x - minimum)
    here = curvatures @ away**2 / 2
    away[:p] += radius
    expected = 100 * (curvatures @ away**2 / 2 - here) / (1 + here)
    assert sharpness(quadratic(curvatures, minimum), x, eps, basis) == pytest.approx(expected, rel=0.01)


def test_rises_with_curvature_and_with_the_box() -> None:
    rng = np.random.default_rng(2)
    minimum = rng.standard_normal(30)
    x, basis = minimum + 1e-3, random_basis(30, rng)
    flat, sharp = quadratic(np.ones(30), minimum), quadratic(np.full(30, 10.0), minimum)
    for a in (None, basis):
        assert 0 < sharpness(flat, x, 5e-4, a) < sharpness(flat, x, 1e-3, a) < sharpness(sharp, x, 1e-3, a)


def test_where_there_is_no_slope_nothing_is_found() -> None:
    assert sharpness(quadratic(np.ones(3), np.zeros(3)), np.zeros(3), 1e-3) == 0


def test_of_a_model_is_that_of_its_loss() -> None:
    # Least squares on the axes: 3 w_1^2 and 1 w_2^2 over 2, a diagonal quadratic.
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, -0.2]]))
    axes = (torch.tensor([[6.0**0.5, 0], [0, 2.0**0.5]]), torch.zeros(2))
    found = model_sharpness(model, lambda batch: (model(batch[0]).squeeze(1) ** 2).mean() / 2, [axes], 1e-3)
    expected = sharpness(quadratic(np.array([3.0, 1.0]), np.zeros(2)), np.array([0.1, -0.2]), 1e-3)
    assert found == pytest.approx(expected, rel=1e-3)


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
