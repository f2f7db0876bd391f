"""Modules that optimize by hand, with one optimizer or two: against a plain loop, and what is refused."""

import logging
import re
from typing import Any

import lightning as L
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import lr_scheduler

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import TrialSpec, make_plan
from study.planning.tried import FirstRates
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from study.training.preflight.first_rates import first_rates
from study.workloads.data.batching import derived_seed
from study.workloads.user_code.build import build_module
from tests.conftest import make_config
from tests.own_modules.on_ranks import BATCH, alone, notes_of, together, tried_together
from tests.own_modules.user_modules import SAMPLES, Data

FACTOR = 0.5
Batch = tuple[Tensor, Tensor]


class Gan(pl.LightningModule):
    """A generator that scales, and a discriminator; as `how` says, the rest is usual."""

    seen: list[list[int]]

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.how = how
        self.generator, self.discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.5 if how == "with chance" else 0.0)
        self.seen, self.rates, self.says = [], [], []

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the discriminator, which leaves the generator alone, and of the generator."""
        fake = self.dropout(self.generator(x))
        apart = softplus(-self.discriminator(x)).mean() + softplus(self.discriminator(fake.detach())).mean()
        return apart, softplus(-self.discriminator(fake)).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.seen.append(batch[0][:, 0].int().tolist())
        x = batch[0] / SAMPLES
        first, second = self.optimizers(use_pl_optimizer=self.how != "without Lightning")  # type: ignore[misc, call-overload]
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in (first, second)])
        self.says.append((self.trainer.global_step, self.trainer.estimated_stepping_batches))
        turn = (self.current_epoch if self.how == "takes turns by epochs" else batch_idx) % 2
        takes_turns = self.how.startswith("takes turns")
        for _ in range(2 if self.how == "two critic steps" else 1):
            loss = self.losses(x)[0]
            first.zero_grad()
            self.manual_backward(loss)
            if not (self.how == "accumulates" and turn) and not (takes_turns and turn):
                first.step()
        loss = self.losses(x)[1]
        second.zero_grad()
        self.manual_backward(loss)
        if not (self.how == "accumulates" and turn) and not (takes_turns and not turn):
            second.step()
        if self.how == "by steps":
            for scheduler in self.lr_schedulers():  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[call-arg]
        return self.returned(loss.detach())

    def returned(self, loss: Tensor) -> Any:
        if self.how == "returns a dict":
            return {"loss": loss, "more": 1}
        if self.how in ("logs", "logs train_loss"):
            self.log_dict({"g_loss" if self.how == "logs" else "train_loss": loss, "other": 0.0})
        return None if self.how in ("logs", "logs train_loss", "nothing") else loss

    def on_train_epoch_end(self) -> None:
        if self.how == "by epochs":
            for scheduler in self.lr_schedulers():  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[call-arg]
        if self.how == "by plateaus":
            for scheduler in self.lr_schedulers():  # type: ignore[union-attr]
                scheduler.step(self.trainer.callback_metrics["val_loss"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", 0.5, sync_dist=True)
        self.log("val_loss", 1.0, sync_dist=True)

    def configure_optimizers(self) -> Any:
        self.length = self.trainer.estimated_stepping_batches
        first = torch.optim.Adam(self.discriminator.parameters(), lr=0.2)
        second = torch.optim.SGD(self.generator.parameters(), lr=0.4, momentum=0.9)
        both = [first, second]
        if self.how in ("by steps", "by epochs"):
            return both, [lr_scheduler.ExponentialLR(one, 0.9) for one in both]
        if self.how == "by plateaus":
            return both, [lr_scheduler.ReduceLROnPlateau(one, patience=0, factor=0.5) for one in both]
        return both


class One(pl.LightningModule):
    """One optimizer, stepped by hand with a closure."""

    seen: list[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.seen.append(batch[0][:, 0].int().tolist())
        optimizer: Any = self.optimizers()
        loss = (self.layer(batch[0] / SAMPLES) - 1).square().mean()

        def closure() -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)

        optimizer.step(closure=closure)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_acc", 0.5, sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.2)


class LightningOne(L.LightningModule):
    """The same in the package `lightning`."""

    seen: list[list[int]]

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(1, 1)
        self.seen = []

    training_step, validation_step = One.training_step, One.validation_step
    configure_optimizers = One.configure_optimizers


class TwoAtOnce(One):
    """Two optimizers, and none is stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = True

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([weight], lr=0.2) for weight in self.parameters()]


def by_hand(
    how: str = "", world_size: int = 1, module: str = "Gan", budget: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None, optimizer: dict[str, Any] | None = None, **changes: Any,
) -> StudyConfig:  # fmt: skip
    workload = {
        "module": f"{__name__}:{module}", "data": "tests.own_modules.user_modules:Data", "train_samples": SAMPLES,
        "val_accuracy": "val_acc", "optimizer": "module", "find_unused_parameters": world_size > 1,
        "module_args": {"how": how} if module == "Gan" else {}, **changes,
    }  # fmt: skip
    return make_config(
        workload=workload, batch_sizes=[BATCH], hardware={"world_size": world_size, **(hardware or {})},
        budget=budget or {"epochs": 3}, search={"lr": [FACTOR]}, optimizer=optimizer or {}, confirm={"seeds": 1},
    )  # fmt: skip


def trial(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[0], FACTOR)[0]


def loop(config: StudyConfig, seen: list[list[list[int]]], critic_steps: int = 1) -> tuple[list[Tensor], list[float]]:
    """The weights after a plain loop over each update's samples, all ranks' together, and the loss of each update."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(*trial(config).seed))
        net = Gan()
    first = torch.optim.Adam(net.discriminator.parameters(), lr=0.2 * FACTOR)
    second = torch.optim.SGD(net.generator.parameters(), lr=0.4 * FACTOR, momentum=0.9)
    losses = []
    for parts in zip(*seen, strict=True):
        x = torch.tensor([sample for part in parts for sample in part]).float()[:, None] / SAMPLES
        for _ in range(critic_steps):
            first.zero_grad()
            net.losses(x)[0].backward()
            first.step()
        loss = net.losses(x)[1]
        second.zero_grad()
        loss.backward()
        second.step()
        losses.append(loss.item())
    return [weight.detach() for weight in net.parameters()], losses


@pytest.mark.parametrize("how", ["", "two critic steps", "returns a dict", "logs", "logs train_loss"])
def test_weights_and_losses_are_those_of_a_plain_loop(two: LocalGroup, how: str) -> None:
    changes = {"train_loss": "g_loss"} if how == "logs" else {}
    one, pair = by_hand(how, **changes), by_hand(how, 2, **changes)
    for outcomes in ([alone(one, trial(one))], [*together(two, pair, trial(pair))]):
        for outcome in outcomes:
            assert outcome.error is None, outcome.error
        weights, losses = loop(one, [outcome.seen for outcome in outcomes], 2 if how == "two critic steps" else 1)
        for outcome in outcomes:
            for weight, expected in zip(outcome.weights, weights, strict=True):
                torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)
            assert [report.updates for report in outcome.reports] == [2, 4, 6]
            means = [sum(losses[i : i + 2]) / 2 for i in (0, 2, 4)]
            assert [report.train_loss for report in outcome.reports] == pytest.approx(means, rel=1e-4)
            assert outcome.reports[-1].lr == pytest.approx(0.2 * FACTOR)  # of the first optimizer


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize(("module", "data"), [("One", "user_modules"), ("LightningOne", "lightning_modules")])
def test_one_optimizer_and_a_closure_in_either_package(module: str, data: str, pausing: bool) -> None:
    config = by_hand(module=module, data=f"tests.own_modules.{data}:Data")
    outcome = alone(config, trial(config), pausing)
    assert outcome.error is None
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(*trial(config).seed))
        layer = One().layer
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2 * FACTOR)
    for samples in outcome.seen:
        optimizer.zero_grad()
        (layer(torch.tensor(samples).float()[:, None] / SAMPLES) - 1).square().mean().backward()
        optimizer.step()
    for weight, expected in zip(outcome.weights, layer.parameters(), strict=True):
        torch.testing.assert_close(weight, expected.detach())


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
@pytest.mark.parametrize(
    ("how", "budget"),
    [
        ("with chance", {}),
        ("two critic steps", {}),
        ("by steps", {"report_every_updates": 1}),
        ("by steps", {}),
        ("by epochs", {"report_every_updates": 1}),
        ("by epochs", {}),
        ("by plateaus", {"report_every_updates": 1}),
        ("by plateaus", {}),
        ("", {"epochs": None, "updates": 5, "report_every_updates": 2}),
    ],
    ids=str,
)
def test_a_pause_changes_nothing(how: str, budget: dict[str, Any], precision: str) -> None:
    config = by_hand(how, budget={"epochs": 3, **budget}, hardware={"precision": precision})
    whole, paused = alone(config, trial(config)), alone(config, trial(config), pausing=True)
    assert (whole.error, paused.error) == (None, None)
    assert len(paused.reports) > 1
    assert whole.seen == paused.seen
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, paused.weights, strict=True))
    for field in ("lr", "train_loss", "updates"):
        assert [getattr(one, field) for one in whole.reports] == [getattr(one, field) for one in paused.reports]
    if how.startswith("by"):
        assert len({report.lr for report in whole.reports}) > 1


def test_what_changes_at_a_pause_is_refused_too() -> None:
    config = by_hand("takes turns by epochs")
    outcome = alone(config, trial(config), pausing=True)
    assert len(outcome.reports) == 1
    assert outcome.error is not None
    assert "in one batch and" in outcome.error


def plain(how: str) -> Gan:
    """The module after a plain Trainer's fit of three epochs."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = Gan(how)
    pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, max_epochs=3,
    ).fit(module, datamodule=Data(BATCH))  # fmt: skip
    return module


@pytest.mark.parametrize("how", ["", "by steps", "by epochs", "by plateaus"])
def test_rates_and_steps_are_those_of_a_plain_trainer(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    made: list[Gan] = []
    monkeypatch.setattr(Gan, "on_train_end", lambda self: made.append(self))
    config = by_hand(how)
    assert alone(config, trial(config)).error is None
    expected = plain(how)
    assert made[0].rates == expected.rates
    assert made[0].says == expected.says
    assert [step for step, _ in expected.says] == [0, 2, 4, 6, 8, 10]


def test_a_budget_of_updates_is_not_one_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's max_steps counts the steps of both optimizers."""
    made: list[Gan] = []
    monkeypatch.setattr(Gan, "on_train_end", lambda self: made.append(self))
    config = by_hand(budget={"epochs": None, "updates": 5, "report_every_updates": 2})
    outcome = alone(config, trial(config))
    assert outcome.error is None
    assert [report.updates for report in outcome.reports] == [2, 4, 5]
    assert made[0].length == 5  # for a schedule


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            "accumulates",
            "workload.module: it optimizes by hand, and made no step in a training batch",
        ),
        (
            "takes turns by epochs",
            r"workload.module: it optimizes by hand, and made 1 step \(optimizers 0\) in one batch and "
            r"1 step \(optimizers 1\) in another",
        ),
        (
            "takes turns",
            r"workload.module: it optimizes by hand, and made 1 step \(optimizers 0\) in one batch and "
            r"1 step \(optimizers 1\) in another",
        ),
        ("without Lightning", "workload.module: it optimizes by hand, and made no step in a training batch"),
        (
            "nothing",
            "workload.train_loss: training_step optimizes by hand and returns no loss: return one, or give the name "
            "under which it logs one; it logs nothing",
        ),
        ("logs", "workload.train_loss: training_step optimizes by hand .*; it logs g_loss, other"),
    ],
)
def test_what_is_no_update_or_has_no_loss_is_found(two: LocalGroup, how: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        dry_run(make_plan(by_hand(how)))
    for found in tried_together(two, by_hand(how, 2)):
        assert isinstance(found, str)
        assert re.match(f"ConfigError: {says}", found)


def test_the_first_rates_of_both_optimizers_are_found() -> None:
    found = first_rates(make_plan(by_hand("by steps")), "")
    assert isinstance(found, FirstRates), found
    expected = [[FACTOR * rate * 0.9**update for update in range(3)] for rate in (0.2, 0.4)]
    assert found.rates == tuple(map(pytest.approx, expected))
    assert [text.partition(",")[0] for text in found.optimizers] == ["Adam", "SGD"]
    assert found.schedules == ("ExponentialLR, stepped by the module",) * 2


def test_what_is_right_passes_without_a_note(two: LocalGroup) -> None:
    assert notes_of(by_hand()) == []
    config = by_hand(world_size=2)
    assert tried_together(two, config, parts=2) == [[], []]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hardware": {"accumulation": 2}}, "workload.module: optimizes by hand, and a batch is split into 2 parts"),
        ({"optimizer": {"clip_norm": 1.0}}, "optimizer.clip_norm: the module optimizes by hand: call self.clip_grad"),
        ({"optimizer": {"clip_value": 1.0}}, "optimizer.clip_value: the module optimizes by hand: call self.clip_gr"),
        ({"module": "TwoAtOnce"}, "workload.module: its configure_optimizers gives 2 optimizers; one is needed; "),
    ],
    ids=str,
)
def test_what_lightning_does_not_do_by_hand_is_refused(changes: dict[str, Any], says: str) -> None:
    config = by_hand(**changes)
    error = alone(config, trial(config)).error
    assert error is not None
    assert error.removeprefix("ConfigError: ").startswith(says)
    with pytest.raises(ConfigError, match=f"^{says}"):
        dry_run(make_plan(config))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer": "study"}, "workload.optimizer: must be module: the module optimizes by hand"),
        ({"loss_weight": "tokens"}, "workload.loss_weight: the module optimizes by hand, and weights its losses"),
        (
            {"module": "tests.own_modules.user_modules:Net", "train_loss": "a", "module_args": {}},
            "workload.train_loss: is for a module that optimizes by hand",
        ),
    ],
    ids=str,
)
def test_settings_that_it_would_ignore_are_refused(changes: dict[str, Any], says: str) -> None:
    workload: Any = by_hand().workload
    with pytest.raises(ConfigError, match=f"^{says}"):
        build_module(workload.model_copy(update=changes), 8)


def test_the_first_rates_of_a_check_are_those_of_both_optimizers() -> None:
    found = first_rates(make_plan(by_hand("by steps")), "")
    assert isinstance(found, FirstRates), found
    assert found.optimizers == ("Adam, betas 0.9 0.999", "SGD, momentum 0.9")
    expected = tuple(tuple(FACTOR * rate * 0.9**step for step in range(3)) for rate in (0.2, 0.4))
    assert found.rates == (pytest.approx(expected[0]), pytest.approx(expected[1]))
