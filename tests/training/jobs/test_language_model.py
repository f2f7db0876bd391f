"""A small GPT as a trial: what it measures, and that it measures it on any split of a batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from study.config.schema import StudyConfig
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank
from study.workloads.data.discovery import with_sample_counts
from study.workloads.data.splits import Part, load_splits
from tests.conftest import make_config

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Make = Callable[..., StudyConfig]
Language = Callable[..., StudyConfig]


@pytest.fixture
def language(tmp_path: Path) -> Language:
    """Builds a study of a GPT of 500 samples and some, all but 6 of them for training; 3 are for validation."""
    path = tmp_path / "text.txt"
    path.write_bytes(b"".join(b"line %d of a text that has some order\n" % (i * i % 97) for i in range(103)))

    def build(**changes: Any) -> StudyConfig:
        workload = {
            "kind": "text", "path": str(path), "context": 8, "width": 16, "depth": 2, "heads": 2,
            "val_fraction": 0.0064, "test_fraction": 0.0064,
        }  # fmt: skip
        usual = {
            "workload": workload, "batch_sizes": [48], "search": {"lr": [0.01]}, "optimizer": {"kind": "adamw"},
            "budget": {"epochs": 2},
        }  # fmt: skip
        return with_sample_counts(make_config(**usual | changes))

    return build


def confirm(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[0], 0.01)[0]


def trained(config: StudyConfig) -> tuple[list[RankReport], nn.Module]:
    """The reports of a trial on one rank, and its network at the end."""
    rank, spec = Rank(ALONE, config), confirm(config)
    rank.begin(spec)
    model = rank._trial.job.module.model  # type: ignore[union-attr]
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    return reports, model


@torch.no_grad()
def judged(model: nn.Module, part: Part) -> tuple[float, float]:
    """Loss in nats and share of right guesses over every byte of a part, one sample and one byte at a time."""
    losses, right = [], 0
    for x, y in zip(part.x, part.y, strict=True):
        for logits, label in zip(model(x.unsqueeze(0))[0], y.tolist(), strict=True):
            losses.append(math.log(sum(math.exp(logit) for logit in logits.tolist())) - logits[label].item())
            right += int(logits.argmax()) == label
    return sum(losses) / len(losses), right / len(losses)


def test_loss_and_accuracy_are_those_of_every_byte(language: Language) -> None:
    config = language()
    reports, model = trained(config)
    splits = load_splits(config.workload)
    assert len(splits.val) == len(splits.test) == 3
    loss, accuracy = judged(model, splits.val)
    assert reports[-1].val_loss == pytest.approx(loss, abs=1e-6)
    assert reports[-1].val_accuracy == accuracy
    test_loss, test_accuracy = judged(model, splits.test)
    assert reports[-1].metrics["test_loss"] == pytest.approx(test_loss, abs=1e-6)
    assert reports[-1].test_accuracy == test_accuracy
    assert reports[-1].val_loss < reports[0].val_loss < math.log(256)
    assert reports[-1].samples == 2 * len(splits.train) // 48 * 48


def test_validation_in_several_batches_is_weighted_by_bytes(
    language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.training.jobs.base.MOST_LABELS", 17)  # two samples of three at once
    config = language()
    reports, model = trained(config)
    assert reports[-1].val_loss == pytest.approx(judged(model, load_splits(config.workload).val)[0], abs=1e-6)


def losses(reports: Sequence[RankReport]) -> list[float | None]:
    return [loss for report in reports for loss in (report.train_loss, report.val_loss)]


def test_a_curve_does_not_depend_on_how_a_batch_is_split(language: Language) -> None:
    expected, _ = trained(language())
    for hardware in ({"accumulation": 2}, {"micro_batch": 8}):
        found, _ = trained(language(hardware=hardware))
        assert losses(found) == pytest.approx(losses(expected), abs=1e-5)
    for hardware in ({"world_size": 2}, {"world_size": 2, "accumulation": 3}):
        config = language(hardware=hardware)
        with LocalGroup(config, 2) as group:
            found = group.run(confirm(config))
        # Of three samples to validate on one rank has two, and the other one.
        assert losses(found) == pytest.approx(losses(expected), abs=1e-5)
        assert [report.val_accuracy for report in found] == [report.val_accuracy for report in expected]


def test_two_ranks_of_which_one_validates_nothing(language: Language) -> None:
    workload = dict(language().workload) | {"val_fraction": 0.001}
    config = language(workload=workload, hardware={"world_size": 2})
    assert len(load_splits(config.workload).val) == 1
    with LocalGroup(config, 2) as group:
        found = group.run(confirm(config))
    expected, _ = trained(language(workload=workload))
    assert losses(found) == pytest.approx(losses(expected), abs=1e-5)


def test_the_same_seed_gives_the_same_curve_and_another_one_another(language: Language) -> None:
    config = language()
    rank, spec = Rank(ALONE, config), confirm(config)
    curves = []
    for seed in ((0, 1), (0, 1), (0, 2)):
        rank.begin(replace(spec, seed=seed))
        curves.append(losses([rank.advance() for _ in spec.report_at]))
        rank.halt()
    assert curves[0] == curves[1] != curves[2]


def test_every_probe_measures_a_language_model(language: Language) -> None:
    probes = dict.fromkeys(("noise_scale", "sharpness", "curvature", "serving"), True)
    reports, model = trained(language(probes=probes))
    found = reports[-1].probes
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.noise_b_simple is not None
    assert found.noise_b_simple > 0
    assert found.hessian_top is not None
    assert found.hessian_top > 0
    assert min(found.sharpness_full.values()) > 0
    assert len(found.serving) == 11
