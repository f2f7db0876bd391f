"""Variants, growing batches, targets and probes on one rank."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.measurement import NO_READINGS
from study.planning.trials import Plan, TrialSpec, make_plan
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.probes.sharpness import EPSILONS
from study.training.probes.trial import NOISE_BATCHES
from study.training.rank import Rank
from study.workloads.models.ghost_norm import GhostNorm2d
from tests.conftest import TINY

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Make = Callable[..., StudyConfig]


def first(plan: Plan, variant: str = "") -> TrialSpec:
    cell = next(cell for cell in plan.cells if cell.variant == variant)
    return plan.confirm_trials(cell, plan.rates(cell)[0])[0]


def run(rank: Rank, spec: TrialSpec) -> list[RankReport]:
    rank.begin(spec)
    reports = [rank.advance()]
    while not reports[-1].final:
        reports.append(rank.advance())
    rank.halt()
    return reports


def test_a_growing_batch_drives_samples_updates_and_rate(config: Make) -> None:
    made = config(
        batch_sizes=[16], search={"lr": [0.1]}, schedule={"kind": "constant", "warmup_fraction": 0.0},
        budget={"epochs": 4}, growth={"milestones": [0.25, 0.5, 0.75], "factor": 2, "largest_batch": 32},
    )  # fmt: skip
    reports = run(Rank(ALONE, made), first(make_plan(made)))
    # 776 digits: 48 updates of 16, then 24 of 32, where the batch stays and the rate is halved instead.
    assert [report.updates for report in reports] == [48, 72, 96, 120]
    assert [report.samples for report in reports] == [768 * n for n in (1, 2, 3, 4)]
    assert [report.epochs for report in reports] == pytest.approx([1, 2, 3, 4])
    # The rate that is set for the update to come.
    assert [report.lr for report in reports] == pytest.approx([0.1, 0.05, 0.025, 0.025])


@pytest.mark.parametrize(
    ("budget", "met"),
    [
        ({"target_val_accuracy": 0.6}, lambda report: report.val_accuracy >= 0.6),
        ({"target_train_loss": 1.0}, lambda report: report.train_loss <= 1.0),
    ],
)
def test_a_target_ends_a_trial_at_the_first_report_that_meets_it(
    config: Make, budget: dict[str, Any], met: Callable[[RankReport], bool]
) -> None:
    made = config(budget={"epochs": 30} | budget, search={"lr": [0.1]})
    reports = run(Rank(ALONE, made), first(make_plan(made)))
    assert [met(report) for report in reports] == [False] * (len(reports) - 1) + [True]
    assert 1 < len(reports) < 30
    assert reports[-1].test_accuracy is not None


def test_device_seconds_end_a_trial(config: Make) -> None:
    made = config(budget={"epochs": 10_000, "device_seconds": 0.3}, search={"lr": [0.1]})
    reports = run(Rank(ALONE, made), first(make_plan(made)))
    worked = [report.phases_s["train"] + report.phases_s["validate"] for report in reports]
    assert reports[-1].updates < 10_000 * 48
    assert all(seconds < 0.3 for seconds in worked[:-1])


def test_ghost_norm_takes_the_place_of_batch_norm(config: Make) -> None:
    made = config(
        workload=TINY["workload"] | {"model": "convnet", "width": 4},
        variants={"plain": {}, "ghost": {"ghost_batch": 8}},
    )
    plan, rank = make_plan(made), Rank(ALONE, made)
    assert rank.begin(first(plan, "plain")) == 16
    plain = rank.advance()
    rank.halt()
    assert rank.begin(first(plan, "ghost")) == 8
    assert any(isinstance(module, GhostNorm2d) for module in rank._trial.job.module.modules())
    assert rank.advance().train_loss != plain.train_loss
    rank.halt()
    with pytest.raises(ConfigError, match=r"ghost_batch: 12 does not divide the micro batch, 16"):
        make_plan(config(ghost_batch=12))


def test_variants_are_compared_on_the_same_seeds(config: Make) -> None:
    made = config(
        variants={"a": {"search": {"lr": [0.1], "seeds": 1}}, "b": {"search": {"lr": [0.1, 0.2], "seeds": 3}}}
    )
    plan = make_plan(made)
    assert {spec.cell.variant for spec in plan.search} == {"b"}
    assert first(plan, "a").seed == first(plan, "b").seed == (0, 3)
    assert len(set(plan.cells)) == 4


def test_probes_are_measured_and_change_nothing(config: Make) -> None:
    probes = {"noise_scale": True, "sharpness": True, "curvature": True, "serving": True}
    plain, probed = config(search={"lr": [0.1]}), config(search={"lr": [0.1]}, probes=probes)
    spec = first(make_plan(plain))
    rank = Rank(ALONE, plain)
    expected = run(rank, spec)
    reports = run(Rank(ALONE, probed), spec)
    assert [r.val_loss for r in reports] == [r.val_loss for r in expected]
    assert [r.train_loss for r in reports] == [r.train_loss for r in expected]
    assert all(report.probes.noise_b_simple > 0 for report in reports)
    last = reports[-1].probes
    assert last.hessian_top > 0
    assert 0 < last.sharpness_full[5e-4] < last.sharpness_full[1e-3]
    assert last.sharpness_subspace[1e-3] > 0
    assert tuple(last.sharpness_full) == tuple(last.sharpness_subspace) == EPSILONS
    alone, some, many = (last.serving_at(size) for size in (1, 64, 1024))
    assert some.p99_ms >= some.p50_ms > 0
    assert many.predictions_per_s > alone.predictions_per_s
    assert reports[-1].phases_s["probe"] > 0
    assert expected[-1].phases_s["probe"] < 0.05
    assert last.parameters == sum(p.numel() for p in rank_parameters(plain))


def rank_parameters(config: StudyConfig) -> list[torch.nn.Parameter]:
    """Of the network that a rank trains."""
    rank = Rank(ALONE, config)
    rank.begin(first(make_plan(config)))
    parameters = list(rank._trial.job.module.parameters())
    rank.halt()
    return parameters


def test_search_trials_are_not_probed(config: Make) -> None:
    made = config(probes={"noise_scale": True})
    plan = make_plan(made)
    assert all(report.probes == NO_READINGS for report in run(Rank(ALONE, made), plan.search[0]))


@pytest.mark.parametrize("probe", ["noise_scale", "sharpness", "curvature", "serving"])
def test_who_measures_at_the_end_of_a_trial_is_not_taken_for_stuck(config: Make, probe: str) -> None:
    def done(phase: str, **probes: bool) -> int:
        plan = make_plan(config(budget={"epochs": 1}, probes=probes))
        spec = plan.search[0] if phase == "search" else plan.confirm_trials(plan.cells[0], 0.1)[0]
        rank = Rank(ALONE, plan.config)
        rank.begin(spec)
        assert rank.advance().final
        progress = rank.progress
        rank.halt()
        return progress

    assert done("confirm") == done("search") + 1  # one batch of the test split
    assert done("confirm", **{probe: True}) >= done("confirm") + NOISE_BATCHES


def test_probes_of_a_users_module_are_refused(config: Make) -> None:
    custom = {
        "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData", "train_samples": 64,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"probes: are for the classifiers of the package"):
        make_plan(config(workload=custom, batch_sizes=[8], probes={"sharpness": True}))


def test_a_growing_batch_is_refused_for_a_users_data_which_has_one_batch_size(config: Make) -> None:
    custom = {
        "kind": "custom",
        "module": "tests.linear:LinearModule",
        "data": "tests.linear:LinearData",
        "train_samples": 64,
    }
    growing = {"growth": {"milestones": [0.5], "largest_batch": 16}, "schedule": {"kind": "constant"}}
    with pytest.raises(ConfigError, match=r"growth: is for the workloads of the package"):
        make_plan(config(workload=custom, batch_sizes=[8], budget={"epochs": 4}, **growing))
