"""The metrics that a user's module logs in its validation, equal on all ranks or refused."""

from __future__ import annotations

import math
from functools import wraps
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from study.config.objective import Objective
from study.config.workloads import Custom
from study.errors import ConfigError, did_you_mean
from study.measurement import Metrics
from study.training.jobs.training_losses import TrainingLosses
from study.workloads.user_code.loaders import KEY

VAL_ACCURACY, VAL_LOSS = "val_accuracy", "val_loss"  # looked for where no name is given
SAME = 1e-6  # between ranks' sums of weights, relative
TOLERANCE = 1e-5  # between ranks' copies of one metric, relative: they may have summed in different orders


class LoggedMetrics:
    """Reads the metrics of each validation from Lightning, and checks that the ranks agree on them."""

    def __init__(self, config: Custom, module: pl.LightningModule, objective: Objective) -> None:
        self.config, self.module, self.objective = config, module, objective
        # Of each metric, the name under which the module logs it.
        self.logged_as = {"val_accuracy": config.val_accuracy, "val_loss": config.val_loss or VAL_LOSS}
        self.logged_as |= {name: name for name in (objective.metric, *objective.also) if name not in self.logged_as}
        # A name that a user gave, rather than the usual one, is of a metric that is logged.
        named = {"val_accuracy": config.val_accuracy != VAL_ACCURACY, "val_loss": config.val_loss is not None}
        self.required = {objective.metric, *objective.also, *(metric for metric, is_given in named.items() if is_given)}
        self.names: set[str] = set()  # of the metrics that an earlier validation has logged
        self._collectives = 0  # that the module called in this validation
        for hook in ("validation_step", "on_validation_batch_end", "on_validation_epoch_end"):
            self._count_collectives(hook)

    def forget(self, trainer: pl.Trainer) -> None:
        """Forget the metrics of the validation before: Lightning would give them where none are logged."""
        for name in self.logged_as.values():
            trainer.callback_metrics.pop(name, None)
        self._collectives = 0

    def _count_collectives(self, hook: str) -> None:
        """Count the hook's collectives, to distinguish a metric that rank 0 logs of all ranks' data from one of its own
        part.
        """
        original = getattr(self.module, hook)

        @wraps(original)
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = _collectives()
            try:
                return original(*args, **kwargs)
            finally:
                self._collectives += _collectives() - before

        setattr(self.module, hook, counted)

    def read(self, trainer: pl.Trainer, losses: TrainingLosses) -> Metrics:
        """Return the training loss averaged over ranks, and the validation metrics as logged. Every rank must call it.

        The training loss is NaN where the weights are not finite: a module that logs no validation loss would not show
        that. A further metric that is not finite is left out. Raises ConfigError where the validation set is empty, a
        metric was not logged in this validation, or the ranks have different metrics or weights.
        """
        if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready:
            raise ConfigError("its validation set is empty", KEY)
        size = sum(
            (weight.detach().abs().sum(dtype=torch.float64) for weight in self.module.parameters()), torch.zeros(())
        )
        whole = bool(size.isfinite())
        self._check_monitors(trainer)
        own = [losses.loss_sum if whole else math.nan, losses.weight_sum, losses.skipped, size]
        for logged_name in self.logged_as.values():
            logged = trainer.callback_metrics.get(logged_name)
            own += [0.0, 0.0] if logged is None else [1.0, logged]
        rows = _gathered(own, self.module.device)
        losses.start()
        if not torch.allclose(rows[:, 3], rows[:1, 3], rtol=SAME, equal_nan=True):
            raise ConfigError(
                "its weights differ between the ranks: DDP averages the gradients of what requires one when training "
                "begins; leave frozen what was frozen then, set workload.find_unused_parameters if something is frozen "
                "later, and change no weights on one rank alone",
                "workload.module",
            )
        found: dict[str, float] = {}
        for at, (metric, logged_name) in enumerate(self.logged_as.items()):
            ranks = rows[:, 4 + 2 * at : 6 + 2 * at]
            if metric in self.required or logged_name in self.names or bool(ranks[:, 0].any()):
                found[metric] = self._agreed(trainer, metric, ranks)
        self._check_share(found)
        weight = float(rows[:, 1].sum())
        if weight == 0:
            raise ConfigError("its training_step returns no loss", "workload.module")
        return Metrics(
            train_loss=float(rows[:, 0].sum()) / weight,
            train_accuracy=None,
            val_loss=found.pop("val_loss", None),
            val_accuracy=found.pop("val_accuracy", None),
            metrics={
                name: value for name, value in found.items() if name == self.objective.metric or math.isfinite(value)
            },
            skipped_batches=int(rows[:, 2].sum()),
        )

    def _check_share(self, found: dict[str, float]) -> None:
        """Refuse a value that cannot be a share from 0 to 1 where one is shown in percent. Raises ConfigError."""
        shares = {"val_accuracy"} | ({self.objective.metric} if self.objective.show == "percent" else set())
        for metric in shares & found.keys():
            value = found[metric]
            if math.isfinite(value) and not -TOLERANCE <= value <= 1 + TOLERANCE:
                what = "an accuracy" if metric == "val_accuracy" else "what is shown in percent"
                raise ConfigError(
                    f"{self.logged_as[metric]} is {value:.4g}, and {what} is a share from 0 to 1"
                    + ("; log it divided by 100" if 1 < value <= 100 else ""),
                    self._key(metric),
                )

    def _key(self, metric: str) -> str:
        """Return the key of the study file that names a metric."""
        if metric in ("val_accuracy", "val_loss"):
            return f"workload.{metric}"
        return "objective.metric" if metric == self.objective.metric else "objective.also"

    def _agreed(self, trainer: pl.Trainer, metric: str, ranks: Tensor) -> float:
        """Return a logged metric, from (logged or not, value) of each rank, (world size, 2). Raises ConfigError.

        A metric that only rank 0 logs must have been gathered there; one that all ranks log must be equal on all.
        """
        logged, values = ranks[:, 0].bool(), ranks[:, 1]
        name, key = self.logged_as[metric], self._key(metric)
        if not logged[0]:
            known = trainer.callback_metrics
            says = f"the module does not log {name}; it logs {', '.join(sorted(known)) or 'nothing'}"
            says += did_you_mean(name, known)
            if metric == self.objective.metric and name == metric:
                says += "; objective.metric names the metric to judge by"
            if bool(logged.any()):
                says = f"{name} is logged on some ranks, and not on rank 0"
            elif name in self.names:
                says = f"the module logged {name} in the validation before, and not in this one; log it in every one"
            raise ConfigError(says, key)
        self.names.add(name)
        first = float(values[0])
        if bool(logged.all()):
            alike = torch.isclose(values, values[:1], rtol=TOLERANCE, atol=1e-12, equal_nan=True)
            if not bool(alike.all()):
                low, *_, high = sorted(values.tolist(), key=lambda value: (math.isnan(value), value))
                raise ConfigError(
                    f"{name} differs between the ranks ({low:.4g} to {high:.4g}): each "
                    "logged the figure of its own part of the data; log it with sync_dist=True, or log a torchmetrics "
                    "object itself",
                    key,
                )
        elif bool(logged[1:].any()):
            raise ConfigError(f"{name} is logged on some ranks and not on others", key)
        elif not self._collectives:
            raise ConfigError(
                f"{name} is logged on rank 0 alone, and nothing was gathered from the other ranks: it is the figure "
                "of rank 0's part of the data; log it on all ranks with sync_dist=True, or log a torchmetrics object "
                "itself",
                key,
            )
        return first

    def _check_monitors(self, trainer: pl.Trainer) -> None:
        """Refuse a schedule that follows a training metric: a paused trial keeps those of its last validation alone."""
        for scheduler in trainer.lr_scheduler_configs:
            monitor = scheduler.monitor
            if scheduler.reduce_on_plateau and monitor not in _logged(trainer):
                name = type(scheduler.scheduler).__name__
                raise ConfigError(
                    f"its {name} follows {monitor}, which is not logged in its validation", "workload.module"
                )


def _gathered(own: list[Any], device: torch.device) -> Tensor:
    """Return the numbers of every rank, (world size, n), float64, in one collective. Every rank must call it."""
    row = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device).reshape(()) for value in own])
    if not dist.is_initialized():
        return row[None].cpu()
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows).cpu()


def _collectives() -> int:
    """Return how many collectives this rank has called; torch has no public way to ask."""
    group = dist.group.WORLD
    return 0 if group is None else int(group._get_sequence_number_for_group())  # type: ignore[attr-defined]


def _logged(trainer: pl.Trainer) -> set[str]:
    """Return the names of what this validation logged, as callbacks find them; Lightning has no public way to ask."""
    results = trainer.fit_loop.epoch_loop.val_loop._results
    return {name for result in results.values() for name in results._forked_name(result, on_step=False)}
