"""A serving curve's arithmetic on a clock that only the model moves."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.training.probes.serving import (
    FEWEST_CALLS,
    REQUEST_BATCHES,
    WARM_UP,
    serve,
    serving_curve,
)

SAMPLES = torch.arange(3.0).unsqueeze(1)


class Server:
    """Answers after 1 ms and a tenth for each request, on its own clock; the first calls are slow."""

    def __init__(self, slow_every: int = 0) -> None:
        self.now_s, self.calls, self.slow_every = 0.0, 0, slow_every

    def __call__(self, x: Tensor) -> None:
        slow = self.calls < WARM_UP or (self.slow_every and self.calls % self.slow_every == 0)
        self.calls += 1
        self.now_s += (1 + 0.1 * len(x)) * (50 if slow else 1) / 1e3

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_throughput_and_latency_of_an_even_server(batch_size: int) -> None:
    server = Server()
    point = serve(server, SAMPLES, batch_size, budget_s=1.0, clock=server.clock)
    call_ms = 1 + 0.1 * batch_size
    assert (point.p50_ms, point.p99_ms) == pytest.approx((call_ms, call_ms))
    assert point.predictions_per_s == pytest.approx(batch_size / call_ms * 1e3)
    timed = server.calls - WARM_UP
    assert timed == pytest.approx(1e3 / call_ms, abs=1)  # the budget, and less than a call more


def test_slow_calls_are_seen_in_p99_and_in_throughput_but_not_in_p50() -> None:
    server = Server(slow_every=50)
    point = serve(server, SAMPLES, 10, budget_s=20.0, clock=server.clock)
    assert point.p50_ms == pytest.approx(2)
    assert point.p99_ms == pytest.approx(100)
    assert point.predictions_per_s == pytest.approx(10 / ((49 * 2 + 100) / 50) * 1e3, rel=0.01)


def test_a_budget_of_nothing_still_times_some_calls() -> None:
    server = Server()
    serve(server, SAMPLES, 1, budget_s=0.0, clock=server.clock)
    assert server.calls == WARM_UP + FEWEST_CALLS


def test_batches_are_filled_with_the_samples_in_turn() -> None:
    seen: list[list[float]] = []
    serve(lambda x: seen.append(x[:, 0].tolist()), SAMPLES, 7, budget_s=0.0)
    assert seen[0] == [0, 1, 2, 0, 1, 2, 0]


def test_curve_of_a_real_model() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout()).train()
    statistics = model[1].running_mean.clone()
    done = list[None]()
    points = serving_curve(model, torch.randn(16, 4), 0.01, lambda: done.append(None))
    assert len(done) == len(points)
    assert tuple(point.batch_size for point in points) == REQUEST_BATCHES
    for point in points:
        assert 0 < point.p50_ms <= point.p99_ms
        assert np.isfinite(point.predictions_per_s)
    assert model.training
    assert torch.equal(model[1].running_mean, statistics)
