"""A user's own LightningModule and LightningDataModule as a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, StochasticWeightAveraging, Timer
from torch import Tensor

from study.config.workloads import Custom
from study.errors import ConfigError, did_you_mean
from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.silent_logger import SilentLogger
from study.training.snapshot import Resumed, State
from study.training.user_data.resumable_loader import ResumableLoader
from study.training.user_data.sampling import TrainShare, ValidationShare, check_same_data
from study.training.user_data.stream_sharding import rank_batches, whole_batches
from study.workloads.user_code.build import build_data, build_module
from study.workloads.user_code.loaders import KEY, check_batch_size, is_stream, samples_of, single_loader

VAL_LOSS = "val_loss"  # looked for where no name is given
SAME = 1e-6  # between ranks' sums of weights, relative
TOLERANCE = 1e-5  # between ranks' copies of one figure, relative: they may have summed in different orders


class CustomJob:
    """Validation figures are those the module logs."""

    batches_on_device = False
    most_val_batches: int | None = None  # of each validation loader; None: all

    def __init__(self, config: Custom, spec: TrialSpec, topology: RankTopology, resumed: Resumed | None) -> None:
        self.config, self.spec, self.topology, self.resumed = config, spec, topology, resumed
        self.batches_an_epoch = spec.updates_per_epoch * spec.batch.accumulation
        self.loader: ResumableLoader | None = None
        self.notes: list[str] = []  # what a user should know of how the module is run
        self.module: pl.LightningModule = build_module(config)
        self.data: pl.LightningDataModule = build_data(
            config, spec.batch.micro_batch * (topology.world_size if config.data_batch == "global" else 1)
        )
        self.logged: set[str] = set()  # the figures that an earlier validation has logged
        self._train_share: TrainShare | None = None
        self._validation_shares: list[ValidationShare] = []
        self._collectives = 0  # that the module called in this validation
        self._start_sums()
        self._wrap_training_step()
        for hook in ("validation_step", "on_validation_batch_end", "on_validation_epoch_end"):
            self._count_collectives(hook)
        self._leave_out_callbacks()

    def _start_sums(self) -> None:
        self.loss_sum: Any = 0.0  # of losses times their weights, since the last report
        self.weight_sum: Any = 0.0
        self.skipped = 0
        self.update_weight: Any = 0.0  # of the micro batches since the last update

    # The loaders.

    def wrap_loader(self, loader: Any) -> Any:
        """Give this rank its share of a loader: the training loader comes first, the validation loaders follow."""
        return self._validation_loader(loader) if self.loader is not None else self._training_loader(loader)

    def _validation_loader(self, loader: Any) -> Any:
        """A stream is validated whole on every rank."""
        if not is_stream(loader):
            check_same_data(loader, "validation")
            share = ValidationShare(loader, self.topology, self.spec.seed, self.most_val_batches)
            self._validation_shares.append(share)
        return loader

    def _training_loader(self, loader: Any) -> ResumableLoader:
        done = self.spec.micro_batches_at(self.resumed.updates) if self.resumed is not None else 0
        # At the end of an epoch, Lightning first wants to see that nothing is left of it.
        skip = (done - 1) % self.batches_an_epoch + 1 if done else 0
        declared = check_batch_size(loader, self.spec.batch.micro_batch, self.topology.world_size)
        if not is_stream(loader):
            check_same_data(loader, "training")
            if (found := samples_of(loader)) != self.config.train_samples:
                raise ConfigError(
                    f"is {self.config.train_samples}, but the data module has {found}", "workload.train_samples"
                )
            self._train_share = TrainShare(
                loader, self.topology, self.spec.seed, self.spec.batch.micro_batch, self.batches_an_epoch
            )
            self._train_share.epoch = (done - skip) // self.batches_an_epoch
        self.loader = ResumableLoader(loader, self.batches_an_epoch, lambda loader: self._deal(loader, declared))
        if self.resumed is not None:
            self.loader.go_on(skip, self.resumed.rank["data"], self.resumed.rank["generators"])
        return self.loader

    def _deal(self, loader: Any, declared: bool) -> Iterator[Any]:
        """This rank's micro batches of an epoch. Raises ConfigError for other sizes, and where they end too early."""
        asked, stream = self.spec.batch.micro_batch, is_stream(loader)
        batches = iter(loader)
        if stream or not declared:
            batches = whole_batches(batches, asked)
        if stream and self.topology.world_size > 1:
            batches = rank_batches(batches, self.topology)
        dealt = 0
        for batch in batches:
            dealt += 1
            if dealt == self.batches_an_epoch and self._train_share is not None:
                self._train_share.epoch += 1
            yield batch
        samples = dealt * asked * self.topology.world_size
        raise ConfigError(
            f"is {self.config.train_samples}, but the training data end after {samples} samples in whole batches",
            "workload.train_samples",
        )

    def data_state(self) -> State:
        """How the epoch began."""
        assert self.loader is not None
        return self.loader.began

    def start_epoch(self, epoch: int) -> None:
        """Lightning tells its samplers."""
        single_loader(self.module.trainer.train_dataloader)

    # What the Trainer is.

    def trainer_arguments(self) -> dict[str, Any]:
        """A last batch that is not whole is left out. The length is the one that a plain Trainer would be given."""
        per_epoch, total = self.spec.updates_per_epoch, self.spec.total_updates
        return {
            "use_distributed_sampler": False,
            "limit_train_batches": self.batches_an_epoch,
            "max_epochs": -(-total // per_epoch),
            "logger": SilentLogger(),
        }

    def fit_arguments(self) -> dict[str, Any]:
        """The data module."""
        return {"datamodule": self.data}

    def ddp_arguments(self) -> dict[str, Any]:
        """As a plain Trainer's: rank 0's buffers are everyone's."""
        return {"broadcast_buffers": True, "find_unused_parameters": self.config.find_unused_parameters}

    def _leave_out_callbacks(self) -> None:
        """Leave out those of the module's callbacks that end a trial or write checkpoints, with a note."""
        theirs = self.module.configure_callbacks

        def configure_callbacks() -> list[Callback]:
            made = theirs()
            callbacks = [made] if isinstance(made, Callback) else list(made)
            for callback in callbacks:
                name = type(callback).__name__
                if isinstance(callback, EarlyStopping | Timer):
                    self.notes.append(f"{name} of the module is left out: a study decides when a trial ends")
                elif isinstance(callback, Checkpoint):
                    self.notes.append(f"{name} of the module is left out: a study keeps checkpoints of its own")
                elif isinstance(callback, StochasticWeightAveraging):
                    self.notes.append(
                        f"{name} averages weights after the last validation: figures are of weights not averaged"
                    )
            return [one for one in callbacks if not isinstance(one, EarlyStopping | Timer | Checkpoint)]

        self.module.configure_callbacks = configure_callbacks  # type: ignore[method-assign]

    # Training.

    def _wrap_training_step(self) -> None:
        """See every loss as the module returned it: Lightning passes on its quotient by the accumulation."""
        theirs = self.module.training_step

        @wraps(theirs)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            output = theirs(*args, **kwargs)
            if output is None:
                self.skipped += 1
                # DDP's other ranks wait for gradients; alone, Lightning skips the batch.
                return self._no_gradient() if self.topology.world_size > 1 else None
            loss = output.get("loss") if isinstance(output, Mapping) else output
            if not isinstance(loss, Tensor):
                raise ConfigError("its training_step returns no loss", "workload.module")
            weight = self._weight_of(output)
            if self.config.loss_weight is not None and not weight:  # a mean over nothing is nan, and counts nothing
                return self._no_gradient()
            self.loss_sum = self.loss_sum + loss.detach().double() * weight
            self.weight_sum = self.weight_sum + weight
            if not isinstance(output, Mapping) or self.config.loss_weight is None:
                return output
            self.update_weight = self.update_weight + weight
            return {**output, "loss": loss * weight}

        self.module.training_step = training_step  # type: ignore[method-assign]

    def _no_gradient(self) -> Tensor:
        """A loss that is zero whatever the weights are."""
        return sum((0.0 * weight.sum() for weight in self.module.parameters() if weight.requires_grad), torch.zeros(()))

    def _weight_of(self, output: Any) -> Any:
        """What the loss counts: 1, or as many as `workload.loss_weight` says."""
        key = self.config.loss_weight
        if key is None:
            return 1.0
        weight = output.get(key) if isinstance(output, Mapping) else None
        if weight is None:
            raise ConfigError(f"its training_step does not return a dict with {key}", "workload.loss_weight")
        weight = weight.detach() if isinstance(weight, Tensor) else torch.tensor(float(weight))
        if weight.numel() != 1 or not weight.isfinite().all() or weight < 0:
            raise ConfigError(f"{key} must be one number of 0 or more", "workload.loss_weight")
        return weight.to(self.module.device, torch.float32).reshape(())

    def before_step(self) -> None:
        """Turn the gradients of weighted losses into that of the weighted mean over the global batch.

        Lightning divides each loss by the accumulation, and DDP the sum by the ranks. With weights w and losses l, the
        gradient of sum(w l) / sum(w) remains.
        """
        if self.config.loss_weight is None:
            return
        total = torch.as_tensor(self.update_weight, dtype=torch.float32, device=self.module.device).clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        factor = (
            self.spec.batch.accumulation * self.topology.world_size / total.clamp(min=torch.finfo(total.dtype).tiny)
        )
        for weight in self.module.parameters():
            if weight.grad is not None:
                weight.grad.mul_(factor.to(weight.grad.dtype))
        self.update_weight = 0.0

    # Validation.

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Forget the figures of the validation before: Lightning would give them where none are logged."""
        for name in (self.config.val_accuracy, self.config.val_loss or VAL_LOSS):
            trainer.callback_metrics.pop(name, None)
        self._collectives = 0

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """What a module logs at the end with `sync_dist` is a mean over the ranks: have it weighted by their samples,
        as Lightning weights what is logged batch by batch.
        """
        if self.topology.world_size > 1 and (samples := self.validated):
            trainer.fit_loop.epoch_loop.val_loop._results.batch_size = samples

    def gathers(self, tensor: Tensor) -> None:
        """A mean over ranks that have unequal numbers of samples is no mean over the samples."""
        uneven = [share.total for share in self._validation_shares if share.total % self.topology.world_size]
        figures = 1, sum(len(share) for share in self._validation_shares)  # one of this rank, or one of each batch
        if tensor.numel() in figures and tensor.is_floating_point() and not self.module.training and uneven:
            note = (
                f"it gathers figures of {self.topology.world_size} ranks, which share {uneven[0]} validation "
                "samples unequally: a plain mean of them is not the figure of the whole set; gather counts, or log "
                "with sync_dist=True"
            )
            self.notes += [note] if note not in self.notes else []

    @property
    def validated(self) -> int:
        """Samples of map-style sets that this rank was dealt in the validation under way."""
        return sum(share.samples for share in self._validation_shares)

    def _count_collectives(self, hook: str) -> None:
        """Tell apart a figure that rank 0 logs of all ranks' data from one of its own part."""
        theirs = getattr(self.module, hook)

        @wraps(theirs)
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = _collectives()
            try:
                return theirs(*args, **kwargs)
            finally:
                self._collectives += _collectives() - before

        setattr(self.module, hook, counted)

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Training loss averaged over ranks; the rest as logged.

        From weights that are not finite no figure will be, which a module that logs no validation loss would not show.
        Raises ConfigError where nothing was validated on, where a figure was not logged in this validation, and where
        the ranks have different figures.
        """
        if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready:
            raise ConfigError("its validation set is empty", KEY)
        size = sum(
            (weight.detach().abs().sum(dtype=torch.float64) for weight in self.module.parameters()), torch.zeros(())
        )
        whole = bool(size.isfinite())
        self._check_monitors(trainer)
        names = self.config.val_accuracy, self.config.val_loss or VAL_LOSS
        own = [self.loss_sum if whole else math.nan, self.weight_sum, self.skipped, size]
        for name in names:
            logged = trainer.callback_metrics.get(name)
            own += [0.0, 0.0] if logged is None else [1.0, logged]
        rows = _gathered(own, self.module.device)
        self._start_sums()
        if not torch.allclose(rows[:, 3], rows[:1, 3], rtol=SAME, equal_nan=True):
            raise ConfigError(
                "its weights differ between the ranks: DDP averages the gradients of what requires one when training "
                "begins; leave frozen what was frozen then, set workload.find_unused_parameters if something is frozen "
                "later, and change no weights on one rank alone",
                "workload.module",
            )
        logs_loss = self.config.val_loss is not None or names[1] in self.logged or bool(rows[:, 6].any())
        accuracy = self._figure(trainer, "val_accuracy", names[0], rows[:, 4:6])
        if math.isfinite(accuracy) and not -TOLERANCE <= accuracy <= 1 + TOLERANCE:
            raise ConfigError(
                f"{names[0]} is {accuracy:.4g}, and an accuracy is a share from 0 to 1"
                + ("; log it divided by 100" if 1 < accuracy <= 100 else ""),
                "workload.val_accuracy",
            )
        weight = float(rows[:, 1].sum())
        if weight == 0:
            raise ConfigError("its training_step returns no loss", "workload.module")
        return Metrics(
            train_loss=float(rows[:, 0].sum()) / weight,
            train_accuracy=None,
            val_loss=self._figure(trainer, "val_loss", names[1], rows[:, 6:8]) if logs_loss else None,
            val_accuracy=accuracy,
            skipped_batches=int(rows[:, 2].sum()),
        )

    def _figure(self, trainer: pl.Trainer, key: str, name: str, ranks: Tensor) -> float:
        """A logged figure, from (logged or not, value) of each rank, (world size, 2). Raises ConfigError.

        What rank 0 alone logs, it has gathered; what all log must be the same everywhere.
        """
        logged, values = ranks[:, 0].bool(), ranks[:, 1]
        if not logged[0]:
            known = trainer.callback_metrics
            says = f"the module does not log {name}; it logs {', '.join(sorted(known)) or 'nothing'}"
            says += did_you_mean(name, known)
            if bool(logged.any()):
                says = f"{name} is logged on some ranks, and not on rank 0"
            elif name in self.logged:
                says = f"the module logged {name} in the validation before, and not in this one; log it in every one"
            raise ConfigError(says, f"workload.{key}")
        self.logged.add(name)
        first = float(values[0])
        if bool(logged.all()):
            alike = torch.isclose(values, values[:1], rtol=TOLERANCE, atol=1e-12, equal_nan=True)
            if not bool(alike.all()):
                low, *_, high = sorted(values.tolist(), key=lambda value: (math.isnan(value), value))
                raise ConfigError(
                    f"{name} differs between the ranks ({low:.4g} to {high:.4g}): each "
                    "logged the figure of its own part of the data; log it with sync_dist=True, or log a torchmetrics "
                    "object itself",
                    f"workload.{key}",
                )
        elif bool(logged[1:].any()):
            raise ConfigError(f"{name} is logged on some ranks and not on others", f"workload.{key}")
        elif not self._collectives:
            raise ConfigError(
                f"{name} is logged on rank 0 alone, and nothing was gathered from the other ranks: it is the figure "
                "of rank 0's part of the data; log it on all ranks with sync_dist=True, or log a torchmetrics object "
                "itself",
                f"workload.{key}",
            )
        return first

    def _check_monitors(self, trainer: pl.Trainer) -> None:
        """A paused trial keeps the figures of its last validation, and none of its training epoch."""
        for scheduler in trainer.lr_scheduler_configs:
            monitor = scheduler.monitor
            if scheduler.reduce_on_plateau and all(result.meta.name != monitor for result in _results(trainer)):
                name = type(scheduler.scheduler).__name__
                raise ConfigError(
                    f"its {name} follows {monitor}, which is not logged in its validation", "workload.module"
                )

    def test_accuracy(self, done: Callable[[], None]) -> None:
        """A user's test step is theirs to run."""

    def probe_target(self) -> None:
        """A training step may log, keep state or need its trainer: it is no function of a batch."""


def _gathered(own: list[Any], device: torch.device) -> Tensor:
    """The numbers of every rank, (world size, n), float64, in one collective. Every rank must call it."""
    row = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device).reshape(()) for value in own])
    if not dist.is_initialized():
        return row[None].cpu()
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows).cpu()


def _collectives() -> int:
    """Collectives that this rank has called; torch has no public way to ask."""
    group = dist.group.WORLD
    return 0 if group is None else int(group._get_sequence_number_for_group())  # type: ignore[attr-defined]


def _results(trainer: pl.Trainer) -> list[Any]:
    """How each figure of this validation was logged; Lightning has no public way to ask."""
    return list(trainer.fit_loop.epoch_loop.val_loop._results.values())
