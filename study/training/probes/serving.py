"""Throughput and latency of predictions, by the size of a request batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from study.measurement import ServingPoint
from study.workloads.models.networks import eval_mode

REQUEST_BATCHES = tuple(2**power for power in range(11))  # 1 to 1024
WARM_UP = 3
FEWEST_CALLS = 20


def serve(
    predict: Callable[[Tensor], object],
    samples: Tensor,
    batch_size: int,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> ServingPoint:
    """Time `predict` on batches of `samples` (n, ...), repeated where n is too few.

    For `budget_s` seconds, at least 20 calls; `predict` must return only when its answer is complete.
    """
    batch = samples[torch.arange(batch_size) % len(samples)]
    for _ in range(WARM_UP):
        predict(batch)
    marks = [clock()]
    while marks[-1] - marks[0] < budget_s or len(marks) <= FEWEST_CALLS:
        predict(batch)
        marks.append(clock())
    calls = len(marks) - 1
    p50_ms, p99_ms = np.percentile(np.diff(marks), [50, 99]) * 1e3
    return ServingPoint(batch_size, calls * batch_size / (marks[-1] - marks[0]), float(p50_ms), float(p99_ms))


@torch.inference_mode()
def serving_curve(
    model: nn.Module, samples: Tensor, budget_s: float, done: Callable[[], None]
) -> tuple[ServingPoint, ...]:
    """Measure request batches of 1, 2, 4, ... 1024 samples, `budget_s` seconds each, from the host's memory and back to
    it; call `done` after each size.
    """
    device = next(model.parameters()).device
    points = []
    with eval_mode(model):
        for n in REQUEST_BATCHES:
            points.append(serve(lambda x: model(x.to(device)).cpu(), samples, n, budget_s))
            done()
    return tuple(points)
