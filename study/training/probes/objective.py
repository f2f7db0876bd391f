"""A model's loss over fixed batches, as a function of one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from study.workloads.data.batching import Batch
from study.workloads.models.networks import eval_mode

Vector = NDArray[np.float64]
Loss = Callable[[Batch], Tensor]  # mean loss of a batch, a scalar that hangs on the model's parameters


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Measure inside without a trace: parameters, buffers, modes and random numbers are restored afterwards.

    Batch norm uses its running statistics and dropout is off. Works inside Lightning's validation, where autograd is
    off.
    """
    saved = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    devices = {tensor.device for tensor, _ in saved if tensor.is_cuda}
    with (
        torch.random.fork_rng(devices=sorted(device.index for device in devices)),
        torch.inference_mode(False),
        torch.enable_grad(),
        eval_mode(model),
    ):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in saved:
                    tensor.copy_(value)


def flat_gradient(loss: Tensor, parameters: Sequence[nn.Parameter], create_graph: bool = False) -> Tensor:
    """Return the gradient of a scalar, (n,). The parameters' `.grad` stays as it is, and DDP's hooks do not fire."""
    gradients = torch.autograd.grad(loss, parameters, create_graph=create_graph, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


class Objective:
    """Mean loss over all samples of `batches`, as a function of the model's n trainable numbers.

    Use it inside `probing(model)`: `value_and_gradient` leaves the model at the last point.
    """

    def __init__(self, model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.loss, self.batches = loss, batches
        self.samples = sum(len(y) for _, y in batches)

    def point(self) -> Vector:
        """Return the model's current point, (n,)."""
        return _to_numpy(torch.cat([parameter.detach().flatten() for parameter in self.parameters]))

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """Return the loss at `x` (n,) and its gradient (n,)."""
        self._move_to(x)
        value, gradient = 0.0, np.zeros_like(x)
        for batch in self.batches:
            share = len(batch[1]) / self.samples
            loss = self.loss(batch)
            value += share * loss.item()
            gradient += share * _to_numpy(flat_gradient(loss, self.parameters))
        return value, gradient

    def hessian_product(self, v: Vector) -> Vector:
        """Return the Hessian at the current point times `v` (n,), by differentiating twice (Pearlmutter 1994)."""
        first = self.parameters[0]
        direction = torch.from_numpy(v).to(first.device, first.dtype)
        product = np.zeros_like(v)
        for batch in self.batches:
            with sdpa_kernel(SDPBackend.MATH):  # torch's faster kernels of attention cannot be differentiated twice
                slope = flat_gradient(self.loss(batch), self.parameters, create_graph=True) @ direction
            product += len(batch[1]) / self.samples * _to_numpy(flat_gradient(slope, self.parameters))
        return product

    @torch.no_grad()
    def _move_to(self, x: Vector) -> None:
        flat, at = torch.from_numpy(x), 0
        for parameter in self.parameters:
            parameter.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()


def _to_numpy(flat: Tensor) -> Vector:
    return flat.detach().double().cpu().numpy()
