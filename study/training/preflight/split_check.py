"""Check whether gradients and validation metrics depend on how samples are spread over ranks and batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from study.training.jobs.custom import CustomJob
from study.workloads.models.networks import eval_mode

MOST_SAMPLES = 32
CHANGE = 1e-3  # below, relative: what float32 does to sums
PARTS = 4  # of the validation samples
Collate = Callable[[list[Any]], Any]


def gradient_change(job: CustomJob, trainer: pl.Trainer, parts: int) -> float | None:
    """Return |split - whole| / |whole| for the gradient of some training samples, as one micro batch and as `parts` of
    them (32 at most).

    Measured without dropout and with fixed statistics of batch norm, so that nothing but the weighting of samples
    counts. None where it cannot be measured: one part, a module that optimizes by hand, a training step that works in
    its loop alone, or a loss with random numbers of its own. Every rank must call it, within a fit, whose sums and
    counts are of no use afterwards.
    """
    assert job.loader is not None
    parts = min(parts, MOST_SAMPLES)
    if parts < 2 or not job.module.automatic_optimization:
        return None
    size = max(min(job.spec.batch.micro_batch, MOST_SAMPLES // parts), 1)
    with suppress(Exception), eval_mode(job.module), _logging_to(job.module, job.losses.note_logged):
        samples, collate = _some(job.loader.loader, size * parts)
        split = [samples[i : i + size] for i in range(0, len(samples), size)]
        with torch.enable_grad():
            first, again, whole = (_gradient(job, trainer, collate, batches) for batches in (split, split, [samples]))
        if torch.allclose(first, again):
            change = float((first - whole).norm() / whole.norm())
            return change if math.isfinite(change) else None
    return None


def metric_change(job: CustomJob, trainer: pl.Trainer, name: str) -> tuple[float, float] | None:
    """Return a validation metric of some samples in four batches, and in one batch, where they differ. One of the four
    is smaller if the trial's own batches differ in size.

    Metrics are added up as Lightning does: numbers that `validation_step` logs are weighted by the `batch_size` that
    they are logged with, or that Lightning finds in the batch. Torchmetrics objects add up by themselves, and are not
    measured. None where the two are equal, or cannot be measured. Every rank must call it, as `gradient_change`.
    """
    if len(loaders := job.validation_loaders) != 1:
        return None
    with suppress(Exception), eval_mode(job.module), torch.no_grad():
        samples, collate = _some(loaders[0], min(MOST_SAMPLES, (loaders[0].batch_size or MOST_SAMPLES) * PARTS))
        step = -(-2 * len(samples) // (2 * PARTS - 1)) if job.validates_unevenly else max(len(samples) // PARTS, 1)
        samples = samples[: step * PARTS]
        split = [samples[i : i + step] for i in range(0, len(samples), step)]
        first, again, whole = (_metric(job, trainer, collate, batches, name) for batches in (split, split, [samples]))
        if math.isclose(first, again, rel_tol=1e-6) and not math.isclose(first, whole, rel_tol=CHANGE):
            return (first, whole) if math.isfinite(whole) else None
    return None


def _some(loader: Any, count: int) -> tuple[list[Any], Collate]:
    """Return samples from all over the set (of a stream: its first ones), and what makes a batch of them."""
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise TypeError("batches are not made of samples")
    data: Any = loader.dataset
    if isinstance(data, IterableDataset):
        samples = list(islice(data, count))
    else:  # a set may be sorted by length
        count = min(count, len(data))
        samples = [data[i * len(data) // count] for i in range(count)]
    return samples, lambda some: loader.collate_fn(copy.deepcopy(some))


def _gradient(job: CustomJob, trainer: pl.Trainer, collate: Collate, batches: Sequence[list[Any]]) -> Tensor:
    """Return the gradient of an update whose micro batches these are, one flat vector (n,)."""
    job.losses.start()
    weights = [weight for weight in job.module.parameters() if weight.requires_grad]
    total = torch.zeros(sum(weight.numel() for weight in weights), device=job.module.device)
    for i, samples in enumerate(batches):
        output: Any = _step(job.module.training_step, trainer, collate(samples), i)
        loss = output if isinstance(output, Tensor) else output["loss"]
        parts = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        total += torch.cat([part.flatten() for part in parts])
    return total / job.losses.weight_sum


def _metric(job: CustomJob, trainer: pl.Trainer, collate: Collate, batches: Sequence[list[Any]], name: str) -> float:
    """Return a metric of a validation whose batches these are, NaN if it is not logged as a number."""
    total = weight = 0.0
    batch: Any = None

    def log(
        key: str, value: Any, *args: Any, batch_size: int | None = None, reduce_fx: Any = "mean", **kwargs: Any
    ) -> None:
        nonlocal total, weight
        if key == name.removesuffix("_epoch"):
            if reduce_fx not in ("mean", torch.mean):
                raise TypeError("not a mean")
            size = batch_size or (1 if batch is None else extract_batch_size(batch))
            total, weight = total + size * float(value), weight + size

    with _logging_to(job.module, log):
        job.module.on_validation_start()
        job.module.on_validation_epoch_start()
        for i, samples in enumerate(batches):
            batch = collate(samples)
            _step(job.module.validation_step, trainer, batch, i)
        batch = None
        job.module.on_validation_epoch_end()
    return total / weight if weight else math.nan


def _step(step: Any, trainer: pl.Trainer, batch: Any, index: int) -> Any:
    """Call a training or validation step as Lightning does."""
    batch = trainer.strategy.batch_to_device(batch)
    has_index = is_param_in_hook_signature(step, "batch_idx", min_args=2)
    return step(batch, index) if has_index else step(batch)


@contextmanager
def _logging_to(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """Have `log` called in place of the module's own inside."""

    def log_dict(values: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in values.items():
            log(name, value, *args, **kwargs)

    own: dict[str, Any] = {name: vars(module)[name] for name in ("log", "log_dict") if name in vars(module)}
    vars(module).update(log=log, log_dict=log_dict)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
        vars(module).update(own)
