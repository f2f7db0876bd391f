"""Names of metrics as Lightning gives them: of several validation loaders, and of what is logged by step and epoch."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from study.config.objective import Objective
from study.config.schema import Optimizer, Schedule, StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.planning.tried import FirstRates
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from study.training.preflight.first_rates import first_rates
from tests.conftest import make_config
from tests.own_modules.on_ranks import alone, notes_of, own, spec_of, together, tried_together
from tests.own_modules.user_modules import SAMPLES, VAL_LABELS, Batch, Data, Net, zeros

OTHER_LABELS = (0, 0, 1)
SHARES = [labels.count(0) / len(labels) for labels in (VAL_LABELS, OTHER_LABELS)]


class TwoSets(Data):
    """Validates on two sets."""

    def val_dataloader(self) -> Any:
        y = torch.tensor(OTHER_LABELS)
        return [super().val_dataloader(), DataLoader(TensorDataset(y.float()[:, None], y), 2)]


class OfTwo(Net):
    """One name for both sets; its rate follows what `monitor` names."""

    def __init__(self, monitor: str = "val_acc/dataloader_idx_1") -> None:
        super().__init__()
        self.monitor = monitor

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_acc", zeros(batch), sync_dist=True)
        self.log("forked", zeros(batch), sync_dist=True, on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor}}


def of_two(name: str, world_size: int = 1, budget: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
    config = own(world_size=world_size, budget=budget, val_accuracy=name)
    classes = {"module": f"{__name__}:OfTwo", "data": f"{__name__}:TwoSets"}
    return config.model_copy(update={"workload": config.workload.model_copy(update={**classes, **changes})})


@pytest.mark.parametrize("loader", [0, 1])
def test_the_figure_of_one_validation_loader_can_be_named(two: LocalGroup, loader: int) -> None:
    name = f"val_acc/dataloader_idx_{loader}"
    for outcome in (alone(of_two(name)), *together(two, of_two(name, 2))):
        assert outcome.error is None
        assert [report.val_accuracy for report in outcome.reports] == pytest.approx([SHARES[loader]] * 2)
    assert notes_of(of_two(name)) == []
    assert tried_together(two, of_two(name, 2)) == [[], []]


def test_a_missing_name_lists_those_of_the_loaders() -> None:
    with pytest.raises(ConfigError) as raised:
        dry_run(make_plan(of_two("val_acc")))
    assert str(raised.value).startswith("workload.val_accuracy: the module does not log val_acc; it logs ")
    assert "val_acc/dataloader_idx_0, val_acc/dataloader_idx_1" in str(raised.value)


@pytest.mark.parametrize(
    "monitor", ["val_acc/dataloader_idx_1", "forked/dataloader_idx_0", "forked_epoch/dataloader_idx_0"]
)
@pytest.mark.parametrize("pausing", [False, True])
def test_a_rate_may_follow_any_of_them(monitor: str, pausing: bool) -> None:
    changes = {"optimizer": "module", "module_args": {"monitor": monitor}}
    config = of_two("val_acc/dataloader_idx_0", budget={"epochs": 4}, **changes)
    config = config.model_copy(update={"optimizer": Optimizer(), "schedule": Schedule()})
    outcome = alone(config, spec_of(config), pausing)
    assert outcome.error is None
    # The figure never changes: the rate, a tenth of the module's, is halved after each epoch but the first.
    assert [report.lr for report in outcome.reports] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def plateaus(**budget: Any) -> StudyConfig:
    workload = {
        "module": f"{__name__}:OfTwo", "data": f"{__name__}:TwoSets", "train_samples": SAMPLES,
        "val_accuracy": "val_acc/dataloader_idx_0", "optimizer": "module",
    }  # fmt: skip
    return make_config(workload=workload, batch_sizes=[24], search={"lr": [1.0]}, budget={"epochs": 4, **budget})


def test_a_rate_cannot_follow_what_is_not_there_yet() -> None:
    """Two updates an epoch, and Lightning asks for the metric after each."""
    assert notes_of(plateaus()) == []
    assert notes_of(plateaus(report_every_updates=2)) == []
    config = plateaus(report_every_updates=3)
    says = (
        "budget.report_every_updates: the module's ReduceLROnPlateau follows val_acc/dataloader_idx_1, and steps "
        "before the first validation logs it"
    )
    with pytest.raises(ConfigError, match=f"^{says}"):
        dry_run(make_plan(config))
    error = alone(config, make_plan(config).confirm_trials(make_plan(config).cells[0], 1.0)[0]).error
    assert error is not None
    assert says in error


@pytest.mark.parametrize("batch", [24, 48])
def test_the_first_rates_are_found_before_any_validation(batch: int) -> None:
    found = first_rates(make_plan(plateaus().model_copy(update={"batch_sizes": (batch,)})), "")
    assert isinstance(found, FirstRates), found
    assert found.rates == (pytest.approx((0.1, 0.1, 0.1)),)
    assert found.schedules == ("ReduceLROnPlateau after every epoch, following val_acc/dataloader_idx_1",)


@pytest.mark.parametrize("loader", [0, 1])
def test_the_objective_may_be_the_figure_of_one_loader(two: LocalGroup, loader: int) -> None:
    name = f"forked/dataloader_idx_{loader}"
    config = of_two("unused", 2).model_copy(update={"objective": Objective(metric=name, mode="max")})
    workload = config.workload.model_copy(update={"val_accuracy": "val_accuracy"})
    workload.model_fields_set.discard("val_accuracy")  # as if it had been left out
    for outcome in together(two, config.model_copy(update={"workload": workload})):
        assert outcome.error is None
        assert [report.value(name) for report in outcome.reports] == pytest.approx([SHARES[loader]] * 2)


def test_it_is_tried_where_an_epoch_has_one_update() -> None:
    config = plateaus()
    assert notes_of(config.model_copy(update={"batch_sizes": (48,)})) == []
