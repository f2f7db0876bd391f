"""A user's callbacks, those of the study file and those of the module: which are called, and what a pause keeps."""

from typing import Any

import pytest
import torch

from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from tests.own_modules.on_ranks import Outcome, alone, own, together, tried_together
from tests.own_modules.user_modules import VAL_LABELS

LIGHTNING = "pytorch_lightning.callbacks"
SHRINKING = "tests.own_modules.user_modules:Shrinking"
OFTEN = {"epochs": 3, "report_every_updates": 1}


def same(straight: Outcome, paused: Outcome) -> None:
    """They saw the same samples and figures, and ended with the same weights, to the last bit."""
    assert straight.error is paused.error is None
    assert straight.seen == paused.seen
    assert all(torch.equal(a, b) for a, b in zip(straight.weights, paused.weights, strict=True))
    for name in ("val_loss", "train_loss"):
        assert [getattr(one, name) for one in straight.reports] == [getattr(one, name) for one in paused.reports]


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "Judged", "callbacks": [{"path": SHRINKING, "args": {"by": 0.3}}]},
        {"module": "Shrinks"},
        {"module": "KeepsCount"},
        {"module": "Judged", "callbacks": [{"path": f"{LIGHTNING}:EMAWeightAveraging", "args": {"decay": 0.5}}]},
    ],
    ids=["of the study file", "of the module", "in a buffer", "average of weights"],
)
def test_what_they_keep_survives_a_pause_after_each_report(two: LocalGroup, changes: dict[str, Any]) -> None:
    config, pair = own(budget=OFTEN, **changes), own(world_size=2, budget=OFTEN, **changes)
    same(alone(config), alone(config, pausing=True))
    for straight, paused in zip(together(two, pair), together(two, pair, pausing=True), strict=True):
        same(straight, paused)


def test_those_of_the_study_file_are_called_with_their_arguments(two: LocalGroup) -> None:
    plain = together(two, own(world_size=2, module="Judged", budget=OFTEN))[0]
    gentle, strong = (
        together(two, own(world_size=2, module="Judged", budget=OFTEN, callbacks=[{"path": SHRINKING, "args": args}]))
        for args in ({}, {"by": 0.5})
    )
    found = {float(outcome.weights[0].norm()) for outcome in (plain, gentle[0], strong[0])}
    assert len(found) == 3
    for outcome in gentle:  # each rank counts its own samples, and logged the count after each batch
        samples, counts = outcome.seen[::2], [count for (count,) in outcome.seen[1::2]]
        assert counts == [sum(sum(batch) for batch in samples[: i + 1]) for i in range(len(samples))]


def test_a_metric_may_be_logged_by_a_callback(two: LocalGroup) -> None:
    config = own(world_size=2, module="LogsNothing", callbacks=["tests.own_modules.user_modules:Judge"])
    assert tried_together(two, config) == [[], []]
    for outcome in together(two, config):
        assert outcome.error is None
        assert [report.val_accuracy for report in outcome.reports] == pytest.approx([VAL_LABELS.count(0) / 5] * 2)


def test_averaged_weights_are_those_that_are_judged() -> None:
    """A decay of 0 keeps the last weights alone, and a decay of 1 the first ones."""
    ema = f"{LIGHTNING}:EMAWeightAveraging"
    losses = {
        decay: [
            report.val_loss
            for report in alone(
                own(module="Judged", budget=OFTEN, callbacks=[{"path": ema, "args": {"decay": decay}}])
            ).reports
        ]
        for decay in (0.0, 1.0)
    }
    assert losses[0.0] == [report.val_loss for report in alone(own(module="Judged", budget=OFTEN)).reports]
    assert len(set(losses[1.0])) == 1
    assert len(set(losses[0.0])) == 6


def test_those_that_a_study_replaces_are_left_out_with_a_note(two: LocalGroup) -> None:
    ends, sets = "a study decides when a trial ends", "a study sets batch sizes and rates"
    left_out: list[tuple[str, dict[str, Any], str]] = [
        ("EarlyStopping", {"monitor": "val_acc", "patience": 0, "mode": "max"}, ends),
        ("Timer", {"duration": "00:00:00:00"}, ends),
        ("ModelCheckpoint", {}, "a study keeps checkpoints of its own"),
        ("TQDMProgressBar", {}, "what a trial prints is not shown"),
        ("LearningRateFinder", {}, sets),
        ("BatchSizeFinder", {}, sets),
    ]
    callbacks = [{"path": f"{LIGHTNING}:{name}", "args": args} for name, args, _ in left_out]
    config = own(world_size=2, callbacks=[*callbacks, f"{LIGHTNING}:LearningRateMonitor"], budget={"epochs": 4})
    (notes, _) = tried_together(two, config)
    assert notes == [f"{name} of workload.callbacks is left out: {reason}" for name, _, reason in left_out]
    outcome = together(two, config)[0]
    assert outcome.error is None
    assert len(outcome.reports) == 4


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        ("tests.own_modules.user_modules:Shrinkin", r"has no class Shrinkin \(did you mean Shrinking\?\)$"),
        ("tests.own_modules.user_modules:Net", r":Net is no Callback$"),
        ({"path": SHRINKING, "args": {"bye": 1}}, r":Shrinking does not take bye \(did you mean by\?\)$"),
        (f"{LIGHTNING}:EarlyStopping", r":EarlyStopping requires monitor: give it here$"),
    ],
    ids=["no class", "no callback", "argument", "missing argument"],
)
def test_what_cannot_be_built_is_one_line(callback: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^workload\.callbacks: .*{says}"):
        dry_run(make_plan(own(callbacks=[callback])))
