"""Validation figures and training losses of own modules, against the values worked out by hand."""

import math
import re
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from study.config.schema import StudyConfig
from study.training.distributed.local_group import LocalGroup
from tests.own_modules.on_ranks import alone, own, spec_of, together
from tests.own_modules.user_modules import SAMPLES, VAL_LABELS, Net

SHARE = VAL_LABELS.count(0) / len(VAL_LABELS)  # 0.6: padded to six samples it would be 3/6 or 4/6


def refused(group: LocalGroup, **changes: Any) -> str:
    """The one line with which both ranks refuse."""
    errors = {outcome.error for outcome in together(group, own(world_size=2, **changes))}
    (error,) = errors
    assert error is not None
    return error


@pytest.mark.parametrize("module", ["Net", "Reduced", "Gathered", "GatheredOnRankZero", "MeanOfRanks"])
def test_what_is_reduced_is_the_figure_of_the_whole_set_on_one_rank_and_on_two(two: LocalGroup, module: str) -> None:
    config = own(world_size=2, module=module)
    for outcome in (alone(own(module=module)), *together(two, config)):
        assert outcome.error is None
        assert [report.val_accuracy for report in outcome.reports] == pytest.approx([SHARE, SHARE])


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("NotReduced", r"workload.val_accuracy: val_acc differs between the ranks \(0.3333 to 1\): .*sync_dist=True"),
        ("Forwarded", "workload.val_accuracy: val_acc differs between the ranks"),
        ("LossNotReduced", "workload.val_loss: val_loss differs between the ranks"),
        ("PartOfRankZero", "workload.val_accuracy: val_acc is logged on rank 0 alone, and nothing was gathered"),
        ("NanOnRankOne", r"workload.val_accuracy: val_acc differs between the ranks \(0.5 to nan\)"),
        ("OnRankOne", "workload.val_accuracy: val_acc is logged on some ranks, and not on rank 0"),
    ],
)
def test_the_figure_of_a_part_is_refused(two: LocalGroup, module: str, says: str) -> None:
    assert re.match(f"ConfigError: {says}", refused(two, module=module))


@pytest.mark.parametrize(
    ("module", "reports", "says"),
    [
        ("EverySecond", 1, "the module logged val_acc in the validation before, and not in this one"),
        ("LastBatch", 0, "the module does not log val_acc; it logs nothing"),
        ("Percent", 0, "val_acc is 60, and an accuracy is a share from 0 to 1; log it divided by 100"),
        ("OfTraining", 0, "the module does not log acc; it logs val_acc"),
    ],
)
def test_a_figure_of_something_else_is_refused(module: str, reports: int, says: str) -> None:
    changes = {"val_accuracy": "acc"} if module == "OfTraining" else {}
    outcome = alone(own(module=module, **changes))
    assert len(outcome.reports) == reports
    assert outcome.error is not None
    assert f"ConfigError: workload.val_accuracy: {says}" in outcome.error


def test_a_loss_that_is_not_logged_any_more_is_refused() -> None:
    outcome = alone(own(module="LossAtFirst"))
    assert len(outcome.reports) == 1
    assert outcome.error is not None
    assert "workload.val_loss: the module logged val_loss in the validation before, and not in this" in outcome.error


@pytest.mark.parametrize(
    "name", ["val_loss", "val/loss_epoch", "valLoss", "eval_nll", "val_error_rate", "val-PPL", "test_rmse", "val_WER"]
)
def test_a_figure_of_which_less_is_better_is_no_accuracy(name: str) -> None:
    with pytest.raises(ValueError, match="sounds like a figure of which less is better"):
        own(val_accuracy=name)


@pytest.mark.parametrize("name", ["val_acc", "val/top5", "valF1", "super_accuracy", "per_class_acc", "AUROC"])
def test_other_names_are_taken(name: str) -> None:
    assert own(val_accuracy=name).workload.val_accuracy == name  # type: ignore[union-attr]


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_training_loss_is_that_of_the_module_however_a_batch_is_split(two: LocalGroup, accumulation: int) -> None:
    config, pair = own(module="Constant"), own(world_size=2, module="Constant")
    outcomes = [alone(config, spec_of(config, accumulation)), *together(two, pair, spec_of(pair, accumulation))]
    for outcome in outcomes:
        assert [report.train_loss for report in outcome.reports] == pytest.approx([math.log(10)] * 2, rel=1e-6)


def test_a_training_loss_of_low_precision_is_summed_in_high() -> None:
    outcome = alone(own(module="Half", budget={"epochs": 200, "report_every_updates": 400}))
    assert outcome.reports[-1].train_loss == 2.25


@pytest.mark.parametrize(("target", "reports"), [(2.31, 1), (2.3, 2)])
def test_a_target_of_the_training_loss_ends_a_trial_where_it_is_met(target: float, reports: int) -> None:
    config = own(module="Constant", budget={"epochs": 2, "target_train_loss": target})
    assert len(alone(config, spec_of(config, accumulation=4)).reports) == reports


def test_a_step_that_returns_none_trains_nothing_and_is_counted(two: LocalGroup) -> None:
    config = own(module="Skipping", budget={"epochs": 4})
    outcome = alone(config)
    assert outcome.error is None
    assert [report.skipped_batches for report in outcome.reports] == [1] * 4
    pair = together(two, own(world_size=2, module="Skipping", budget={"epochs": 4}))
    for one in pair:
        assert one.error is None
        assert [report.skipped_batches for report in one.reports] == [1] * 4  # of rank 0
    assert all(torch.equal(a, b) for a, b in zip(pair[0].weights, pair[1].weights, strict=True))


def by_hand(start: list[torch.Tensor], updates: list[list[int]]) -> list[torch.Tensor]:
    """SGD at 0.1 on the mean over all tokens of each update's samples."""
    net = Net()
    for weight, value in zip(net.parameters(), start, strict=True):
        weight.data.copy_(value)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for samples in updates:
        x = torch.tensor(samples).float()[:, None]
        each = cross_entropy(net.layer(x / SAMPLES), torch.tensor(samples) % 2, reduction="none")
        optimizer.zero_grad()
        ((x[:, 0] + 1) * each).sum().div((x[:, 0] + 1).sum()).backward()
        optimizer.step()
    return [weight.detach() for weight in net.parameters()]


def updates_of(seen: list[list[list[int]]], accumulation: int) -> list[list[int]]:
    """The samples of each update, from the micro batches of each rank."""
    count = len(seen[0]) // accumulation
    micro = [slice(update * accumulation, (update + 1) * accumulation) for update in range(count)]
    return [[sample for rank in seen for batch in rank[part] for sample in batch] for part in micro]


def start_of(config: StudyConfig) -> list[torch.Tensor]:
    from study.workloads.data.batching import derived_seed

    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(*spec_of(config).seed))
        return [weight.detach().clone() for weight in Net().parameters()]


@pytest.mark.parametrize("accumulation", [1, 12])
def test_weighted_losses_make_an_update_the_mean_over_the_global_batch(two: LocalGroup, accumulation: int) -> None:
    weighted = {"module": "Weighted", "loss_weight": "tokens", "budget": {"epochs": 4}}
    one, pair = own(**weighted), own(world_size=2, **weighted)
    found = alone(one, spec_of(one, accumulation))
    ranks = together(two, pair, spec_of(pair, accumulation))
    for outcomes, parts in (([found], accumulation), (ranks, accumulation)):
        assert all(outcome.error is None for outcome in outcomes), outcomes[0].error
        right = by_hand(start_of(one), updates_of([outcome.seen for outcome in outcomes], parts))
        for outcome in outcomes:
            for weight, expected in zip(outcome.weights, right, strict=True):
                torch.testing.assert_close(weight, expected)
    # Without the weights it is not.
    plain = own(module="Weighted", budget={"epochs": 4})
    other = alone(plain, spec_of(plain, accumulation=12))
    right = by_hand(start_of(plain), updates_of([other.seen], 12))
    assert not torch.allclose(other.weights[0], right[0], rtol=1e-4)


@pytest.mark.parametrize("accumulation", [1, 12])
def test_a_micro_batch_that_counts_nothing_is_left_out(two: LocalGroup, accumulation: int) -> None:
    """Some have no token at all; their mean is nan."""
    weighted = {"module": "NoTokens", "loss_weight": "tokens", "budget": {"epochs": 4}}
    one, pair = own(**weighted), own(world_size=2, **weighted)
    expected = alone(one)
    assert expected.error is None
    for outcome in (alone(one, spec_of(one, accumulation)), *together(two, pair, spec_of(pair, accumulation))):
        assert outcome.error is None
        for weight, value in zip(outcome.weights, expected.weights, strict=True):
            torch.testing.assert_close(weight, value)
            assert weight.isfinite().all()


def test_a_weight_that_is_not_returned_is_refused() -> None:
    outcome = alone(own(module="Net", loss_weight="tokens"))
    assert outcome.error == (
        "ConfigError: workload.loss_weight: its training_step neither returns a dict with tokens nor logs tokens"
    )


@pytest.mark.parametrize(("samples", "batch"), [(5, 2), (5, 1), (5, 9), (7, 3), (2, 1)])
def test_validation_is_not_padded(two: LocalGroup, samples: int, batch: int) -> None:
    data_args = {"val_samples": samples, "val_batch": batch}
    labels = (list(VAL_LABELS) * 2)[:samples]
    for outcome in (alone(own(data_args=data_args)), *together(two, own(world_size=2, data_args=data_args))):
        assert outcome.error is None
        assert outcome.reports[-1].val_accuracy == pytest.approx(labels.count(0) / samples)


def test_fewer_samples_than_ranks_are_refused(two: LocalGroup) -> None:
    assert refused(two, data_args={"val_samples": 1}) == (
        "ConfigError: workload.data: its validation set has 1 samples for 2 ranks, fewer than one each"
    )


@pytest.mark.parametrize(("data", "what"), [("Shards", "validation"), ("ShardsTraining", "training")])
def test_data_that_are_shared_out_already_are_refused(two: LocalGroup, data: str, what: str) -> None:
    assert f"workload.data: its {what} set is not the same on all ranks" in refused(two, data=data)
