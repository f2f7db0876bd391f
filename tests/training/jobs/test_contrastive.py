"""Contrastive trials as a study runs them."""

from collections.abc import Callable

import pytest

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.rank import Rank

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
CONTRASTIVE = {"kind": "contrastive", "width": 16}


def confirm(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[-1], 0.2)[0]


def test_two_ranks_train_as_one_and_both_know_what_the_probe_found(config: Callable[..., StudyConfig]) -> None:
    made, spread = config(workload=CONTRASTIVE), config(workload=CONTRASTIVE, hardware={"world_size": 2})
    spec, split = confirm(made), confirm(spread)
    alone = Rank(ALONE, made)
    alone.begin(spec)
    expected = [alone.advance() for _ in spec.report_at]
    alone.halt()
    with LocalGroup(spread, 2) as group:
        group._all("begin", split)
        told = [group._all("advance") for _ in split.report_at]
        group._all("halt")
    assert [first.train_loss for first, _ in told] == pytest.approx([r.train_loss for r in expected], abs=1e-5)
    assert expected[-1].train_loss < expected[0].train_loss
    for first, second in told:
        assert (first.val_loss, first.val_accuracy) == (second.val_loss, second.val_accuracy)
    # One of 300 samples may fall on the other side of a boundary.
    assert told[-1][0].val_accuracy == pytest.approx(expected[-1].val_accuracy, abs=0.004)
    assert told[-1][0].test_accuracy == pytest.approx(expected[-1].test_accuracy, abs=0.004)


@pytest.mark.parametrize(
    ("hardware", "says"),
    [
        ({"accumulation": 2}, "hardware.accumulation: 2 parts: contrastive learning compares within one"),
        ({"micro_batch": 16}, "hardware.micro_batch: 4 parts"),
    ],
)
def test_a_batch_that_would_be_split_is_refused(
    config: Callable[..., StudyConfig], hardware: dict[str, int], says: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        make_plan(config(workload=CONTRASTIVE, hardware=hardware))
