"""One step of each optimizer against the formula of its paper."""

import math

import pytest
import torch
from torch import nn

from study.config.schema import Optimizer, Schedule
from study.training.optimizers import build_optimizer, lr_factor

LR, DECAY = 0.1, 0.01


def one_step(config: Optimizer, steps: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(weights before, gradient, weights after) for a fixed gradient on a 3 x 2 matrix."""
    w0 = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])
    g = torch.tensor([[0.3, 0.1], [-0.2, 0.4], [0.5, -0.6]])
    parameter = nn.Parameter(w0.clone())
    optimizer = build_optimizer(config, [parameter], LR)
    for _ in range(steps):
        parameter.grad = g.clone()
        optimizer.step()
    return w0, g, parameter.detach()


def test_sgd_with_nesterov_momentum() -> None:
    w, g, after = one_step(Optimizer(kind="sgd", momentum=0.9, weight_decay=DECAY), steps=2)
    velocity = torch.zeros_like(w)
    for _ in range(2):
        d = g + DECAY * w
        velocity = 0.9 * velocity + d
        w = w - LR * (d + 0.9 * velocity)
    torch.testing.assert_close(after, w)


def test_plain_sgd() -> None:
    w, g, after = one_step(Optimizer(kind="sgd", momentum=0))
    torch.testing.assert_close(after, w - LR * g)


def test_adamw_first_step_is_the_sign_of_the_gradient() -> None:
    w, g, after = one_step(Optimizer(kind="adamw", weight_decay=DECAY))
    torch.testing.assert_close(after, w * (1 - LR * DECAY) - LR * g.sign(), atol=1e-5, rtol=0)


def test_adamw_with_betas_and_eps_of_ones_own() -> None:
    # Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2; an eps that is not small shows where it is added.
    (beta1, beta2), eps = (0.8, 0.6), 0.1
    w, g, after = one_step(Optimizer(kind="adamw", weight_decay=DECAY, betas=(beta1, beta2), eps=eps), steps=2)
    m = v = torch.zeros_like(w)
    for step in (1, 2):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        direction = (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
        w = w - LR * (direction + DECAY * w)
    torch.testing.assert_close(after, w)


def test_lamb_with_betas_and_eps_of_ones_own() -> None:
    (beta1, beta2), eps = (0.8, 0.6), 0.1
    w, g, after = one_step(Optimizer(kind="lamb", betas=(beta1, beta2), eps=eps))
    direction = (1 - beta1) * g / ((1 - beta2) ** 0.5 * g.abs() + eps)
    ratio = w.norm() / (direction.norm() + eps)  # the library adds it to this divisor too
    torch.testing.assert_close(after, w - LR * ratio * direction)


def test_left_out_they_are_the_ones_of_the_libraries() -> None:
    given = {"adamw": Optimizer(kind="adamw", betas=(0.9, 0.999), eps=1e-8)}
    given["lamb"] = Optimizer(kind="lamb", betas=(0.9, 0.999), eps=1e-6)
    for kind, named in given.items():
        plain = Optimizer(kind=kind)  # type: ignore[arg-type]
        assert torch.equal(one_step(plain, steps=3)[2], one_step(named, steps=3)[2])


def test_lars_scales_by_the_ratio_of_norms() -> None:
    # You et al. 2017, arXiv:1708.03888: local rate = eta |w| / (|g| + decay |w|), eta = 0.001.
    w, g, after = one_step(Optimizer(kind="lars", momentum=0, weight_decay=DECAY))
    local = 0.001 * w.norm() / (g.norm() + DECAY * w.norm())
    torch.testing.assert_close(after, w - LR * local * (g + DECAY * w))


def test_lamb_scales_the_adam_step_by_the_ratio_of_norms() -> None:
    # You et al. 2020, arXiv:1904.00962, algorithm 2 without bias correction. First step: m / sqrt(v) is the
    # gradient's sign times (1 - 0.9) / sqrt(1 - 0.999).
    w, g, after = one_step(Optimizer(kind="lamb", weight_decay=DECAY))
    direction = 10**0.5 * g.sign() + DECAY * w
    torch.testing.assert_close(after, w - LR * w.norm() / direction.norm() * direction, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars", "lamb"])
def test_each_learns(kind: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 5), torch.randint(0, 3, (64,))
    model = nn.Linear(5, 3, bias=False)  # LARS leaves vectors to plain SGD at the full rate
    optimizer = build_optimizer(Optimizer(kind=kind), model.parameters(), {"lars": 20.0}.get(kind, 0.05))
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    schedule = Schedule(kind="constant", warmup_fraction=0.1)
    assert [lr_factor(schedule, u, 100) for u in range(10)] == pytest.approx([(u + 1) / 10 for u in range(10)])
    assert lr_factor(schedule, 50, 100) == 1.0


def test_cosine_is_half_way_down_in_the_middle_and_ends_near_zero() -> None:
    schedule = Schedule(kind="cosine", warmup_fraction=0)
    assert lr_factor(schedule, 0, 100) == 1.0
    assert lr_factor(schedule, 50, 100) == pytest.approx(0.5)
    assert lr_factor(schedule, 25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert lr_factor(schedule, 99, 100) < 0.001


def test_steps_multiply_at_their_fractions() -> None:
    schedule = Schedule(kind="step", warmup_fraction=0, step_fractions=(0.5, 0.75), step_factor=0.1)
    got = [lr_factor(schedule, u, 100) for u in (0, 49, 50, 74, 75, 99)]
    assert got == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_trials_have_finite_factors(kind: str, total: int) -> None:
    schedule = Schedule(kind=kind, warmup_fraction=0.5)
    assert all(0 <= lr_factor(schedule, u, total) <= 1 for u in range(total + 1))
