"""The lean loop against Lightning's own: the same calls in the same order, the same weights to the last bit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset, default_collate

from study.training.lean_loop import STEPS, LeanLoop, use_lean_loop
from study.workloads.user_code.lightning_package import LightningPackage, lightning_package

BATCHES = 7
OF_NO_STEP = {"on_save_checkpoint", "on_load_checkpoint", "load_state_dict", "state_dict", "configure_callbacks"}


@pytest.fixture(params=["pytorch_lightning", "lightning"])
def lightning(request: pytest.FixtureRequest) -> LightningPackage:
    return lightning_package(request.param)


def hooks_of(base: type) -> list[str]:
    """Return the names of a class's hooks: of methods that Lightning calls, and that do nothing unless overridden."""
    names = [name for name, _ in inspect.getmembers(base, inspect.isfunction) if name.startswith("on_")]
    return [name for name in names if name not in OF_NO_STEP]


def recording(base: type, calls: list[str], whose: str, but: tuple[str, ...] = ()) -> type:
    """Return a subclass that notes the calls of all its hooks."""

    def noted(hook: str) -> Callable[..., Any]:
        original = getattr(base, hook)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"{whose}.{hook}")
            return original(self, *args, **kwargs)

        return method

    return type(base.__name__, (base,), {hook: noted(hook) for hook in hooks_of(base) if hook not in but})


def net_of(lightning: LightningPackage, seen: list[Any], **options: Any) -> type:
    """Return a class of modules, which note the gradients and metrics that they see in training steps."""

    class Net(lightning.pytorch.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.layer = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.3), nn.Linear(4, 1))
            if "logs" in options:
                self.layer[0].weight.register_hook(lambda grad: self.log("grad", grad.norm()))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = mse_loss(self(batch[0]), batch[1])
            grads = [None if weight.grad is None else weight.grad.sum().item() for weight in self.parameters()]
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            seen.append((batch_idx, self.global_step, rate, grads, loss.item(), dict(self.trainer.callback_metrics)))
            if batch_idx % 3 != 1:
                self.log("loss", loss, on_step=True, on_epoch=True)
            returns = options.get("returns")
            if returns == "dict":
                return {"loss": loss, "more": loss.detach()}
            return None if returns == "none" and batch_idx == 2 else loss

        def on_before_zero_grad(self, optimizer: Any) -> None:
            self.log("before", 1.0)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val", mse_loss(self(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            kind = options.get("optimizer", "adamw")
            if kind == "lbfgs":
                return torch.optim.LBFGS(self.parameters(), 0.1, max_iter=3)
            optimizer = torch.optim.AdamW(self.parameters(), 0.01)
            if options.get("interval") == "plateau":
                return {
                    "optimizer": optimizer,
                    "lr_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
                    "monitor": "val",
                }
            config = {
                "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9),
                "interval": options.get("interval", "step"),
                "frequency": options.get("frequency", 1),
            }
            return {"optimizer": optimizer, "lr_scheduler": config}

    def clip_gradients(module: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        for weight in module.parameters():
            weight.grad.clamp_(-0.01, 0.01)

    if "clips" in options:
        Net.clip_gradients = clip_gradients
    return Net


def recording_logger(lightning: LightningPackage, logged: list[Any]) -> Any:
    class Recording(lightning.pytorch.loggers.logger.DummyLogger):  # type: ignore[misc, name-defined]
        def log_metrics(self, *args: Any, **kwargs: Any) -> None:
            logged.append((args, kwargs))

    return Recording()


def fit(lightning: LightningPackage, lean: bool, but: tuple[str, ...] = (), **options: Any) -> tuple[Any, ...]:
    """Train for three epochs; return all that can be seen of it, and whether it took lean steps."""
    calls: list[str] = []
    seen: list[Any] = []
    logged: list[Any] = []
    module = recording(net_of(lightning, seen, **options), calls, "module", but)()
    callbacks = [recording(lightning.pytorch.Callback, calls, "callback")()]
    if "averages" in options:  # and replaces the schedule at the start of an epoch
        callbacks.append(lightning.pytorch.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1))
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(
        torch.randn(BATCHES * 4, 5, generator=generator), torch.randn(BATCHES * 4, 1, generator=generator)
    )
    trainer = lightning.pytorch.Trainer(
        accelerator="cpu", max_epochs=3, accumulate_grad_batches=options.get("accumulation", 1),
        check_val_every_n_epoch=None, val_check_interval=5, num_sanity_val_steps=0, log_every_n_steps=2,
        precision=options.get("precision", "32"), gradient_clip_val=options.get("clip"), callbacks=callbacks,
        logger=recording_logger(lightning, logged), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    if lean:
        use_lean_loop(trainer, lightning)

    def collate(samples: Any) -> Any:
        left_out = options.get("left_out") == "a batch" and torch.equal(samples[0][0], data[8][0])
        return None if left_out else default_collate(samples)

    torch.manual_seed(7)
    trainer.fit(module, DataLoader(data, 4, collate_fn=collate), DataLoader(data, 4))
    loop = trainer.fit_loop.epoch_loop
    found = (calls, seen, logged, module.state_dict(), trainer.fit_loop.state_dict(), dict(trainer.callback_metrics))
    return apply_to_collection(found, Tensor, Tensor.tolist), isinstance(loop, LeanLoop) and loop.step is not None


CASES: list[dict[str, Any]] = [
    {},
    {"accumulation": 3},  # the last update of an epoch has one batch
    {"accumulation": 3, "returns": "dict", "frequency": 2},
    {"returns": "dict"},
    {"returns": "none"},
    {"precision": "bf16-mixed"},
    {"clip": 0.1},
    {"interval": "epoch"},
    {"interval": "plateau"},
    {"frequency": 3},
    {"optimizer": "lbfgs"},
    {"averages": "weights"},
    {"left_out": "a batch"},
    {"left_out": "a batch", "accumulation": 3},
    {"logs": "in a hook of autograd"},
    {"clips": "itself"},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", CASES, ids=str)
def test_a_lean_step_is_lightnings(lightning: LightningPackage, options: dict[str, Any]) -> None:
    found, lean = fit(lightning, True, STEPS, **options)
    expected, _ = fit(lightning, False, STEPS, **options)
    assert lean
    assert len([call for call in found[0] if call == "callback.on_after_backward"]) >= 3 * BATCHES - 3
    assert found == expected


@pytest.mark.filterwarnings("ignore")
def test_a_module_with_steps_of_its_own_is_trained_by_lightnings_loop(lightning: LightningPackage) -> None:
    found, lean = fit(lightning, True)
    expected, _ = fit(lightning, False)
    assert not lean
    assert "module.on_train_batch_start" in found[0]
    assert found == expected


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_calls_no_closure_is_refused(
    lightning: LightningPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    with pytest.raises(RuntimeError, match=r"AdamW\.step did not call its closure"):
        fit(lightning, True, STEPS)


@pytest.mark.filterwarnings("ignore")
def test_a_version_of_lightning_that_was_not_tested_has_its_own_loop(
    lightning: LightningPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning.pytorch, "__version__", "2.7.0")
    assert not fit(lightning, True, STEPS)[1]
