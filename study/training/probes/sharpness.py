"""How sharp a minimum is: how far the loss rises in a small box around it, and the top eigenvalue of its Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from study.training.probes.objective import Loss, Objective, Vector, probing
from study.workloads.data.batching import Batch

EPSILONS = (1e-3, 5e-4)  # the paper's two sizes of the box
SUBSPACE = 100
ITERATIONS = 10
# Of the residual; the eigenvalue's own error goes with its square. Finer than this, float32 products are noise.
TOLERANCE = 1e-4


def sharpness(
    value_and_gradient: Callable[[Vector], tuple[float, Vector]],
    x: Vector,
    eps: float,
    basis: NDArray[np.float64] | None = None,
) -> float:
    """Return metric 2.1 of Keskar et al. 2017 (arXiv:1609.04836), in percent.

    100 (max f(x + A z) - f(x)) / (1 + f(x)) over |z_i| <= eps (|(A+ x)_i| + 1), where A is the identity, or `basis` (n,
    p) and A+ its pseudo-inverse. `x` is (n,). As in the paper the maximum is what 10 iterations of L-BFGS-B find, so it
    is a lower bound; where the gradient at `x` is exactly 0 they find nothing.
    """
    start = x if basis is None else np.linalg.lstsq(basis, x, rcond=None)[0]
    radius = eps * (np.abs(start) + 1)

    def at(u: Vector) -> tuple[float, Vector]:
        step = radius * u
        value, gradient = value_and_gradient(x + (step if basis is None else basis @ step))
        return value, radius * (gradient if basis is None else basis.T @ gradient)

    here, slope = at(np.zeros_like(start))
    # In units of the box, and of a hundredth of the slope, so that the first step, the gradient itself, reaches the
    # faces of the box. Near a minimum it is tiny, and a loss that curves upwards has no curvature from which L-BFGS-B
    # could learn a longer one.
    scale = np.abs(slope).mean() / 100
    if scale == 0:
        return 0.0
    highest = here

    def descent(u: Vector) -> tuple[float, Vector]:
        nonlocal highest
        value, gradient = at(u)
        highest = max(highest, value)
        return (here - value) / scale, -gradient / scale

    minimize(
        descent,
        np.zeros_like(start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-1.0, 1.0)] * len(start),
        options={"maxiter": ITERATIONS, "ftol": 0.0, "gtol": 0.0},
    )
    return 100 * (highest - here) / (1 + here)


def random_basis(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 100 random directions as columns (n, 100), of standard normal numbers."""
    return rng.standard_normal((n, SUBSPACE))


def model_sharpness(
    model: nn.Module, loss: Loss, batches: Sequence[Batch], eps: float, rng: np.random.Generator | None = None
) -> float:
    """Return the sharpness of the mean loss over `batches`, in the full space, or with `rng` in a random subspace.

    On this rank alone; the model is left as it was. The paper takes the whole training set for `batches`.
    """
    with probing(model):
        objective = Objective(model, loss, batches)
        x = objective.point()
        return sharpness(objective.value_and_gradient, x, eps, None if rng is None else random_basis(len(x), rng))


def top_eigenvalue(product: Callable[[Vector], Vector], n: int, rng: np.random.Generator) -> float:
    """Return the largest eigenvalue of the symmetric (n, n) matrix whose product with a vector is given; n > 1.

    By ARPACK's restarted Lanczos. Raises scipy.sparse.linalg.ArpackNoConvergence.
    """
    operator = LinearOperator((n, n), matvec=lambda v: product(v.ravel()), dtype=np.float64)
    return float(
        eigsh(operator, k=1, which="LA", v0=rng.standard_normal(n), tol=TOLERANCE, return_eigenvectors=False)[0]
    )


def model_curvature(model: nn.Module, loss: Loss, batches: Sequence[Batch], rng: np.random.Generator) -> float:
    """Return the largest eigenvalue of the Hessian of the mean loss over `batches`, at the model's current point.

    On this rank alone; the model is left as it was.
    """
    with probing(model):
        objective = Objective(model, loss, batches)
        return top_eigenvalue(objective.hessian_product, len(objective.point()), rng)
