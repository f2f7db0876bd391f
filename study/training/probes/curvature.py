"""The largest eigenvalue of the loss's Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from study.training.probes.objective import Loss, Objective, Vector, probing
from study.workloads.data.batching import Batch

# Of the residual; the eigenvalue's own error goes with its square. Finer than this, float32 products are noise.
TOLERANCE = 1e-4


def top_eigenvalue(product: Callable[[Vector], Vector], n: int, rng: np.random.Generator) -> float:
    """Largest eigenvalue of the symmetric (n, n) matrix whose product with a vector is given; n > 1.

    By ARPACK's restarted Lanczos. Raises scipy.sparse.linalg.ArpackNoConvergence.
    """
    operator = LinearOperator((n, n), matvec=lambda v: product(v.ravel()), dtype=np.float64)
    return float(
        eigsh(operator, k=1, which="LA", v0=rng.standard_normal(n), tol=TOLERANCE, return_eigenvectors=False)[0]
    )


def model_curvature(model: nn.Module, loss: Loss, batches: Sequence[Batch], rng: np.random.Generator) -> float:
    """Largest eigenvalue of the Hessian of the mean loss over `batches`, where the model stands.

    On this rank alone; the model is left as it was.
    """
    with probing(model):
        objective = Objective(model, loss, batches)
        return top_eigenvalue(objective.hessian_product, len(objective.point()), rng)
