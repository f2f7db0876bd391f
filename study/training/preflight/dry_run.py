"""A dry run: three updates and two validations of a user's own module on this machine, before anything is paid for."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

from study.config.schema import Hardware, StudyConfig
from study.config.workloads import Custom
from study.errors import ConfigError, DataError
from study.planning.batch_split import BatchPlan
from study.planning.trials import Plan, TrialSpec
from study.planning.tried import LossWeights, TriedModule
from study.safe_text import cut
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.jobs.custom import CustomJob
from study.training.lightning_patches import ADVICE
from study.training.messages import Mistake, OutOfMemory, PeerLost
from study.training.optimizers import rates_are_factors
from study.training.preflight.split_check import CHANGE, gradient_change, metric_change
from study.training.rank import Rank
from study.training.snapshot import Resumed, join_parts
from study.training.user_data.sampling import TrainShare, check_sizes
from study.workloads.user_code.build import text_of, train_loader, user_code
from study.workloads.user_code.loaders import KEY, check_batch_size, draws_batches, is_stream, sampler_of

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
AN_EPOCH = 2  # updates
MOST_SAMPLES = 32
VAL_BATCHES = 4
MOST_RANKS = 4  # on this machine, of a study with more
PATIENCE = timedelta(minutes=5)  # of a rank that waits for the others


def dry_run(plan: Plan) -> tuple[TriedModule, ...]:
    """Train three updates and validate, on CPUs of this machine, with every module of the user's that the plan has, on
    as many ranks as the plan's largest trial (4 at most): through the code that trials run, DDP included.

    Return what was found of each; its notes are warnings of Lightning's, and what is run otherwise than expected.
    Raises ConfigError, whose one line says what is missing.
    """
    found: list[TriedModule] = []
    tried: list[Any] = []
    for name, config in plan.variants.items():
        theirs = rates_are_factors(config) and config.optimizer  # its clipping
        same = (config.workload, config.ghost_batch, config.hardware.world_sizes, theirs)
        if isinstance(config.workload, Custom) and same not in tried:
            tried.append(same)
            cells = [cell for cell in plan.cells if cell.variant == name]
            specs = [plan.confirm_trials(cell, plan.rates(cell)[0])[0] for cell in cells]
            try:
                found.append(replace(_try(config, config.workload, specs), variant=name))
            except (ConfigError, DataError) as error:
                key = "workload.module" if error.key == KEY and config.workload.data is None else error.key
                raise error.with_key(f"variants.{name}.{key}" if name else key) from error
    return tuple(found)


def _try(config: StudyConfig, workload: Custom, specs: Sequence[TrialSpec]) -> TriedModule:
    most = max(spec.batch.world_size for spec in specs)
    world_size = min(most, MOST_RANKS)
    parts = max(spec.batch.world_size * spec.batch.accumulation for spec in specs)
    sizes = sorted({spec.batch.micro_batch for spec in specs if spec.batch.world_size == most})
    asked = _few(sizes[0], config.ghost_batch)
    with user_code("workload"):
        # A size that is written into a loader could be just the one that is tried: any other is asked for, too.
        other = sizes[-1] + asked
        loader = train_loader(workload, other)
        check_batch_size(loader, other)
        notes = []
        if _draws_itself(loader):
            notes = _of_order(workload, specs[0])
            notes += dict.fromkeys(note for one in specs for note in _of_batch_sampler(workload, one))
        accumulation = min(max(spec.batch.accumulation for spec in specs), 2)
        batch = BatchPlan(asked * world_size * accumulation, world_size, asked, accumulation)
        spec = _brief(specs[0], batch, workload.train_samples or 0)
        try:
            found = _train(config.model_copy(update={"hardware": Hardware()}), spec, parts)
            return replace(found, notes=(*notes, *found.notes))
        except (ValueError, Mistake) as error:
            if (config.ghost_batch or asked) > 1 or "more than 1 value per channel" not in str(error):
                raise
            if config.ghost_batch:
                raise ConfigError("is 1, on which batch norm cannot train", "ghost_batch") from error
            raise ConfigError(
                "a rank has a micro batch of 1, on which batch norm cannot train", "batch_sizes"
            ) from error


def _draws_itself(loader: Any) -> bool:
    """Return whether a class that is not torch's draws samples or batches."""
    if is_stream(loader):
        return False
    return any(not type(one).__module__.startswith("torch.") for one in (sampler_of(loader), loader.batch_sampler))


def _of_order(workload: Custom, spec: TrialSpec) -> list[str]:
    """Return a note where the sampler's order does not depend on the seed of a trial."""
    size, count = spec.batch.micro_batch, spec.updates_per_epoch * spec.batch.accumulation * spec.batch.world_size
    orders = []
    for seed in range(2):
        share = TrainShare(train_loader(workload, size), ALONE, (seed, 0), size, count)
        orders.append([sample for batch in share for sample in batch])
    if orders[0] != orders[1] or orders[0] == sorted(orders[0]):
        return []
    return [
        "its training sampler draws the same order for every seed, so that seeds differ less than they should: have it "
        "draw by torch's global generator, or by an attribute `generator` (a torch.Generator) or `seed`"
    ]


def _of_batch_sampler(workload: Custom, spec: TrialSpec) -> list[str]:
    """Return a note where a user's batch sampler yields more than an epoch takes. Raises ConfigError where it yields
    other batches than a trial needs, or too few.
    """
    size, parts = spec.batch.micro_batch, spec.batch.accumulation * spec.batch.world_size
    count = spec.updates_per_epoch * parts
    loader = train_loader(workload, size)
    if not draws_batches(loader):
        return []
    batches = [list(batch) for batch in islice(loader.batch_sampler, count + parts)]
    check_sizes(batches[:count], size)
    if len(batches) < count:
        raise ConfigError(
            f"is {workload.train_samples}, but the batch sampler yields {len(batches)} batches of {size} in an "
            f"epoch, and {count} are needed",
            "workload.train_samples",
        )
    if len(batches) < count + parts or len(batches[-1]) != size:
        return []
    return [
        f"its batch sampler yields more batches than an epoch takes, which is workload.train_samples "
        f"({workload.train_samples}) in whole updates; to train on the rest too, give the samples of an epoch there"
    ]


def _few(micro_batch: int, ghost_batch: int | None) -> int:
    """Return few samples to train on: the smallest micro batch, halved while it is large and even."""
    while micro_batch > MOST_SAMPLES and micro_batch % (2 * (ghost_batch or 1)) == 0:
        micro_batch //= 2
    return micro_batch


def _brief(spec: TrialSpec, batch: BatchPlan, samples: int) -> TrialSpec:
    """Return a trial of three updates in two epochs, with a validation in each: the second one shows what is not logged
    every time. Where an epoch of the study ends without a validation, so does the first one here.
    """
    an_epoch = max(min(AN_EPOCH, samples // batch.global_batch), 1)
    first = an_epoch + (spec.report_at[0] > spec.updates_per_epoch)
    stage = replace(spec.stages[0], updates=first + 1, batch=batch, updates_per_epoch=an_epoch)
    cell = replace(spec.cell, variant="")
    return replace(spec, phase="search", cell=cell, stages=(stage,), report_at=(first, first + 1))


def _train(config: StudyConfig, spec: TrialSpec, parts: int) -> TriedModule:
    """Return what rank 0 found, with the notes that only other ranks have behind its own. One rank alone trains in this
    process.
    """
    if spec.batch.world_size == 1:
        return DryRunRank(ALONE, config).dry_run(spec, parts)
    try:
        with LocalGroup(config, spec.batch.world_size, DryRunRank) as group:
            found: list[TriedModule] = group._all("dry_run", spec, parts)
    except (Mistake, OutOfMemory, PeerLost, BrokenProcessPool) as error:
        text = str(error)
        if isinstance(error, BrokenProcessPool):
            text = (
                "the process of a rank died; if the module gathers tensors itself, they may differ in size: a "
                "validation set is not padded, and a rank may have one sample more than another"
            )
        if "more than 1 value per channel" in text:
            raise
        if re.search(r"timed? ?out", text, re.IGNORECASE):
            text = f"a rank waited {PATIENCE.seconds // 60} minutes for another in a call that all must make: {text}"
        raise ConfigError(f"on {spec.batch.world_size} ranks: {text}", "workload") from error
    return replace(found[0], notes=tuple(dict.fromkeys(note for one in found for note in one.notes)))


class _DryRunJob(CustomJob):
    most_val_batches = VAL_BATCHES

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weights: list[float] = []  # of the micro batches
        weight_of = self.losses.weight_of

        def noted(output: Any) -> float:
            self.weights.append(weight_of(output))
            return self.weights[-1]

        self.losses.weight_of = noted  # type: ignore[method-assign]

    def found(self, trainer: Any) -> TriedModule:
        """Return what the trial has shown so far; rank 0 calls it at a report."""
        weights = None
        if self.config.loss_weight is not None and self.weights:
            size, total = self.spec.batch.micro_batch, sum(self.weights)
            mean = total / (size * len(self.weights))
            weights = LossWeights(mean, min(self.weights), max(self.weights), size)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        logged = self.logged.logged_as[self.logged.objective.metric]
        return TriedModule((), logged, metrics, self.val_samples, weights)

    def trainer_arguments(self) -> dict[str, Any]:
        return super().trainer_arguments() | {"limit_val_batches": VAL_BATCHES}


class DryRunRank(Rank):
    """A rank that validates few batches, and notes what a user should know of the run."""

    custom_job = _DryRunJob

    def __init__(self, topology: RankTopology, config: StudyConfig) -> None:
        super().__init__(topology, config)
        self._patience = PATIENCE

    def dry_run(self, spec: TrialSpec, parts: int) -> TriedModule:
        """Train a brief trial, take a snapshot and read it back; return what was found. Every rank must call it.

        `parts` is the most parts that a batch of the study is split into.
        """
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                self.begin(spec)
                assert self._trial is not None
                assert self._fit is not None
                trial, job = self._trial, self._trial.job
                assert isinstance(job, _DryRunJob)
                for _ in spec.report_at:
                    self.advance()
                notes = [*job.notes, *_warnings(caught, job.logged.names)]
                found = job.found(trial.trainer)
                of_splits = self._fit.ask(lambda: _of_splits(job, trial.trainer, parts))
                notes += of_splits if self.topology.rank == 0 else []
            Resumed.read(join_parts([self.snapshot()]), 0)
            return replace(found, notes=tuple(notes))
        except pickle.UnpicklingError as error:
            said = str(error).split(" Do it only")[0]
            raise ConfigError(f"keeps in its checkpoint what cannot be read back: {said}", "workload.module") from error
        finally:
            self.halt()


def _warnings(caught: Sequence[warnings.WarningMessage], compared: Collection[str]) -> list[str]:
    """Return what was warned of, once each, without Lightning's advice to people who write a training script.

    That a metric is not reduced over ranks is left out for those that the ranks have `compared`.
    """
    logged = {name.partition("/dataloader_idx_")[0] for name in compared}
    advice = (*ADVICE, *(rf"self\.log\('{re.escape(name)}', .*sync_dist=True" for name in logged))
    found = {" ".join(text_of(one.message).split()) for one in caught if isinstance(one.message, UserWarning)}
    return sorted(f"warning: {cut(text, 300)}" for text in found if not any(re.search(a, text) for a in advice))


def _of_splits(job: CustomJob, trainer: Any, parts: int) -> list[str]:
    """Return a note for what depends on how samples are spread over batches: gradients, and each metric that is read.

    Every rank must call it.
    """
    notes = []
    if (change := gradient_change(job, trainer, parts)) and change > CHANGE:
        remedy = (
            "loss_weight does not mend that"
            if job.config.loss_weight
            else "if it is a mean over tokens or pixels, workload.loss_weight mends that (docs/own-model.md)"
        )
        notes.append(
            f"its loss is no mean over samples of equal weight: split into {parts} parts (ranks x accumulation), the "
            f"gradient of a batch changes by {change:.1%}, so that an update depends on how its batch is split; "
            f"{remedy}"
        )
    for name in sorted(job.logged.names):
        if differing := metric_change(job, trainer, name):
            notes.append(
                f"{name} depends on how the validation set is split over batches and ranks: of the same samples it is "
                f"{differing[0]:.4g} in four batches and {differing[1]:.4g} in one. Lightning weights what a batch "
                "logs by its number of samples: log a mean over tokens or pixels with batch_size=their number, and "
                "what is no mean as a torchmetrics object"
            )
    return notes
