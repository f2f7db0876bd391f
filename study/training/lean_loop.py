"""Lightning's training loop, with only the work around a step that the module or a callback asks for (docs/adr/027).

A small model's step takes less than a millisecond, and Lightning's own work around it half a millisecond. `LeanStep`
repeats what a step of Lightning does, in its order; `tests/training/test_lean_loop.py` fails where Lightning differs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from study.training.lightning_patches import FastHookModule, overrides, transfers_itself
from study.workloads.user_code.lightning_package import LightningPackage, derived

TESTED = ("2.6.",)  # versions of Lightning
# Called at each step where the module or a callback has its own.
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
# A module that has one of these of its own is trained by Lightning's loop.
STEPS = ("on_train_batch_start", "optimizer_step", "optimizer_zero_grad", "backward", "lr_scheduler_step")


def use_lean_loop(trainer: pl.Trainer, lightning: LightningPackage) -> None:
    """Have a Trainer, before its `fit`, take `LeanStep`s where it can."""
    loops = lightning.pytorch.loops
    before = trainer.fit_loop.epoch_loop
    loop = derived(LeanLoop, loops.training_epoch_loop._TrainingEpochLoop)(trainer, before.min_steps, before.max_steps)
    loop.lightning = lightning
    trainer.fit_loop.epoch_loop = loop


class LeanLoop:
    """Methods of Lightning's loop over the batches of an epoch, which it is made a subclass of."""

    lightning: LightningPackage
    step: LeanStep | None = None
    # Attributes of Lightning's loop.
    trainer: Any
    val_loop: Any
    batch_progress: Any
    restarting: bool
    _batches_that_stepped: int
    _should_accumulate: Callable[[], bool]

    def on_run_start(self, data_fetcher: Any) -> None:
        """Decide how the steps of an epoch are taken: callbacks may change schedulers or hooks at its start."""
        super().on_run_start(data_fetcher)  # type: ignore[misc]
        self.step = LeanStep(self.trainer, self.lightning) if can_step(self.trainer, self.lightning) else None

    def advance(self, data_fetcher: Any) -> None:
        """Take a step."""
        if self.step is None or self.restarting or self.val_loop.restarting:
            super().advance(data_fetcher)  # type: ignore[misc]
        else:
            self.step.take(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Let Lightning validate where a validation is due or the training is to stop; else only count the batch."""
        due = self.batch_progress.total.ready % self.trainer.val_check_batch == 0
        if self.step is None or due or self.trainer.should_stop:
            super().on_advance_end(data_fetcher)  # type: ignore[misc]
        elif not self._should_accumulate():
            self._batches_that_stepped += 1

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing. Lightning would broadcast a flag before every batch, in case one rank got a SIGTERM; the driver
        ends the ranks itself.
        """


def can_step(trainer: Any, lightning: LightningPackage) -> bool:
    """Return whether a `LeanStep` does all that Lightning would do at a step of this training.

    It does not for a module that takes steps itself, a gradient scaler (16-mixed), a plateau that steps with updates, a
    training_step that takes an iterator, or another version of Lightning than those that were tested.
    """
    module, base = trainer.lightning_module, lightning.pytorch.LightningModule
    return (
        lightning.pytorch.__version__.startswith(TESTED)
        and module.automatic_optimization
        and not any(overrides(module, base, hook) for hook in STEPS)
        and getattr(trainer.precision_plugin, "scaler", None) is None
        and not any(one.reduce_on_plateau and one.interval == "step" for one in trainer.lr_scheduler_configs)
        and not isinstance(trainer.fit_loop._data_fetcher, lightning.pytorch.loops.fetchers._DataLoaderIterDataFetcher)
    )


class _Named:
    """A context in which the module logs under the name of a hook; a class, since it is entered at each step."""

    __slots__ = ("attributes", "before", "hook")

    def __init__(self, attributes: dict[str, Any], hook: str) -> None:
        self.attributes, self.hook = attributes, hook

    def __enter__(self) -> None:
        self.before = self.attributes["_current_fx_name"]
        self.attributes["_current_fx_name"] = self.hook

    def __exit__(self, *error: object) -> None:
        self.attributes["_current_fx_name"] = self.before


class LeanStep:
    """Takes training steps, of a module for which `can_step` is true."""

    def __init__(self, trainer: Any, lightning: LightningPackage) -> None:
        module, strategy = trainer.lightning_module, trainer.strategy
        self.trainer, self.module, self.strategy, self.loop = trainer, module, strategy, trainer.fit_loop.epoch_loop
        self.model: Any = strategy.model  # the module, or DDP around it
        self.optimizer = trainer.optimizers[0]
        self.attributes = vars(module)  # nn.Module looks for parameters at each assignment to an attribute
        # Gradients freed before the forward pass leave memory that is still in the cache. A user's training_step may
        # read them, so this is for the package's own modules.
        self.is_own = isinstance(module, FastHookModule)
        self.outputs: dict[str, Any] | None = None  # of the micro batch
        self.connector, self.results = trainer._logger_connector, self.loop._results
        self.schedulers: list[tuple[int, Any]] = [
            (one.frequency, one.scheduler) for one in trainer.lr_scheduler_configs if one.interval == "step"
        ]
        self.hooks = {hook: self._own(hook, lightning) for hook in HOOKS}

        base = lightning.pytorch.LightningModule
        self.clips = trainer.gradient_clip_val is not None or any(
            overrides(module, base, hook) for hook in ("configure_gradient_clipping", "clip_gradients")
        )
        self.transfers = transfers_itself(trainer, lightning)
        self.takes_index = len(self.loop._build_kwargs({}, None, 0)) > 1
        precision = trainer.precision_plugin
        plain = type(precision) is lightning.pytorch.plugins.Precision
        self.precision_context = nullcontext if plain else precision.train_step_context
        self.read_output = lightning.pytorch.loops.optimization.automatic.ClosureResult.from_training_step_output

    def _own(self, hook: str, lightning: LightningPackage) -> list[Callable[..., Any]]:
        """Return what is called for a hook: of callbacks first, then of the module."""
        trainer, module = self.trainer, self.module
        callback, base = lightning.pytorch.Callback, lightning.pytorch.LightningModule
        found = [
            partial(getattr(one, hook), trainer, module) for one in trainer.callbacks if overrides(one, callback, hook)
        ]
        return found + [getattr(module, hook)] * overrides(module, base, hook)

    def _named(self, hook: str) -> _Named:
        return _Named(self.attributes, hook)

    def _call(self, hook: str, *arguments: Any) -> None:
        """Call a hook, under whose name the module then logs."""
        if self.hooks[hook]:
            with self._named(hook):
                for function in self.hooks[hook]:
                    function(*arguments)

    def take(self, data_fetcher: Any) -> None:
        """Train on the next micro batch. Raises StopIteration at the end of the data."""
        loop, progress = self.loop, self.loop.batch_progress
        batch, _, _ = next(data_fetcher)
        batch_idx = progress.current.ready
        progress.is_last_batch = data_fetcher.done
        if self.transfers:
            batch = self.module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = self.strategy.batch_to_device(batch, dataloader_idx=0)
        progress.increment_ready()
        self._note_batch(batch)
        accumulating = loop._should_accumulate()
        if batch is not None:  # a collate_fn may leave one out
            self._call("on_train_batch_start", batch, batch_idx)
            progress.increment_started()
            self._train(batch, batch_idx, accumulating)
        progress.increment_processed()
        if not accumulating and self.schedulers:
            self._move_rates(batch_idx)
        if loop._num_ready_batches_reached():
            loop._update_learning_rates("epoch", update_plateau_schedulers=False)
        outputs, self.outputs = self.outputs, None  # they may hold tensors of the module's
        self._call("on_train_batch_end", outputs, batch, batch_idx)
        if self.results:  # something is logged
            self.connector.on_batch_end()
        self.results.batch = None
        progress.increment_completed()
        if self.trainer.loggers:
            self.connector.update_train_step_metrics()

    def _train(self, batch: Any, batch_idx: int, accumulating: bool) -> None:
        """Add the gradients of a micro batch, and step with the last one of an update."""
        if accumulating:
            with self.strategy.block_backward_sync() if self.model is not self.module else nullcontext():
                self._backward(batch, batch_idx)
            return
        step = self.loop.automatic_optimization.optim_progress.optimizer.step
        step.increment_ready()
        with self._named("optimizer_step"):
            self.optimizer.step(closure=partial(self._backward_and_clip, batch, batch_idx))
        if self.outputs is None:
            raise RuntimeError(f"{type(self.optimizer).__name__}.step did not call its closure, which trains")
        step.increment_completed()

    def _note_batch(self, batch: Any) -> None:
        """Begin the metrics that the module logs at this step."""
        self.connector._first_loop_iter = self.connector._first_loop_iter is None
        self.results.batch, self.results.batch_size, self.results.dataloader_idx = batch, None, None

    def _move_rates(self, batch_idx: int) -> None:
        """Step the schedulers that step with each update."""
        progress = self.loop.scheduler_progress
        for frequency, scheduler in self.schedulers:
            if (batch_idx + 1) % frequency == 0:
                progress.increment_ready()
                scheduler.step()
                progress.increment_completed()

    def _backward_and_clip(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Compute the gradients of an update; return its last loss. The optimizer calls it, as it may need to again."""
        loss = self._backward(batch, batch_idx)
        self._call("on_before_optimizer_step", self.optimizer)
        if self.clips:
            trainer = self.trainer
            trainer.precision_plugin._clip_gradients(
                self.module, self.optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
            )
        return loss

    def _backward(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Add the gradients of a micro batch; return its loss, None where the module skips it."""
        with torch.enable_grad():  # an optimizer may call this without
            return self._forward_and_backward(batch, batch_idx)

    def _forward_and_backward(self, batch: Any, batch_idx: int) -> Tensor | None:
        accumulation = self.trainer.accumulate_grad_batches
        first = batch_idx % accumulation == 0
        if first and self.is_own:
            self._zero_grad()
        output = self._training_step(batch, batch_idx)
        if isinstance(output, Tensor) and accumulation == 1:
            loss, seen = output, output.detach() if self.is_own else output.detach().clone()
            self.outputs = {"loss": seen}
        else:  # of any other kind
            result = self.read_output(output, accumulation)
            loss, seen = result.closure_loss, result.loss
            self.outputs = {} if loss is None else result.asdict()
        if first and not self.is_own:
            self._zero_grad()
        if loss is not None:
            self._call("on_before_backward", loss)
            with self._named("backward"):
                loss.backward()
            self._call("on_after_backward")
        return seen

    def _zero_grad(self) -> None:
        progress = self.loop.automatic_optimization.optim_progress.optimizer.zero_grad
        progress.increment_ready()
        self._call("on_before_zero_grad", self.optimizer)
        progress.increment_started()
        with self._named("optimizer_zero_grad"):
            self.optimizer.zero_grad()
        progress.increment_completed()

    def _training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return what the module's training_step returns, run through DDP."""
        arguments = (batch, batch_idx) if self.takes_index else (batch,)
        with self._named("training_step"), self.precision_context():
            if self.model is self.module:
                return self.module.training_step(*arguments)
            # DDP calls its module, which is to be the training step this once.
            forward = self.attributes.get("forward")

            def training_step(*passed: Any, **named: Any) -> Any:
                if forward is None:
                    del self.attributes["forward"]
                else:
                    self.attributes["forward"] = forward
                return self.module.training_step(*passed, **named)

            self.attributes["forward"] = training_step
            return self.model(*arguments)
