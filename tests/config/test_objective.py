"""The objective: presets, directions by name, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from study.config.objective import ACCURACY, PRESETS, Objective, direction
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.measurement import CurvePoint
from tests.conftest import make_config

OWN = {"kind": "custom", "module": "m:M", "data": "m:D", "train_samples": 64}


def config(objective: Any, **changes: Any) -> StudyConfig:
    return make_config(objective=objective, **changes)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_consistent_with_its_name(name: str) -> None:
    objective = Objective.model_validate(name)
    assert direction(objective.metric) == objective.mode


def test_accuracy_is_the_default() -> None:
    assert make_config().objective == ACCURACY == Objective.model_validate({})
    assert (ACCURACY.metric, ACCURACY.mode, ACCURACY.show, ACCURACY.label) == (
        "val_accuracy", "max", "percent", "validation accuracy",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("val_loss", "min"), ("valLoss", "min"), ("val/perplexity", "min"), ("wer", "min"), ("eval_bpb", "min"),
        ("val_f1", "max"), ("val_acc/dataloader_idx_0", "max"), ("mAP", "max"), ("top5", "max"), ("R2", "max"),
        ("reward", None), ("val_loss_accuracy", None),
    ],
)  # fmt: skip
def test_a_name_says_which_direction_is_better_or_nothing(metric: str, mode: str | None) -> None:
    assert direction(metric) == mode


def test_the_mode_follows_from_the_name_where_that_says_it() -> None:
    assert config({"metric": "val_f1"}, workload=OWN).objective.mode == "max"
    assert config({"metric": "val_wer"}, workload=OWN).objective.mode == "min"
    assert config({"metric": "val_loss", "margin": 0.02}).objective.unit == "nats"


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ("acuracy", r"acuracy is no preset; presets: .*\(did you mean accuracy\?\)"),
        ({"metric": "val_loss", "mode": "max"}, "less is better; set mode: min, or insist: true"),
        ({"metric": "val_accuracy", "mode": "min"}, "more is better; set mode: max, or insist: true"),
        ({"metric": "reward"}, "mode is required, max or min: the name reward does not say"),
        ({"metric": "val_f1"}, "objective.metric is val_f1, but workload digits measures val_accuracy and val_loss"),
        ({"metric": "val_loss", "also": ["val_f1"]}, "objective.also goes with an own module"),
        ({"metric": "val_loss", "also": ["val_loss"]}, "also lists a metric twice"),
        ({"metric": "val\nloss"}, "pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(objective: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        config(objective)


def test_a_user_may_insist() -> None:
    assert config({"metric": "val_loss", "mode": "max", "insist": True}).objective.quality(2.0) == 2.0


@given(st.floats(-1e6, 1e6), st.sampled_from(["max", "min"]))
def test_quality_and_value_are_inverse_and_more_quality_is_better(value: float, mode: str) -> None:
    objective = Objective(metric="m", mode=mode)  # type: ignore[arg-type]
    assert objective.value(objective.quality(value)) == value
    better = value + 1 if mode == "max" else value - 1
    assert objective.quality(better) > objective.quality(value)


@pytest.mark.parametrize(
    ("show", "value", "shown"),
    [
        ("percent", 0.25, 25.0), ("number", 0.25, 0.25), ("exp", 0.0, 1.0), ("exp", 1e4, math.inf),
        ("bits", math.log(256), 8.0),
    ],
)  # fmt: skip
def test_values_are_shown_as_asked(show: Any, value: float, shown: float) -> None:
    assert Objective(metric="m", mode="min", show=show).shown(value) == pytest.approx(shown)


def test_targets_are_met_from_their_side() -> None:
    loss = config("loss", budget={"epochs": 3, "target": {"value": 0.5}}).targets[0]
    assert (loss.metric, loss.met_by(0.5), loss.met_by(0.51), loss.met_by(math.nan)) == ("val_loss", True, False, False)
    found = config("loss", budget={"epochs": 3, "target": {"metric": "val_accuracy", "value": 0.9}})
    assert (found.targets[0].met_by(0.91), found.targets[0].met_by(0.89)) == (True, False)
    assert found.quality_target is None  # it is not of the objective
    assert config("loss", report={"target": 0.4}).quality_target == -0.4
    with pytest.raises(ValidationError, match=r"budget\.target\.metric is val_f1, which no report holds"):
        config("loss", budget={"epochs": 3, "target": {"metric": "val_f1", "value": 0.9}})


def test_a_metric_that_was_not_recorded_is_an_error_not_a_number() -> None:
    point = CurvePoint(
        updates=1, samples=1, epochs=1.0, lr=0.1, samples_per_s=1.0, device_seconds=1.0,
        train_loss=1.0, train_accuracy=None, val_loss=0.5, val_accuracy=None, metrics={"val_f1": 0.7},
    )  # fmt: skip
    assert Objective.model_validate({"metric": "val_f1"}).of(point) == 0.7
    assert Objective.model_validate("loss").of(point) == -0.5
    with pytest.raises(ConfigError, match="val_accuracy was not recorded"):
        ACCURACY.of(point)
