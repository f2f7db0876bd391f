"""A trial after its rehearsal is the trial without one; what is compiled is compiled before the clock starts."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from study.config.schema import StudyConfig
from study.planning.trials import TrialSpec, make_plan
from study.training import compile_rehearsal as compiled
from study.training.compile_rehearsal import rehearsal, uncompiled
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
CONVNET = {"kind": "digits", "model": "convnet", "width": 4, "val_samples": 21, "test_samples": 1000}
GROWING = {
    "batch_sizes": [16], "schedule": {"kind": "constant", "warmup_fraction": 0.0}, "budget": {"epochs": 4},
    "growth": {"milestones": [0.5], "factor": 2, "largest_batch": 32}, "search": {"lr": [0.1]},
}  # fmt: skip
Make = Callable[..., StudyConfig]


def first(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[0], 0.1)[0]


def run(config: StudyConfig) -> list[RankReport]:
    rank, spec = Rank(ALONE, config), first(config)
    rank.begin(spec)
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    return reports


def told(reports: list[RankReport]) -> list[tuple[object, ...]]:
    return [
        (r.updates, r.lr, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.test_accuracy) for r in reports
    ]


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile that leaves functions as they are, and what it was asked to compile."""
    asked: list[Any] = []

    def leave(function: Any, dynamic: bool) -> Any:
        asked.append(function)
        return function

    monkeypatch.setattr(compiled.torch, "compile", leave)
    monkeypatch.setattr(compiled, "_forget", lambda: None)
    return asked


@pytest.mark.parametrize(
    "changes",
    [{"workload": CONVNET}, {"workload": CONVNET} | GROWING, {"workload": {"kind": "contrastive", "width": 16}}],
    ids=["convnet", "growing", "contrastive"],
)
def test_a_rehearsal_changes_nothing_of_the_trial(
    config: Make, not_compiled: list[Any], changes: dict[str, Any]
) -> None:
    plain, rehearsed = (config(**changes, hardware={"compile": on}) for on in (False, True))
    random.seed(1)
    np.random.seed(1)
    expected = told(run(plain))
    drawn = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    assert told(run(rehearsed)) == expected
    assert (random.random(), np.random.rand()) == drawn
    parts = 2 if changes["workload"]["kind"] == "contrastive" else 1  # an encoder and a head
    assert len(not_compiled) == 2 * parts  # in the rehearsal and in the trial


def test_a_rehearsal_has_one_update_of_each_batch_and_one_report(config: Make) -> None:
    spec = rehearsal(first(config(**GROWING)))
    assert [(stage.start_update, stage.updates, stage.batch.global_batch) for stage in spec.stages] == [
        (0, 1, 16), (1, 1, 32),
    ]  # fmt: skip
    assert spec.report_at == (2,)
    assert spec.total_updates == 2


@pytest.mark.slow
def test_what_a_trial_runs_is_compiled_when_its_clock_starts(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    changes = {"workload": CONVNET, "probes": {"curvature": True}, "confirm": {"seeds": 1}} | GROWING
    made = config(**changes, hardware={"compile": True})
    rank, spec = Rank(ALONE, made), first(made)
    counters.clear()
    rank.begin(spec)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs >= 4  # two batches to train on, validation, test
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    assert counters["stats"]["unique_graphs"] == graphs
    assert reports[-1].probes.hessian_top > 0  # which compiled code cannot be differentiated for
    # Sums in another order: alike at first, and then each rounding grows.
    expected = run(config(**changes))
    assert [r.train_loss for r in reports[:2]] == pytest.approx([r.train_loss for r in expected[:2]], rel=1e-4)
    # The next trial of the warm group is the same, and so is one that compiles as it goes.
    assert told(run(made)) == told(reports)
    compiled._forget()
    monkeypatch.setattr(Rank, "_rehearse", lambda *args: None)
    assert told(run(made)) == told(reports)


def test_without_compile_probes_need_no_stance() -> None:
    with uncompiled(False) as nothing:
        assert nothing is None


def test_torch_still_has_what_compiling_reaches_into() -> None:
    assert hasattr(torch.compiler, "set_stance")
