"""Batches of texts and graphs: samples are counted right, and losses are means over all tokens, against plain loops."""

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from study.workloads.data.batching import derived_seed
from study.workloads.data.discovery import with_sample_counts
from study.workloads.user_code.loaders import fingerprint, sizes
from tests.conftest import make_config
from tests.own_modules.batch_shapes import SAMPLES, VAL_SAMPLES, Graphs, Set, TextNet, length, padded, united
from tests.own_modules.on_ranks import BATCH, Outcome, alone, own, spec_of, together, tried_together


def shaped(module: str, data: str = "Texts", **others: Any) -> dict[str, Any]:
    return {"module": f"batch_shapes:{module}", "data": f"batch_shapes:{data}", **others}


def notes(group: LocalGroup, **changes: Any) -> list[str] | str:
    return tried_together(group, own(world_size=2, **changes), parts=4)[0]


def encoded(numbers: Any) -> Any:
    return padded([Set(SAMPLES)[number] for number in numbers])


# Samples.


@pytest.mark.parametrize(
    ("module", "data"),
    [
        ("TextNet", "Texts"), ("TextNet", "Bucketed"), ("TextNet", "Streamed"), ("TextNet", "ValidatesByTokens"),
        ("PackedNet", "Packed"), ("PackedNet", "PackedBuckets"), ("PackedNet", "PackedStream"),
        ("GraphNetOfGraphs", "GraphData"), ("GraphNetOfGraphs", "GraphStream"),
    ],
)  # fmt: skip
def test_each_sample_is_trained_on_once_an_epoch_in_micro_batches_of_its_size(
    two: LocalGroup, module: str, data: str
) -> None:
    for outcomes in ([alone(own(**shaped(module, data)))], together(two, own(world_size=2, **shaped(module, data)))):
        assert all(outcome.error is None for outcome in outcomes), outcomes[0].error
        micro = BATCH // len(outcomes)
        assert all([len(batch) for batch in outcome.seen] == [micro] * 4 for outcome in outcomes)
        first_epoch = sorted(chain(*(batch for outcome in outcomes for batch in outcome.seen[:2])))
        assert first_epoch == list(range(SAMPLES))


def test_batches_of_so_many_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.data: its batch sampler yields 17 samples in batch 0 .* 24"):
        dry_run(make_plan(own(**shaped("TextNet", "OfTokens"))))


def test_a_batch_sampler_that_draws_samples_again_is_noted_and_can_be_used_whole(two: LocalGroup) -> None:
    config = own(**shaped("TextNet", "Oversampled", loss_weight="tokens"))
    (note,) = dry_run(make_plan(config))[0].notes
    assert note.startswith("its batch sampler yields more batches than an epoch takes")
    assert "(48)" in note
    whole = shaped("TextNet", "Oversampled", loss_weight="tokens", train_samples=3 * SAMPLES)
    assert dry_run(make_plan(own(**whole)))[0].notes == ()
    for outcomes in ([alone(own(**whole))], together(two, own(world_size=2, **whole))):
        seen = sorted(chain(*(batch for outcome in outcomes for batch in outcome.seen[:6])))
        assert seen == sorted(list(range(SAMPLES)) * 3)


def test_samples_of_batches_that_are_objects_are_found() -> None:
    texts = [Set(SAMPLES)[number] for number in range(5)]
    graphs: Graphs = united(texts)
    assert 5 in sizes(graphs)
    assert sizes(padded(texts)) == {5}
    assert fingerprint(graphs) != fingerprint(united(texts[:4]))
    assert fingerprint(padded(texts)) != fingerprint(padded(texts[1:]))


def test_samples_are_counted_without_a_train_dataset_of_tensors() -> None:
    for data in ("Texts", "Bucketed", "GraphData"):
        assert make_plan(with_sample_counts(own(**shaped("TextNet", data, train_samples=None)))).train_samples == 48


# Losses that are means over tokens.


def start_of(config: StudyConfig) -> TextNet:
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(*spec_of(config).seed))
        return TextNet()


def by_hand(net: TextNet, updates: list[list[int]]) -> torch.Tensor:
    """The weights after SGD at 0.1 on the mean over all tokens of each update's texts."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for numbers in updates:
        optimizer.zero_grad()
        net.losses(encoded(numbers)).mean().backward()
        optimizer.step()
    return net.layer.weight.detach()


def updates_of(outcomes: Any, accumulation: int) -> list[list[int]]:
    steps = [list(chain(*parts)) for parts in zip(*(outcome.seen for outcome in outcomes), strict=True)]
    return [list(chain(*steps[i : i + accumulation])) for i in range(0, len(steps), accumulation)]


@pytest.mark.parametrize("module", ["TextNet", "LogsTokens"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_an_update_is_the_mean_over_all_tokens_of_its_batch(two: LocalGroup, module: str, accumulation: int) -> None:
    changes = shaped(module, loss_weight="tokens", budget={"epochs": 4})
    one, pair = own(**changes), own(world_size=2, **changes)
    for outcomes in ([alone(one, spec_of(one, accumulation))], together(two, pair, spec_of(pair, accumulation))):
        assert outcomes[0].error is None
        right = by_hand(start_of(one), updates_of(outcomes, accumulation))
        for outcome in outcomes:
            torch.testing.assert_close(outcome.weights[0], right)


def test_weighted_losses_go_on_after_a_pause_to_the_last_bit() -> None:
    config = own(**shaped("LogsTokens", loss_weight="tokens", budget={"epochs": 6}))
    whole, paused = alone(config, spec_of(config, accumulation=4)), alone(config, spec_of(config, 4), pausing=True)
    assert whole.error is paused.error is None
    assert torch.equal(whole.weights[0], paused.weights[0])


def test_weighted_losses_stay_as_large_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of times as large, they would overflow float16."""
    passed_on: list[float] = []
    backward = TextNet.backward

    def noted(self: TextNet, loss: torch.Tensor) -> None:
        passed_on.append(float(loss.detach()))
        backward(self, loss)

    monkeypatch.setattr(TextNet, "backward", noted)
    outcome = alone(own(**shaped("TextNet", loss_weight="tokens", budget={"epochs": 3})))
    assert outcome.error is None
    assert passed_on[0] > 100
    assert all(0.5 < loss < 8 for loss in passed_on[1:])


def test_the_training_loss_is_the_mean_over_all_tokens(two: LocalGroup) -> None:
    config = own(world_size=2, **shaped("LogsTokens", loss_weight="tokens", budget={"epochs": 1}))
    outcome = together(two, config, replace(spec_of(config, accumulation=4), lr=1e-12))[0]
    expected = start_of(config).losses(encoded(range(SAMPLES))).mean()  # the weights do not move
    assert outcome.reports[0].train_loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("weight", ["-1.0", "float('nan')", "torch.ones(2)", "float('inf')"])
def test_a_weight_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, weight: str) -> None:
    def training_step(self: TextNet, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.losses(batch).mean(), "tokens": eval(weight)}

    monkeypatch.setattr(TextNet, "training_step", training_step)
    outcome = alone(own(**shaped("TextNet", loss_weight="tokens")))
    assert outcome.error == "ConfigError: workload.loss_weight: tokens must be one number of 0 or more"


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        (shaped("TextNet"), True),
        (shaped("TextNet", "Fixed"), False),  # which weighs all alike
        (shaped("TextNet", loss_weight="tokens"), False),
        (shaped("LogsTokens", loss_weight="tokens"), False),
        (shaped("TextNet", "Streamed"), True),
        (shaped("TextNet", "Streamed", loss_weight="tokens"), False),
        (shaped("Masked", loss_weight="tokens"), False),  # which draws at random: a difference would say nothing
        (shaped("GraphNetOfGraphs", "GraphData"), False),
    ],
    ids=str,
)
def test_it_is_said_where_micro_batches_differ_in_weight(two: LocalGroup, changes: dict[str, Any], noted: bool) -> None:
    found = notes(two, **changes)
    assert isinstance(found, list)
    assert [note.partition(":")[0] for note in found] == ["its loss is no mean over samples of equal weight"] * noted


# Validation.


def validated(outcome: Outcome) -> float:
    """The validation loss of a trial's last weights, over all tokens."""
    net = TextNet()
    net.layer.weight.data.copy_(outcome.weights[0])
    return net.losses(encoded(range(VAL_SAMPLES))).mean().item()


@pytest.mark.parametrize("val_batch", [1, 4, 20])
def test_a_loss_that_is_logged_with_its_tokens_is_the_mean_over_all_of_them(two: LocalGroup, val_batch: int) -> None:
    changes = shaped("TextNet", data_args={"val_batch": val_batch})
    for outcome in (alone(own(**changes)), *together(two, own(world_size=2, **changes))):
        assert outcome.reports[-1].val_loss == pytest.approx(validated(outcome), rel=1e-5)


def test_a_mean_of_means_is_not_and_is_noted(two: LocalGroup) -> None:
    outcome = alone(own(**shaped("MeansOfBatches")))
    assert outcome.reports[-1].val_loss != pytest.approx(validated(outcome), rel=1e-3)
    found = notes(two, **shaped("MeansOfBatches", loss_weight="tokens"))
    assert isinstance(found, list)
    (note,) = found
    assert note.startswith("val_loss depends on how the validation set is split over batches and ranks: ")
    assert "batch_size=" in note


@pytest.mark.parametrize(
    ("module", "data", "noted"),
    [
        ("TextNet", "Texts", False),
        ("MeansByHand", "Texts", True),
        ("Perplexity", "Texts", True),
        ("Masked", "Texts", False),
        ("GraphNetOfGraphs", "GraphData", False),
    ],
)
def test_a_metric_that_depends_on_the_split_of_the_validation_set_is_noted(
    two: LocalGroup, module: str, data: str, noted: bool
) -> None:
    weight = {} if module.startswith("Graph") else {"loss_weight": "tokens"}
    found = notes(two, **shaped(module, data, **weight))
    assert isinstance(found, list)
    split = [note for note in found if "depends on how the validation set is split" in note]
    assert len(split) == noted
    assert all(note.startswith("val_acc") for note in split)


def test_nodes_that_lightning_takes_for_samples_are_noted(two: LocalGroup) -> None:
    found = notes(two, **shaped("GraphNet", "GraphData"))
    assert isinstance(found, list)
    assert any("val_acc depends on how the validation set is split" in note for note in found)
    assert any("ambiguous collection" in note for note in found)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_loss_that_is_the_objective_is_tried_and_its_tokens_are_counted(world_size: int) -> None:
    workload = {
        "module": "tests.own_modules.batch_shapes:LossAlone", "data": "tests.own_modules.batch_shapes:Texts",
        "train_samples": SAMPLES, "loss_weight": "tokens",
    }  # fmt: skip
    hardware = {"world_size": world_size, "accumulation": 4}
    plan = make_plan(make_config(workload=workload, batch_sizes=[BATCH], objective="loss", hardware=hardware))
    (found,) = dry_run(plan)
    assert found.notes == ()
    assert found.logged == "val_loss"
    assert found.metrics["val_loss"] > 1
    assert found.val_samples == VAL_SAMPLES
    lengths = sorted(length(number) - 1 for number in range(SAMPLES))
    assert found.weights is not None
    micro = found.weights.micro_batch
    assert micro == BATCH // world_size // 4
    assert sum(lengths[:micro]) <= found.weights.least < found.weights.most <= sum(lengths[-micro:])
    assert found.weights.least / micro < found.weights.per_sample < found.weights.most / micro
