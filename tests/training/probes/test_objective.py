"""A loss as a function of a vector, and nothing left behind."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.training.probes.noise import gradient_norms
from study.training.probes.objective import Objective, probing
from study.training.probes.sharpness import model_curvature, model_sharpness
from study.workloads.data.batching import Batch


def least_squares(model: nn.Module):
    return lambda batch: ((model(batch[0]).squeeze(1) - batch[1]) ** 2).mean() / 2


def test_value_gradient_and_hessian_of_least_squares() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    batches = list(zip(x.split(12), y.split(12), strict=True))  # 12, 12 and 6: they do not weigh the same
    w, v = np.linspace(-1, 1, 5), np.linspace(2, 1, 5)
    gram, moment = (x.T @ x / 30).numpy(), (x.T @ y / 30).numpy()
    with probing(model):
        objective = Objective(model, least_squares(model), batches)
        value, gradient = objective.value_and_gradient(w)
        product = objective.hessian_product(v)
    assert value == pytest.approx(w @ gram @ w / 2 - w @ moment + (y @ y).item() / 60)
    np.testing.assert_allclose(gradient, gram @ w - moment)
    np.testing.assert_allclose(product, gram @ v)


def test_batch_norm_and_dropout_are_those_of_evaluation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
    batch = (torch.randn(10, 6), torch.randn(10))
    model(batch[0])  # gives the statistics something to differ from this batch's own
    with probing(model):
        objective = Objective(model, least_squares(model), [batch])
        found, _ = objective.value_and_gradient(objective.point())
    assert model.training
    assert found == pytest.approx(least_squares(model.eval())(batch).item())


def everything(model: nn.Module) -> list[Tensor]:
    """All that a probe could change."""
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return [*(tensor.detach().clone() for tensor in tensors), torch.get_rng_state()]


def sharpen(model: nn.Module, loss, batches: list[Batch]) -> None:
    for rng in (None, np.random.default_rng(0)):
        assert model_sharpness(model, loss, batches, 1e-3, rng) > 0


def bend(model: nn.Module, loss, batches: list[Batch]) -> None:
    assert np.isfinite(model_curvature(model, loss, batches, np.random.default_rng(0)))


def compare(model: nn.Module, loss, batches: list[Batch]) -> None:
    with probing(model):
        assert gradient_norms(loss, list(model.parameters()), batches).small_sq > 0


@pytest.mark.parametrize("probe", [sharpen, bend, compare])
@pytest.mark.parametrize("inference", [False, True])
def test_probes_leave_no_trace(probe, inference: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 1))
    batches: list[Batch] = [(torch.randn(10, 6), torch.randn(10)) for _ in range(2)]
    loss = least_squares(model)
    loss(batches[0]).backward()  # gradients that wait for their step
    model[0].eval()
    before, twin = everything(model), copy.deepcopy(model)
    # Lightning calls its validation hooks in inference mode.
    with torch.inference_mode(inference):
        probe(model, loss, batches)
    assert all(torch.equal(old, new) for old, new in zip(before, everything(model), strict=True))
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]


def test_a_probe_that_fails_leaves_no_trace_either() -> None:
    model = nn.Linear(3, 1)
    before = everything(model)

    def broken(batch: Batch) -> Tensor:
        if not torch.equal(model.weight, before[0]):
            raise ArithmeticError("away from home")
        return least_squares(model)(batch)

    with pytest.raises(ArithmeticError):
        model_sharpness(model, broken, [(torch.ones(4, 3), torch.zeros(4))], 1e-3)
    assert all(torch.equal(old, new) for old, new in zip(before, everything(model), strict=True))
