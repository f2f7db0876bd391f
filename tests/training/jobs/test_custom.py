"""A user's own module and data, trained by ranks."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank
from study.training.user_data.stream_sharding import whole_batches
from tests.user_code import SAMPLES, Net, points

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
STREAM = {"data": "tests.user_code:Streamed"}
Make = Callable[..., StudyConfig]


def own(config: Make, batch_sizes: list[int], changes: dict[str, Any] | None = None, **others: Any) -> StudyConfig:
    workload = {
        "module": "tests.user_code:Net", "data": "tests.user_code:Data", "train_samples": SAMPLES,
        "val_accuracy": "val_acc",
    } | (changes or {})  # fmt: skip
    return config(workload=workload, batch_sizes=batch_sizes, **others)


def first(config: StudyConfig, lr: float = 0.5) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[0], lr)[0]


def trained(config: StudyConfig, lr: float = 0.5) -> tuple[list[RankReport], Net]:
    spec, rank = first(config, lr), Rank(ALONE, config)
    rank.begin(spec)
    reports = [rank.advance() for _ in spec.report_at]
    module: Any = rank._trial.job.module
    rank.halt()
    return reports, module


@pytest.mark.parametrize("changes", [{}, STREAM], ids=["map-style", "stream"])
def test_a_torchmetrics_object_is_read_and_a_loss_is_not_needed(config: Make, changes: dict[str, Any]) -> None:
    reports, module = trained(own(config, [8], changes, budget={"epochs": 12}))
    x, y = points()
    right = module.eval()(x).argmax(1) == y
    assert reports[-1].val_accuracy == pytest.approx(
        float(right[y == 0].float().mean() + right[y == 1].float().mean()) / 2
    )
    assert reports[-1].val_accuracy > 0.8
    assert all(report.val_loss is None and not report.diverged for report in reports)
    # All points in each epoch, once.
    epoch = SAMPLES // 8
    for begin in range(0, len(module.seen), epoch):
        assert sorted(chain(*module.seen[begin : begin + epoch])) == list(range(SAMPLES))


def seen_by(group: LocalGroup, spec: TrialSpec) -> list[list[list[int]]]:
    group._all("begin", spec)
    for _ in spec.report_at:
        group._all("advance")
    seen = group.call(seen_here)
    group._all("halt")
    return seen


def seen_here() -> list[list[int]]:
    """In a process of a group: the samples of each batch of its trial."""
    from study.training.distributed import local_group as localgroup

    module: Any = localgroup._rank._trial.job.module
    return module.seen


@pytest.mark.parametrize("accumulation", [1, 2])
def test_ranks_share_a_stream_so_that_an_update_sees_what_one_rank_would(config: Make, accumulation: int) -> None:
    hardware = {"world_size": 2, "accumulation": accumulation}
    two = own(config, [16], STREAM, hardware=hardware, budget={"epochs": 2})
    _, alone = trained(own(config, [16], STREAM, hardware={"accumulation": accumulation}, budget={"epochs": 2}))
    with LocalGroup(two, 2) as group:
        shares = seen_by(group, first(two))
    updates = [set(chain(*alone.seen[i : i + accumulation])) for i in range(0, len(alone.seen), accumulation)]
    for update, expected in enumerate(updates):
        micro = slice(update * accumulation, (update + 1) * accumulation)
        drawn = list(chain(*(batch for share in shares for batch in share[micro])))
        assert len(drawn) == len(set(drawn)) == 16
        # The ranks draw dropout for half as many samples: only the first epoch's order is that of one rank.
        if update < SAMPLES // 16:
            assert set(drawn) == expected


def test_a_stream_that_shares_itself_out_is_refused_on_two_ranks(config: Make) -> None:
    made = own(config, [16], {"data": "tests.user_code:SharesItself"}, hardware={"world_size": 2})
    with LocalGroup(made, 2) as group, pytest.raises(ConfigError, match="yields the ranks different samples"):
        group.run(first(made))


@pytest.mark.parametrize("samples", [60, 57])
def test_a_stream_that_ends_early_is_one_line(config: Make, samples: int) -> None:
    made = own(config, [8], STREAM | {"data_args": {"samples": samples}})
    with pytest.raises(ConfigError, match=r"train_samples: is 64, but the training data end after 56 samples"):
        trained(made)


def test_what_is_left_at_the_end_is_no_batch_and_a_first_one_of_another_size_is_a_mistake() -> None:
    x, _ = points(10)
    assert [len(batch) for batch in whole_batches(x.split(4), 4)] == [4, 4]
    with pytest.raises(ConfigError, match=r"yields a batch of 4 when batch_size is 5; samples are counted by"):
        next(whole_batches(x.split(4), 5))
    # A sequence may come before the batch's dimension, and a batch need not be of tensors.
    assert len(list(whole_batches([(torch.zeros(7, 4), torch.zeros(4))], 4))) == 1
    assert len(list(whole_batches([["a", "b"]], 4))) == 1


THEIRS = {"optimizer": "module"}


def test_their_optimizer_steps_at_our_factor_of_their_rates(config: Make) -> None:
    """Against the same optimizer written with the rates multiplied, and stepped by hand."""
    factor = 3.0
    made = own(config, [16], THEIRS, budget={"epochs": 1, "report_every_updates": 1})
    spec, rank = first(made, factor), Rank(ALONE, made)
    rank.begin(spec)
    module: Any = rank._trial.job.module
    module.layers[2].p = 0.0
    reference = Net()
    reference.layers[2] = torch.nn.Identity()
    reference.load_state_dict(module.state_dict())
    reports = [rank.advance() for _ in spec.report_at]
    rank.halt()
    assert [report.lr for report in reports] == pytest.approx([0.3, 0.15, 0.15, 0.075])

    optimizer = torch.optim.SGD(
        [{"params": reference.layers[0].parameters()}, {"params": reference.layers[3].parameters(), "lr": 0.6}],
        lr=0.3, momentum=0.9,
    )  # fmt: skip
    x, y = points()
    for update, rows in enumerate(module.seen):
        for group, rate in zip(optimizer.param_groups, (0.3, 0.6), strict=True):
            group["lr"] = rate * 0.5 ** (update // 2)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(x[rows]), y[rows]).backward()
        optimizer.step()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value)


def test_their_rates_follow_the_rule_as_factors(config: Make) -> None:
    rule = {"lr": [0.5, 1.0], "lr_rule": "linear", "base_batch": 16}
    made = own(config, [32], THEIRS, search=rule, budget={"epochs": 1})
    reports, _ = trained(made, lr=1.0)
    # Two updates, after which their schedule has halved the rate.
    assert reports[-1].lr == pytest.approx(0.1 * 2 * 0.5)


def test_our_optimizer_is_refused_beside_theirs(config: Make) -> None:
    for key, value in {"optimizer": {"kind": "adamw"}, "schedule": {"kind": "constant"}}.items():
        with pytest.raises(ConfigError, match=f"^{key}: .*workload.optimizer: module"):
            make_plan(own(config, [8], THEIRS, **{key: value}))
