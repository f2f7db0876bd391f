"""Own modules that are judged by something else than an accuracy, on one rank and on two."""

from __future__ import annotations

import math
from typing import Any

import pytest

from study.config.schema import StudyConfig
from study.training.distributed.local_group import LocalGroup
from tests.own_modules.on_ranks import alone, own, together

ONES = 0.4  # share of the validation set


def judged(module: str, objective: Any, world_size: int = 1, budget: dict[str, Any] | None = None) -> StudyConfig:
    plain = own(world_size, module=f"objective_modules:{module}", val_accuracy="val_accuracy").model_dump(mode="json")
    judged_by = {"objective": objective, "budget": budget or plain["budget"]}
    return StudyConfig.model_validate(plain | judged_by, strict=False)


def test_a_module_that_logs_its_loss_alone_is_judged_by_it(two: LocalGroup) -> None:
    for outcome in (alone(judged("LossOnly", "loss")), *together(two, judged("LossOnly", "loss", 2))):
        assert outcome.error is None
        for report in outcome.reports:
            assert report.val_loss == pytest.approx(ONES)
            assert report.val_accuracy is None
            assert judged("LossOnly", "loss").objective.of(report) == pytest.approx(-ONES)


def test_metrics_of_any_name_are_recorded_as_logged(two: LocalGroup) -> None:
    objective = {"metric": "val/f1", "also": ["val/ppl", "val/auc"]}
    for outcome in (alone(judged("Scores", objective)), *together(two, judged("Scores", objective, 2))):
        assert outcome.error is None
        first, last = outcome.reports
        assert first.metrics.keys() == {"val/f1", "val/ppl"}  # val/auc was not a number
        assert last.metrics == pytest.approx({"val/f1": ONES, "val/ppl": last.metrics["val/ppl"], "val/auc": ONES})
        assert (first.val_loss, first.val_accuracy, first.diverged) == (None, None, False)


def test_pausing_changes_nothing() -> None:
    config = judged("Scores", {"metric": "val/f1"}, budget={"epochs": 3})
    whole, paused = alone(config), alone(config, pausing=True)
    assert [report.metrics for report in paused.reports] == [report.metrics for report in whole.reports]
    assert all((a == b).all() for a, b in zip(paused.weights, whole.weights, strict=True))


def test_an_objective_that_is_no_number_has_diverged() -> None:
    (report,) = alone(judged("Undefined", {"metric": "val/f1"})).reports[:1]
    assert math.isnan(report.metrics["val/f1"])
    assert report.non_finite == "val/f1 is nan"


def test_a_target_of_the_objective_ends_a_trial() -> None:
    config = judged("Scores", {"metric": "val/ppl"}, budget={"epochs": 5, "target": {"value": 2.0}})
    assert [report.final for report in alone(config).reports] == [True]


@pytest.mark.parametrize(
    ("module", "objective", "says"),
    [
        ("LossOnly", "accuracy", "workload.val_accuracy: the module does not log val_accuracy; it logs val_loss; "
         "objective.metric names the metric to judge by"),
        ("LossOnly", {"metric": "val_los", "mode": "min"}, "objective.metric: the module does not log val_los; it logs "
         "val_loss (did you mean val_loss?)"),
        ("Scores", {"metric": "val/f1", "also": ["val/mcc"]}, "objective.also: the module does not log val/mcc"),
        ("Scores", {"metric": "val/ppl", "mode": "min", "show": "percent"}, "objective.metric: val/ppl is 1."),
    ],
)  # fmt: skip
def test_what_is_not_logged_is_refused_with_what_is(module: str, objective: Any, says: str) -> None:
    error = alone(judged(module, objective)).error
    assert error is not None
    assert says in error
