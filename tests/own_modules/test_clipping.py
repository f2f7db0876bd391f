"""Gradient clipping: each trial against a plain loop with torch's own functions, on the samples that it drew."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training import fit_loop
from study.training.distributed import local_group as localgroup
from study.training.distributed.local_group import LocalGroup
from study.training.rank import Rank
from study.workloads.data.batching import TrainBatches, derived_seed
from study.workloads.data.splits import load_splits
from study.workloads.models.networks import build_model
from tests.conftest import make_config
from tests.own_modules.on_ranks import ALONE, Outcome, alone, notes_of, own, spec_of, together
from tests.own_modules.user_modules import SAMPLES, Net, Weighted

Clip = Callable[[Any], Any]
CLIPS: dict[str, tuple[dict[str, float], Clip]] = {
    "norm": ({"clip_norm": 0.1}, partial(nn.utils.clip_grad_norm_, max_norm=0.1)),
    "value": ({"clip_value": 0.05}, partial(nn.utils.clip_grad_value_, clip_value=0.05)),
}
FACTOR, RATE = 0.5, 0.1


class Own(Net):
    """Its own optimizer, whose kernel is fused."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=RATE / FACTOR, momentum=0.9, fused=True)


class Twice(Net):
    """Clips to twice the value that it is given."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), 2 * gradient_clip_val)


class Always(Net):
    """Clips whatever the study says."""

    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **named: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")


def clipped(world_size: int = 1, optimizer: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
    config = own(world_size=world_size, **changes)
    merged = config.optimizer.model_copy(update={"momentum": 0.9, **(optimizer or {})})
    return config.model_copy(update={"optimizer": merged})


def loop(config: StudyConfig, outcomes: list[Outcome], accumulation: int, clip: Clip, weighted: bool = False) -> Any:
    """SGD on the mean over each update's samples, clipped; the weights after it, and whether the clip ever counted."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(*spec_of(config).seed))
        net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, nesterov=weighted or _is_nesterov(config))
    counted = False
    seen = [outcome.seen for outcome in outcomes]
    for update in range(len(seen[0]) // accumulation):
        part = slice(update * accumulation, (update + 1) * accumulation)
        samples = [sample for rank in seen for batch in rank[part] for sample in batch]
        x = torch.tensor(samples).float()[:, None]
        each = cross_entropy(net.layer(x / SAMPLES), torch.tensor(samples) % 2, reduction="none")
        tokens = x[:, 0] + 1 if weighted else torch.ones(len(x))
        optimizer.zero_grad()
        ((tokens * each).sum() / tokens.sum()).backward()
        before = [weight.grad.clone() for weight in net.parameters()]  # type: ignore[union-attr]
        clip(net.parameters())
        counted |= any(not torch.equal(a, b.grad) for a, b in zip(before, net.parameters(), strict=True))  # type: ignore[arg-type]
        optimizer.step()
    return [weight.detach() for weight in net.parameters()], counted


def _is_nesterov(config: StudyConfig) -> bool:
    return getattr(config.workload, "optimizer", "study") == "study"


def assert_equal(outcome: Outcome, weights: list[Tensor]) -> None:
    assert outcome.error is None, outcome.error
    for weight, expected in zip(outcome.weights, weights, strict=True):
        torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("how", CLIPS)
def test_the_gradient_of_the_global_batch_is_clipped(two: LocalGroup, how: str, accumulation: int) -> None:
    keys, clip = CLIPS[how]
    one, pair = clipped(optimizer=keys), clipped(2, keys)
    for outcomes in ([alone(one, spec_of(one, accumulation))], [*together(two, pair, spec_of(pair, accumulation))]):
        weights, counted = loop(one, outcomes, accumulation, clip)
        assert counted
        for outcome in outcomes:
            assert_equal(outcome, weights)


def test_weighted_gradients_are_clipped_once_they_are_weighted(two: LocalGroup) -> None:
    keys, clip = CLIPS["norm"]
    changes = {"module": "Weighted", "loss_weight": "tokens"}
    pair = clipped(2, keys, **changes)
    outcomes = [*together(two, pair, spec_of(pair, accumulation=4))]
    weights, counted = loop(pair, outcomes, 4, clip, weighted=True)
    assert counted
    for outcome in outcomes:
        assert_equal(outcome, weights)
    assert issubclass(Weighted, Net)


def module_of(name: str, keys: dict[str, Any], world_size: int = 1) -> StudyConfig:
    config = clipped(world_size, keys)
    workload = config.workload.model_copy(update={"module": f"{__name__}:{name}"})
    return config.model_copy(update={"workload": workload})


def with_own_optimizer(keys: dict[str, Any], world_size: int = 1) -> StudyConfig:
    config = module_of("Own", keys, world_size)
    workload = config.workload.model_copy(update={"optimizer": "module"})
    plain = config.optimizer.model_copy(update={"momentum": 0.9})
    return config.model_copy(
        update={
            "workload": workload,
            "optimizer": plain,
            "search": config.search.model_copy(update={"lr": (FACTOR,)}),
            "schedule": type(config.schedule)(),
        }
    )


def spec_at(config: StudyConfig, accumulation: int = 1) -> Any:
    return replace(spec_of(config, accumulation), lr=FACTOR)


@pytest.mark.parametrize("how", CLIPS)
def test_the_modules_own_optimizer_is_clipped(two: LocalGroup, how: str) -> None:
    keys, clip = CLIPS[how]
    one, pair = with_own_optimizer(keys), with_own_optimizer(keys, 2)
    for outcomes in ([alone(one, spec_at(one, 2))], [*together(two, pair, spec_at(pair, 2))]):
        weights, counted = loop(one, outcomes, 2, clip)
        assert counted
        for outcome in outcomes:
            assert_equal(outcome, weights)


def test_a_clipping_of_the_modules_own_is_honoured() -> None:
    clip = CLIPS["norm"][1]
    given = module_of("Twice", {"clip_norm": 0.05})
    outcome = alone(given)
    assert_equal(outcome, loop(given, [outcome], 1, clip)[0])
    assert notes_of(given) == [
        "its configure_gradient_clipping is given the study's value, and decides what becomes of it"
    ]
    alike = module_of("Always", {})
    outcome = alone(alike)
    assert_equal(outcome, loop(alike, [outcome], 1, clip)[0])
    assert notes_of(alike) == []


@pytest.mark.parametrize("module", ["Net", "Own", "Always"])
def test_with_a_scaler_the_unscaled_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """As under 16-mixed, which needs a GPU: the scale is 1024, and the clip would cut every gradient to nothing."""
    keys, clip = CLIPS["norm"]
    config = module_of(module, {} if module == "Always" else keys) if module != "Own" else with_own_optimizer(keys)
    if module == "Net":
        config = clipped(optimizer=keys)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    class Unrounded(MixedPrecision):
        """Scales as 16-mixed does, and computes in float32."""

        def autocast_context_manager(self) -> Any:
            return torch.autocast("cpu", enabled=False)

    original = pl.Trainer

    def trainer(plugins: list[Any], precision: str, **others: Any) -> pl.Trainer:
        return original(plugins=[*plugins, Unrounded("16-mixed", "cpu", scaler)], **others)

    monkeypatch.setattr(fit_loop.pl, "Trainer", trainer)
    outcome = alone(config, spec_at(config) if module == "Own" else spec_of(config))
    monkeypatch.undo()
    assert outcome.error is None, outcome.error
    assert scaler.get_scale() == 1024
    weights, counted = loop(config, [outcome], 1, clip)
    assert counted
    assert_equal(outcome, weights)


def embedded(world_size: int = 1, **optimizer: Any) -> StudyConfig:
    return make_config(
        batch_sizes=[16], hardware={"world_size": world_size}, optimizer=optimizer, budget={"epochs": 1},
        search={"lr": [0.1]}, schedule={"kind": "constant", "warmup_fraction": 0.0},
    )  # fmt: skip


def embedded_weights(rank: Rank, config: StudyConfig, accumulation: int) -> list[Tensor]:
    plan = make_plan(config.model_copy(update={"hardware": config.hardware.model_copy(
        update={"accumulation": accumulation}
    )}))  # fmt: skip
    rank.begin(plan.confirm_trials(plan.cells[0], RATE)[0])
    rank.advance()
    assert rank._trial is not None
    weights = [weight.detach().clone() for weight in rank._trial.job.module.parameters()]
    rank.halt()
    return weights


def _here(config: StudyConfig, accumulation: int) -> list[Tensor]:
    return embedded_weights(Rank(localgroup._rank.topology, config), config, accumulation)


@pytest.mark.parametrize("how", CLIPS)
def test_a_workload_of_the_package_is_clipped(two: LocalGroup, how: str) -> None:
    keys, clip = CLIPS[how]
    config = embedded(**keys)
    plan = make_plan(config)
    spec = plan.confirm_trials(plan.cells[0], RATE)[0]
    splits = load_splits(config.workload)
    torch.manual_seed(derived_seed(*spec.seed))
    model = build_model(config.workload, splits)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True)
    for x, y in TrainBatches(splits.train, spec.stages, 0, spec.seed):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        clip(model.parameters())
        optimizer.step()
    expected = [weight.detach() for weight in model.parameters()]
    found = [
        embedded_weights(Rank(ALONE, config), config, 1),
        embedded_weights(Rank(ALONE, config), config, 4),
        *two.call(_here, embedded(2, **keys), 2),
    ]
    for weights in found:
        for weight, value in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight, value, rtol=1e-4, atol=1e-6)
    plain = embedded_weights(Rank(ALONE, embedded()), embedded(), 1)
    assert not torch.allclose(plain[0], expected[0], rtol=1e-3)


def test_a_pause_changes_nothing() -> None:
    config = clipped(optimizer=CLIPS["norm"][0])
    whole, paused = alone(config), alone(config, pausing=True)
    assert paused.error is None
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, paused.weights, strict=True))


def test_other_keys_of_the_optimizer_still_come_from_the_module() -> None:
    config = with_own_optimizer({})
    make_plan(config)  # momentum 0.9 is what it is when left out
    other = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"momentum": 0.5})})
    with pytest.raises(ConfigError, match=r"^optimizer: comes from the module .*; clip_norm and clip_value may stay$"):
        make_plan(other)
