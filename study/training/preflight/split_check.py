"""Check whether the gradient of a batch depends on how the batch is split over ranks and micro batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from study.training.jobs.custom import CustomJob
from study.workloads.models.networks import eval_mode
from study.workloads.user_code.loaders import is_stream

MOST_SAMPLES = 32
CHANGE = 1e-3  # below, relative: what float32 does to sums


def gradient_change(job: CustomJob, trainer: pl.Trainer, parts: int) -> float | None:
    """Return |split - whole| / |whole| for the gradient of the first samples of the training set, as one micro batch
    and as `parts` of them (32 at most).

    Measured without dropout and with fixed statistics of batch norm, so that nothing but the weighting of samples
    counts. None where it cannot be measured: a stream, one part, a module that
    optimizes by hand, or a training step that works in its loop alone. Call
    it within a fit, whose sums and counts are of no use afterwards.
    """
    assert job.loader is not None
    loader = job.loader.loader
    parts = min(parts, MOST_SAMPLES)
    if parts < 2 or is_stream(loader) or not job.module.automatic_optimization:
        return None
    size = max(min(job.spec.batch.micro_batch, MOST_SAMPLES // parts), 1)
    with suppress(Exception), eval_mode(job.module), _without_logs(job.module), torch.enable_grad():
        samples = [loader.dataset[i] for i in range(size * parts)]
        split = [loader.collate_fn(copy.deepcopy(samples[i : i + size])) for i in range(0, len(samples), size)]
        whole = _gradient(job, trainer, [loader.collate_fn(samples)])
        change = float((_gradient(job, trainer, split) - whole).norm() / whole.norm())
        return change if change == change else None
    return None


def _gradient(job: CustomJob, trainer: pl.Trainer, batches: Sequence[Any]) -> Tensor:
    """Return the gradient of an update whose micro batches these are, one flat vector (n,)."""
    job.losses.start()
    weights = [weight for weight in job.module.parameters() if weight.requires_grad]
    total = torch.zeros(sum(weight.numel() for weight in weights), device=job.module.device)
    for i, batch in enumerate(batches):
        batch = trainer.strategy.batch_to_device(batch)
        has_index = is_param_in_hook_signature(job.module.training_step, "batch_idx", min_args=2)
        output: Any = job.module.training_step(batch, i) if has_index else job.module.training_step(batch)
        loss = output if isinstance(output, Tensor) else output["loss"]
        parts = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        total += torch.cat([part.flatten() for part in parts])
    return total / job.losses.weight_sum


@contextmanager
def _without_logs(module: pl.LightningModule) -> Iterator[None]:
    """Drop what the module logs, inside."""
    vars(module)["log"] = vars(module)["log_dict"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del vars(module)["log"], vars(module)["log_dict"]
