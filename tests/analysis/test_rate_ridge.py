"""The power of the batch size that the best rates follow, on searches whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.analysis.rate_ridge import MOST_SCORES, rate_ridges
from study.analysis.records import RateRidge, TrialRecord
from study.config.objective import ACCURACY, Objective
from tests.analysis.claims.studies import trial

BATCH_SIZES = (16, 32, 64, 128, 256)
RATES = tuple(10 ** (i / 2 - 4) for i in range(8))
NOISE = 0.004


def searched(power: float, chance: np.random.Generator, variant: str = "") -> list[TrialRecord]:
    """Return search trials whose accuracy falls off from a line of this slope, with some noise."""
    found = []
    for batch_size in BATCH_SIZES:
        for rate in RATES:
            off = math.log10(rate) + 2.2 - power * math.log10(batch_size / 64)
            accuracy = 0.9 - 0.05 * off**2 + NOISE * chance.normal()
            name = f"search-{variant}-b{batch_size}-r{RATES.index(rate)}"
            one = trial(variant, batch_size, 0, trial_id=name, phase="search", val_accuracy=accuracy)
            found.append(replace(one, lr=rate))
    return found


def ridges(trials: Sequence[TrialRecord], objective: Objective = ACCURACY) -> tuple[RateRidge, ...]:
    return rate_ridges(trials, objective, {one.variant: False for one in trials})


@pytest.mark.parametrize("power", [0.0, 0.5, 0.8])
def test_the_interval_holds_the_power(power: float) -> None:
    held, errors = 0, []
    for seed in range(20):
        (ridge,) = ridges(searched(power, np.random.default_rng(seed)))
        held += ridge.power_ci[0] <= power <= ridge.power_ci[1]
        errors.append(abs(ridge.power - power))
    assert held >= 17  # 95% intervals: fewer have a probability of 1.6%
    assert max(errors) < 0.2


def test_the_best_rate_lies_between_those_tried() -> None:
    (ridge,) = ridges(searched(0.5, np.random.default_rng(0)))
    assert [best.batch_size for best in ridge.rates] == list(BATCH_SIZES)
    for best in ridge.rates:
        truly = 10 ** (-2.2 + 0.5 * math.log10(best.batch_size / 64))
        assert best.lr == pytest.approx(truly, rel=0.4)
        assert best.ci[0] <= best.lr <= best.ci[1]


def test_a_loss_gives_the_ridge_of_the_accuracy_that_it_mirrors() -> None:
    trials = searched(0.5, np.random.default_rng(1))
    losses = [replace(one, curve=(replace(one.curve[0], val_loss=1 - one.curve[0].val_accuracy),)) for one in trials]
    loss = Objective.model_validate("loss")
    (ridge,), (mirrored,) = ridges(trials), ridges(losses, loss)
    assert mirrored.power == pytest.approx(ridge.power)
    assert mirrored.power_ci == pytest.approx(ridge.power_ci)


def test_each_variant_has_a_ridge_of_its_own_and_growing_batches_have_none() -> None:
    chance = np.random.default_rng(2)
    trials = [*searched(0.0, chance, "a"), *searched(1.0, chance, "z"), *searched(1.0, chance, "grown")]
    found = rate_ridges(trials, ACCURACY, {"a": False, "z": False, "grown": True})
    assert [ridge.variant for ridge in found] == ["a", "z"]
    assert found[0].power < 0.3 < 0.7 < found[1].power


def test_too_little_to_say_or_too_much_to_fit_gives_none() -> None:
    trials = searched(0.5, np.random.default_rng(3))
    assert ridges([one for one in trials if one.batch_size < 64]) == ()
    assert ridges([one for one in trials if one.lr in RATES[:2]]) == ()
    assert ridges([replace(one, outcome="stopped") for one in trials]) == ()
    assert ridges([replace(one, outcome=None) if one.batch_size > 32 else one for one in trials]) == ()
    assert (
        ridges([replace(one, trial_id=f"{one.trial_id}-{i}") for i in range(MOST_SCORES // 40 + 1) for one in trials])
        == ()
    )


def test_a_rate_that_diverges_is_a_bad_one_whatever_it_scored_before() -> None:
    """The best scores are those of a rate that diverges in the end, at every batch size."""
    chance = np.random.default_rng(4)
    trials = [
        replace(one, outcome="diverged", total_updates=2000, curve=(replace(one.curve[0], val_accuracy=0.95),))
        if one.lr == RATES[-1]
        else one
        for one in searched(0.0, chance)
    ]
    (ridge,) = ridges(trials)
    assert all(best.ci[1] < RATES[-1] for best in ridge.rates)
