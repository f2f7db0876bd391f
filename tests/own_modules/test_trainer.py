"""What a module asks its Trainer: against a plain Trainer of the same length, step by step."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import TrialSpec, make_plan
from study.planning.tried import FirstRates
from study.training.distributed import local_group as localgroup
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.preflight.first_rates import first_rates
from study.training.rank import Rank
from study.training.snapshot import join_parts
from tests.conftest import make_config

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
SAMPLES, BATCH, EPOCHS = 24, 8, 6


class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        x = torch.linspace(-1, 1, SAMPLES)[:, None]
        self.samples = TensorDataset(x, (x[:, 0] > 0).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, 8)


class Net(pl.LightningModule):
    """Notes the rate of every micro batch, and what the Trainer says of itself; its metrics never get better."""

    rates: list[float]
    says: list[dict[str, Any]]

    def __init__(self, schedule: str) -> None:
        super().__init__()
        self.schedule = schedule
        self.layer = nn.Linear(1, 2)
        self.rates, self.says = [], []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        trainer = self.trainer
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        names = (
            "max_epochs", "max_steps", "estimated_stepping_batches", "num_training_batches", "accumulate_grad_batches",
            "world_size", "global_step", "current_epoch",
        )  # fmt: skip
        self.says.append({name: getattr(trainer, name) for name in names})
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log_dict({"val_acc": torch.tensor(0.5), "val_loss": torch.tensor(1.0)}, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        self.log("train_figure", torch.tensor(1.0), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        trainer = self.trainer
        plateau = {"scheduler": lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5), "strict": False}
        make: dict[str, Callable[[], dict[str, Any]]] = {
            "cosine": lambda: {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, trainer.max_epochs or 0)},
            "cosine over updates": lambda: {
                "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, trainer.max_steps), "interval": "step",
            },
            "one cycle": lambda: {
                "scheduler": lr_scheduler.OneCycleLR(optimizer, 1.0, int(trainer.estimated_stepping_batches)),
                "interval": "step",
            },
            "one cycle by loader": lambda: {
                "scheduler": lr_scheduler.OneCycleLR(
                    optimizer, 1.0, len(trainer.datamodule.train_dataloader()) * trainer.max_epochs  # type: ignore
                ),
                "interval": "step",
            },
            "every second epoch": lambda: {"scheduler": lr_scheduler.StepLR(optimizer, 1, 0.5), "frequency": 2},
            "plateau": lambda: {**plateau, "monitor": "val_loss"},
            "plateau every second epoch": lambda: {**plateau, "monitor": "val_loss", "frequency": 2},
            "plateau by steps": lambda: {**plateau, "monitor": "val_loss", "interval": "step"},
            "plateau of training": lambda: {**plateau, "monitor": "train_figure"},
        }  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": make[self.schedule]()}


def plain(schedule: str, accumulation: int, every: int | None, **length: int) -> Net:
    """The module after a plain Trainer's fit; it validates every so many updates, or each epoch."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = Net(schedule)
    often: dict[str, Any] = {}
    if every:
        often = {"val_check_interval": every * accumulation, "check_val_every_n_epoch": None}
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, accumulate_grad_batches=accumulation, **often, **length,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data(BATCH // accumulation))
    return module


def own(named: str, lr: float = 1.0, optimizer: str = "module", **others: Any) -> StudyConfig:
    workload = {
        "module": f"{__name__}:Net", "data": f"{__name__}:Data", "train_samples": SAMPLES, "val_accuracy": "val_acc",
        "optimizer": optimizer, "module_args": {"schedule": named},
    }  # fmt: skip
    return make_config(workload=workload, batch_sizes=[BATCH], search={"lr": [lr]}, **others)


def spec_of(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[0], 1.0)[0]


def studied(config: StudyConfig, pausing: bool) -> tuple[list[float], list[dict[str, Any]]]:
    """Rates and sayings of a trial; if it pauses, a new rank goes on from a snapshot after each report."""
    spec = spec_of(config)
    rates: list[float] = []
    says: list[dict[str, Any]] = []
    snapshot: bytes | None = None
    for updates in spec.report_at if pausing else [spec.total_updates]:
        rank = Rank(ALONE, config)
        rank.begin(spec, snapshot)
        module: Any = rank._trial.job.module  # type: ignore[union-attr]
        while rank.advance().updates < updates:
            continue
        snapshot = join_parts([rank.snapshot()])
        rank.halt()
        rates += module.rates
        says += module.says
    return rates, says


SCHEDULES = [
    "cosine", "one cycle", "one cycle by loader", "every second epoch", "plateau", "plateau every second epoch",
    "plateau by steps",
]  # fmt: skip


@pytest.mark.parametrize("pausing", [False, True], ids=["in one go", "pausing"])
@pytest.mark.parametrize("every", [None, 2], ids=["each epoch", "every 2 updates"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_and_sayings_are_those_of_a_plain_trainer(
    schedule: str, accumulation: int, every: int | None, pausing: bool
) -> None:
    expected = plain(schedule, accumulation, every, max_epochs=EPOCHS)
    budget = {"epochs": EPOCHS, "report_every_updates": every}
    rates, says = studied(own(schedule, budget=budget, hardware={"accumulation": accumulation}), pausing)
    assert rates == expected.rates
    assert len(set(rates)) > 1  # it is a schedule
    assert says == expected.says


@pytest.mark.parametrize("pausing", [False, True], ids=["in one go", "pausing"])
@pytest.mark.parametrize("schedule", ["cosine", "cosine over updates", "one cycle"])
def test_under_a_budget_of_updates(schedule: str, pausing: bool) -> None:
    updates = 10  # three epochs and a part of the fourth
    expected = plain(schedule, 1, 2, max_epochs=4, max_steps=updates)
    config = own(schedule, budget={"epochs": None, "updates": updates, "report_every_updates": 2})
    rates, says = studied(config, pausing)
    assert rates == expected.rates
    assert says == expected.says
    assert says[0]["estimated_stepping_batches"] == says[0]["max_steps"] == updates


def test_under_regime_adaptation() -> None:
    """As many updates as a batch of 4 has in two epochs, 12, which take a batch of 8 four epochs."""
    config = own("cosine", budget={"epochs": 2, "regime_batch": 4})
    rates, says = studied(config, pausing=True)
    expected = plain("cosine", 1, None, max_epochs=4)
    assert rates == expected.rates
    assert says == expected.says


def test_on_two_ranks() -> None:
    config = own("one cycle", budget={"epochs": EPOCHS}, hardware={"world_size": 2})
    expected = plain("one cycle", 1, None, max_epochs=EPOCHS)
    with LocalGroup(config, 2) as group:
        group._all("begin", spec_of(config))
        for _ in range(EPOCHS):
            group._all("advance")
        found = group.call(_noted_here)
        group._all("halt")
    for rates, says in found:
        assert rates == expected.rates
        assert says == [{**one, "world_size": 2} for one in expected.says]


def _noted_here() -> tuple[list[float], list[dict[str, Any]]]:
    module: Any = localgroup._rank._trial.job.module  # type: ignore[union-attr]
    return module.rates, module.says


def test_a_plateau_of_a_training_metric_is_refused() -> None:
    """A trial that goes on from a pause has no figures of the epoch it was in."""
    with pytest.raises(
        ConfigError, match=r"^workload\.module: its ReduceLROnPlateau follows train_figure, which is not"
    ):
        studied(own("plateau of training", budget={"epochs": 2}), pausing=False)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_first_rates_of_a_check_are_those_of_a_plain_trainer(schedule: str) -> None:
    plan = make_plan(own(schedule, budget={"epochs": EPOCHS}))
    found = first_rates(plan, "")
    assert isinstance(found, FirstRates), found
    assert found.rates == (tuple(plain(schedule, 1, None, max_epochs=EPOCHS).rates[:3]),)
    assert found.optimizers == ("SGD, momentum 0.95" if schedule.startswith("one cycle") else "SGD",)
    assert found.batch_size == BATCH
    (moved,) = found.schedules
    epochs = "2 epochs" if "second" in schedule else "epoch"
    unit = "update" if schedule.startswith("one cycle") or schedule == "plateau by steps" else epochs
    assert f"after every {unit}" in moved
    assert moved.endswith("following val_loss") == schedule.startswith("plateau")


def test_the_first_rates_of_the_studys_own_schedule() -> None:
    """A warm-up over 9 of 18 updates."""
    config = own("cosine", 0.9, "study", budget={"epochs": EPOCHS}, schedule={"warmup_fraction": 0.5})
    found = first_rates(make_plan(config), "")
    assert isinstance(found, FirstRates), found
    assert found.rates == (pytest.approx((0.1, 0.2, 0.3)),)
    assert found.optimizers == ("SGD, momentum 0.9",)


def test_the_first_rates_on_two_ranks_and_of_factors() -> None:
    config = own("one cycle", 0.5, budget={"epochs": EPOCHS}, hardware={"world_size": 2})
    found = first_rates(make_plan(config), "")
    assert isinstance(found, FirstRates), found
    expected = [0.5 * rate for rate in plain("one cycle", 1, None, max_epochs=EPOCHS).rates[:3]]
    assert found.rates == (pytest.approx(tuple(expected)),)
    assert found.lr == 0.5


def test_rates_that_cannot_be_known_say_why() -> None:
    found = first_rates(make_plan(own("no such schedule", budget={"epochs": EPOCHS})), "")
    assert isinstance(found, str)
    assert found.startswith("KeyError: 'no such schedule' (test_trainer.py:")
