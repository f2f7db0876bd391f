"""A user's own LightningModule and LightningDataModule as a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from study.config.objective import ACCURACY, Objective, Target
from study.config.workloads import Custom
from study.errors import ConfigError
from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.logged_metrics import LoggedMetrics
from study.training.jobs.own_callbacks import kept_callbacks
from study.training.jobs.training_losses import TrainingLosses
from study.training.snapshot import Resumed, State
from study.training.user_data.resumable_loader import ResumableLoader
from study.training.user_data.sampling import TrainShare, ValidationShare, check_same_data
from study.training.user_data.stream_sharding import rank_batches, whole_batches
from study.workloads.user_code.build import build_callbacks, build_data, build_module, lightning_of
from study.workloads.user_code.lightning_package import derived
from study.workloads.user_code.loaders import check_batch_size, draws_batches, is_stream, samples_of, single_loader
from study.workloads.user_code.silent_logger import SilentLogger


class CustomJob:
    """Trains a user's module on the user's data. Its validation metrics are those that the module logs."""

    batches_on_device = False
    most_val_batches: int | None = None  # of each validation loader; None: all

    def __init__(
        self,
        config: Custom,
        spec: TrialSpec,
        topology: RankTopology,
        resumed: Resumed | None,
        objective: Objective = ACCURACY,
        targets: Sequence[Target] = (),
    ) -> None:
        self.config, self.spec, self.topology, self.resumed = config, spec, topology, resumed
        self.batches_an_epoch = spec.updates_per_epoch * spec.batch.accumulation
        self.loader: ResumableLoader | None = None
        self.notes: list[str] = []
        batch_size = spec.batch.micro_batch * (topology.world_size if config.data_batch == "global" else 1)
        self.lightning = lightning_of(config)
        self.module: pl.LightningModule = build_module(config, batch_size)
        self._check_steps()
        self.data: pl.LightningDataModule | None = build_data(config, batch_size)
        self.losses = TrainingLosses(config, self.module, topology, spec.batch.accumulation)
        self.logged = LoggedMetrics(config, self.module, objective, targets)
        self._train_share: TrainShare | None = None
        self.validation_loaders: list[Any] = []
        self._validation_shares: list[ValidationShare] = []
        self._leave_out_callbacks()

    def _check_steps(self) -> None:
        """Refuse accumulation for a module that optimizes by hand, as Lightning does."""
        parts = self.spec.batch.accumulation
        if not self.module.automatic_optimization and parts > 1:
            raise ConfigError(
                f"optimizes by hand, and a batch is split into {parts} parts for each rank: an update is one training "
                "batch there; leave out hardware.micro_batch and accumulation, or take more ranks",
                "workload.module",
            )

    # The loaders.

    def wrap_loader(self, loader: Any) -> Any:
        """Give this rank its share of a loader: the training loader comes first, the validation loaders follow."""
        return self._validation_loader(loader) if self.loader is not None else self._training_loader(loader)

    def _validation_loader(self, loader: Any) -> Any:
        """Share a map-style validation set out; every rank validates on a whole stream."""
        self.validation_loaders.append(loader)
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
            found = samples_of(loader)
            if found != self.config.train_samples and not draws_batches(loader):  # which may draw a sample more often
                raise ConfigError(
                    f"is {self.config.train_samples}, but the training set has {found}", "workload.train_samples"
                )
            self._train_share = TrainShare(
                loader, self.topology, self.spec.seed, self.spec.batch.micro_batch, self.batches_an_epoch
            )
            self._train_share.epoch = (done - skip) // self.batches_an_epoch
        self.loader = ResumableLoader(loader, self.batches_an_epoch, lambda loader: self._draw(loader, declared))
        if self.resumed is not None:
            self.loader.go_on(skip, self.resumed.rank["data"], self.resumed.rank["generators"])
        return self.loader

    def _draw(self, loader: Any, declared: bool) -> Iterator[Any]:
        """Yield this rank's micro batches of an epoch. Raises ConfigError for other sizes, and where they end too
        early.
        """
        asked, stream = self.spec.batch.micro_batch, is_stream(loader)
        if stream and declared:
            # Past torch, which refuses it once a loader is made. Its samples need not be counted by a batch's tensors.
            object.__setattr__(loader, "drop_last", True)
        batches = iter(loader)
        if stream and not declared:
            batches = whole_batches(batches, asked)
        if stream and self.topology.world_size > 1:
            batches = rank_batches(batches, self.topology)
        drawn = 0
        for batch in batches:
            drawn += 1
            if drawn == self.batches_an_epoch and self._train_share is not None:
                self._train_share.epoch += 1
            yield batch
        samples = drawn * asked * self.topology.world_size
        raise ConfigError(
            f"is {self.config.train_samples}, but the training data end after {samples} samples in whole batches",
            "workload.train_samples",
        )

    def data_state(self) -> State:
        """Return the state of the random generators when the epoch began."""
        assert self.loader is not None
        return self.loader.began

    def start_epoch(self, epoch: int) -> None:
        """Refuse more than one training loader; Lightning passes the epoch to samplers itself."""
        single_loader(self.module.trainer.train_dataloader)

    # The Trainer.

    def trainer_arguments(self) -> dict[str, Any]:
        """Limit an epoch to whole batches, and give the length that a plain Trainer would be given."""
        per_epoch, total = self.spec.updates_per_epoch, self.spec.total_updates
        return {
            "use_distributed_sampler": False,
            "limit_train_batches": self.batches_an_epoch,
            "max_epochs": -(-total // per_epoch),
            "logger": derived(SilentLogger, self.lightning.pytorch.loggers.Logger)(),
        }

    def fit_arguments(self) -> dict[str, Any]:
        """Return what Lightning's fit takes: the user's data module; None where the module has the loaders itself."""
        return {"datamodule": self.data}

    def ddp_arguments(self) -> dict[str, Any]:
        """Broadcast rank 0's buffers, as a plain Trainer does."""
        return {"broadcast_buffers": True, "find_unused_parameters": self.config.find_unused_parameters}

    def callbacks(self) -> list[Any]:
        """Return the callbacks that the study file names."""
        return kept_callbacks(build_callbacks(self.config), "workload.callbacks", self.lightning, self.notes)

    def _leave_out_callbacks(self) -> None:
        """Leave out those of the module's own callbacks that a trial does not call."""
        original = self.module.configure_callbacks
        self.module.configure_callbacks = lambda: kept_callbacks(  # type: ignore[method-assign]
            original(), "the module", self.lightning, self.notes
        )

    # Training and validation.

    def before_step(self) -> None:
        """Turn the gradients of weighted losses into that of their weighted mean."""
        self.losses.scale_gradients()

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Check that the ranks drew alike, and forget the metrics of the validation before."""
        if self._train_share is not None:
            self._train_share.check_alike()
        self.logged.forget(trainer)

    def before_validation_ends(self, trainer: pl.Trainer) -> None:
        """Weight by samples what a module logs at the end with `sync_dist`, a mean over the ranks, as Lightning weights
        what is logged batch by batch.
        """
        if self.topology.world_size > 1 and (samples := self.validated):
            trainer.fit_loop.epoch_loop.val_loop._results.batch_size = samples

    def gathers(self, tensor: Tensor) -> None:
        """Note where a module averages over ranks that have unequal numbers of samples."""
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
    def val_samples(self) -> int | None:
        """The samples of the validation sets; None where a batch sampler or a stream makes the batches."""
        counts = [share.total if share.batch_size is not None else None for share in self._validation_shares]
        whole = len(counts) == len(self.validation_loaders) and None not in counts
        return sum(count or 0 for count in counts) if whole else None

    @property
    def validates_unevenly(self) -> bool:
        """Whether the batches of a validation differ in size, on one rank or between ranks."""
        ranks = self.topology.world_size
        return any(
            not share.batch_size or share.total % (share.batch_size * ranks) for share in self._validation_shares
        )

    @property
    def validated(self) -> int:
        """The samples of map-style sets that this rank drew in the current validation."""
        return sum(share.samples for share in self._validation_shares)

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Return the training loss over ranks, and what the module logged. Raises ConfigError."""
        return self.logged.read(trainer, self.losses)

    def test_metrics(self, done: Callable[[], None]) -> dict[str, float]:
        """Return nothing: a study does not run a user's test step."""
        return {}

    def probe_target(self) -> None:
        """Return None: a training step may log, keep state or need its trainer, and is no function of a batch."""
