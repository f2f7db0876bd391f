"""Modules of `lightning` beside those of `pytorch_lightning`: each runs with the classes of its own package."""

import subprocess
import sys
from itertools import chain
from typing import Any

import lightning.fabric
import lightning.pytorch
import lightning_fabric
import pytest
import pytorch_lightning
import torch

from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.optimizers import clips_itself
from study.training.preflight.dry_run import dry_run
from study.training.rank import Rank
from tests.conftest import make_config
from tests.own_modules import lightning_modules, user_modules
from tests.own_modules.on_ranks import ALONE, alone, own, spec_of, together, tried_together, workload
from tests.own_modules.user_modules import SAMPLES, VAL_LABELS

OTHER = {"module": "lightning_modules:Net", "data": "lightning_modules:Data"}
LEFT_OUT = [
    "EarlyStopping of the module is left out: a study decides when a trial ends",
    "ModelCheckpoint of the module is left out: a study keeps checkpoints of its own",
]


def test_a_module_of_lightning_is_tried_and_trained_on_two_ranks(two: LocalGroup) -> None:
    config = own(world_size=2, **OTHER)
    assert tried_together(two, config) == [LEFT_OUT, LEFT_OUT]
    first, second = together(two, config)
    assert first.error is None
    assert [report.val_accuracy for report in first.reports] == pytest.approx([VAL_LABELS.count(0) / 5] * 2)
    assert sorted(chain(*first.seen[:2], *second.seen[:2])) == list(range(SAMPLES))
    assert all(torch.equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))


@pytest.mark.parametrize("optimizer", ["study", "module"])
def test_it_goes_on_after_pauses_to_the_last_bit(two: LocalGroup, optimizer: str) -> None:
    one, pair = (
        make_config(
            workload=workload(**OTHER, optimizer=optimizer), batch_sizes=[24], hardware={"world_size": ranks},
            budget={"epochs": 3, "report_every_updates": 1}, search={"lr": [0.1]},
        )
        for ranks in (1, 2)
    )  # fmt: skip
    for straight, paused in (
        (alone(one), alone(one, pausing=True)),
        *zip(together(two, pair), together(two, pair, pausing=True), strict=True),
    ):
        assert straight.error is paused.error is None
        assert straight.seen == paused.seen
        assert all(torch.equal(a, b) for a, b in zip(straight.weights, paused.weights, strict=True))
        assert [report.train_loss for report in straight.reports] == [report.train_loss for report in paused.reports]


@pytest.mark.parametrize(
    ("changes", "package"),
    [({}, pytorch_lightning), (OTHER, lightning.pytorch)],
    ids=["pytorch_lightning", "lightning"],
)
def test_the_package_of_the_module_is_used_throughout(changes: dict[str, Any], package: Any) -> None:
    config = own(**changes)
    rank = Rank(ALONE, config)
    rank.begin(spec_of(config))
    trial: Any = rank._trial
    rank.halt()
    trainer = trial.trainer
    assert type(trainer) is package.Trainer
    assert isinstance(trainer.strategy, package.strategies.SingleDeviceStrategy)
    assert isinstance(trainer.logger, package.loggers.Logger)
    assert isinstance(trainer.profiler, package.profilers.Profiler)
    assert isinstance(trainer.strategy.checkpoint_io, package.plugins.CheckpointIO)
    assert all(isinstance(callback, package.Callback) for callback in trainer.callbacks)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"module": "lightning_modules:Net"},
            r"^workload\.data: tests\.own_modules\.user_modules:Data is of pytorch_lightning, and .*:Net of lightning,",
        ),
        (
            {"data": "lightning_modules:Data"},
            r"^workload\.data: .*lightning_modules:Data is of lightning, and .*:Net of pyt",
        ),
        (
            {**OTHER, "callbacks": ["pytorch_lightning.callbacks:LearningRateMonitor"]},
            r"^workload\.callbacks: .*:LearningRateMonitor is of pytorch_lightning, and .*:Net of lightning, .*: impo",
        ),
    ],
    ids=["data", "module", "callback"],
)
def test_two_packages_in_one_study_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dry_run(make_plan(own(**changes)))


def test_a_callback_of_the_other_package_in_the_module_is_refused(two: LocalGroup) -> None:
    (error, _) = tried_together(two, own(world_size=2, module="OtherCallback"))
    assert error == (
        "ConfigError: workload.module: its configure_callbacks gives EarlyStopping, which is no Callback of "
        "pytorch_lightning, the package that the module is of"
    )


@pytest.mark.parametrize("module", [user_modules.Net, lightning_modules.Net])
def test_a_module_that_clips_itself_is_known_in_either_package(module: type[Any]) -> None:
    own_clipping = type("Clips", (module,), {"configure_gradient_clipping": lambda *args, **kwargs: None})
    assert [clips_itself(kind()) for kind in (module, own_clipping)] == [False, True]


def test_who_uses_one_package_does_not_load_the_other() -> None:
    code = "import study.training.rank, tests.user_code, sys; assert 'lightning' not in sys.modules, 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", [pytorch_lightning, lightning.pytorch], ids=["pytorch_lightning", "lightning"])
def test_what_is_patched_in_lightning_is_there(package: Any) -> None:
    assert callable(package.loops._TrainingEpochLoop._broadcast_sigterm_tensor)
    fabric = lightning.fabric if package is lightning.pytorch else lightning_fabric
    assert callable(fabric.utilities.registry.entry_points)
