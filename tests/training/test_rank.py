"""A rank on its own, without Ray."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from study.config.schema import StudyConfig
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Make = Callable[..., StudyConfig]


def run(rank: Rank, spec: TrialSpec) -> list[RankReport]:
    rank.begin(spec)
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    return reports


def confirm(config: StudyConfig, batch_size: int = 64, lr: float = 0.2) -> TrialSpec:
    plan = make_plan(config)
    return next(s for c in plan.cells if c.batch_size == batch_size for s in plan.confirm_trials(c, lr))


def test_a_trial_learns_and_tells_what_it_did(config: Make) -> None:
    made = config(budget={"epochs": 6})
    reports = run(Rank(ALONE, made), confirm(made, 16))
    assert [r.epochs for r in reports] == [1, 2, 3, 4, 5, 6]
    assert [r.samples for r in reports] == [768 * n for n in range(1, 7)]
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert reports[-1].val_accuracy > 0.7
    assert [r.final for r in reports] == [False] * 5 + [True]
    # Only the end of a confirm trial looks at the test split.
    assert [r.test_accuracy is None for r in reports] == [True] * 5 + [False]
    assert reports[-1].test_accuracy > 0.7
    phases = [sum(r.phases_s.values()) for r in reports]
    assert phases == sorted(phases)


def test_the_same_trial_twice_on_one_rank_is_the_same_to_the_last_bit(config: Make) -> None:
    made = config()
    rank = Rank(ALONE, made)
    first, other, again = run(rank, confirm(made)), run(rank, confirm(made, 16)), run(rank, confirm(made))
    assert [r.train_loss for r in first] == [r.train_loss for r in again] != [r.train_loss for r in other]


def test_a_stopped_trial_makes_way_for_the_next(config: Make) -> None:
    made = config()
    rank, fresh = Rank(ALONE, made), Rank(ALONE, made)
    rank.begin(confirm(made, 16))
    rank.advance()
    rank.halt()
    assert [r.val_loss for r in run(rank, confirm(made))] == [r.val_loss for r in run(fresh, confirm(made))]


def test_reports_every_n_updates_do_not_change_the_training(config: Make) -> None:
    rarely, often = config(), config(budget={"epochs": 3, "report_every_updates": 5})
    a, b = run(Rank(ALONE, rarely), confirm(rarely)), run(Rank(ALONE, often), confirm(often))
    assert [r.updates for r in b] == [5, 10, 15, 20, 25, 30, 35, 36]
    assert a[-1].val_loss == b[-1].val_loss


def test_the_schedule_drives_the_rate(config: Make) -> None:
    made = config(schedule={"kind": "step", "warmup_fraction": 0.0, "step_fractions": [0.5], "step_factor": 0.1})
    reports = run(Rank(ALONE, made), confirm(made, lr=0.2))
    assert [r.lr for r in reports] == pytest.approx([0.2, 0.02, 0.02])


def test_accumulation_equals_the_big_batch(config: Make) -> None:
    made = config()
    curves = []
    for accumulation in (1, 2, 4):
        split = config(hardware={"accumulation": accumulation})
        curves.append([r.train_loss for r in run(Rank(ALONE, made), confirm(split))])
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.parametrize(("model", "accumulation", "norm"), [("mlp", 2, None), ("convnet", 1, 64), ("convnet", 4, 16)])
def test_norm_batch_is_the_micro_batch_of_models_with_batch_norm(
    config: Make, model: str, accumulation: int, norm: int | None
) -> None:
    workload = {"kind": "digits", "model": model, "width": 4}
    made = config(workload=workload, hardware={"accumulation": accumulation})
    rank = Rank(ALONE, made)
    assert rank.begin(confirm(made)) == norm
    rank.halt()


def test_a_rate_that_blows_up_is_diverged(config: Make) -> None:
    made = config(schedule={"kind": "constant", "warmup_fraction": 0.0})
    reports = run(Rank(ALONE, made), confirm(made, 16, lr=1e30))
    assert reports[-1].diverged


def custom(config: Make, **changes: object) -> StudyConfig:
    workload = {
        "kind": "custom",
        "module": "tests.linear:LinearModule",
        "data": "tests.linear:LinearData",
        "train_samples": 64,
        "val_accuracy": "acc",
        "val_loss": "loss",
    } | changes
    return config(workload=workload, batch_sizes=[8])


class Clock:
    """Stands still but for those who sleep."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_samples_per_second_of_a_step_of_known_duration(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("study.training.fit_loop.time", clock)
    monkeypatch.setattr("tests.linear.time", clock)
    step_s, updates = 0.25, 4
    made = custom(config, module_args={"step_s": step_s})
    spec = confirm(made, 8)
    spec = replace(spec, stages=(replace(spec.stages[0], updates=2 * updates),), report_at=(updates, 2 * updates))
    for number, report in enumerate(run(Rank(ALONE, made), spec), 1):
        assert report.samples_per_s == pytest.approx(8 / step_s)
        assert report.phases_s["train"] == pytest.approx(number * updates * step_s)
        assert report.phases_s["validate"] == 0


def test_a_users_own_module_learns_under_our_optimizer(config: Make) -> None:
    made = custom(config)
    reports = run(Rank(ALONE, made), confirm(made, 8, lr=0.5))
    assert reports[-1].train_loss < reports[0].train_loss
    assert reports[-1].val_accuracy > 0.9
    assert reports[0].train_accuracy is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val_accuracy": "accuracy"}, "workload.val_accuracy: the module does not log accuracy; it logs acc, loss"),
        ({"train_samples": 80}, "workload.train_samples: is 80, but the training set has 64"),
        ({"module": "tests.linear:LinearModul"}, r"has no class LinearModul \(did you mean LinearModule\?\)"),
        ({"module": "tests.nothing:X"}, "workload.module: cannot import tests.nothing"),
        ({"data_args": {"size": 3}}, "workload.data: tests.linear:LinearData does not take size"),
        ({"module_args": {"fail_at": 3}}, "the module broke down"),
    ],
)
def test_a_users_mistake_is_told_as_it_is(config: Make, changes: dict[str, object], says: str) -> None:
    made = custom(config, **changes)
    with pytest.raises((ValueError, ArithmeticError), match=says):
        run(Rank(ALONE, made), confirm(made, 8))


def test_threads_are_those_leased(config: Make) -> None:
    Rank(ALONE, config())
    assert torch.get_num_threads() == 1
