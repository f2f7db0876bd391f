"""Which seeds are worth running: those of the comparison that is open, and none once the choice is decided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.confirmation import ROUND, seeds_wanted
from study.analysis.statistics.samples import Sample

NOISE = np.array([-0.01, 0.0, 0.01])


def sample(label: str, cost: float, quality: float, scale: float = 1.0, seeds: int = 3) -> Sample:
    noise = np.resize(NOISE, seeds)
    return Sample(label, (cost,) * seeds, tuple((quality + scale * np.roll(noise, len(label))).tolist()))


def wanted(samples: list[Sample], at_most: int = 10) -> list[tuple[str, str]]:
    return [(samples[one.place].label, one.open) for one in seeds_wanted(samples, 0.01, 0.9, at_most)]


def test_nothing_is_wanted_once_the_choice_is_decided() -> None:
    far = [sample("best", 9.0, 0.95, 0.1), sample("bad", 1.0, 0.80, 0.1), sample("worse", 0.5, 0.70, 0.1)]
    assert wanted(far) == []
    assert wanted([sample("alone", 1.0, 0.9, 0.001)]) == []
    dearer = sample("dearer", 20.0, 0.945)  # it is open whether it is as good, and does not matter
    assert wanted([sample("best", 9.0, 0.95, 0.1), sample("bad", 1.0, 0.80, 0.1), dearer][:2]) == []


def test_a_round_goes_to_what_is_open() -> None:
    samples = [sample("best", 9.0, 0.95), sample("near", 6.0, 0.94), sample("bad", 1.0, 0.60)]
    found = wanted(samples)
    assert len(found) == ROUND
    assert {name for name, _ in found} <= {"best", "near"}
    assert all(open_ in ("best", "near") for _, open_ in found)


def test_of_equally_noisy_sides_the_cheaper_seed_is_bought_first() -> None:
    samples = [sample("best", 90.0, 0.95), sample("near", 1.0, 0.94), sample("bad", 0.5, 0.60)]
    assert wanted(samples)[0][0] == "near"


def test_no_configuration_gets_more_than_at_most() -> None:
    samples = [sample("best", 9.0, 0.95, seeds=4), sample("near", 6.0, 0.94, seeds=4)]
    assert wanted(samples, at_most=4) == []
    assert {name for name, _ in wanted([samples[0], sample("near", 6.0, 0.94)], at_most=4)} == {"near"}


def test_one_seed_decides_nothing() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        seeds_wanted([sample("a", 1.0, 0.9), Sample("b", (1.0,), (0.9,))], 0.01, 0.9, 5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_the_unit_of_cost_does_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    places = [(float(c), 0.95 - 0.01 * i) for i, c in enumerate(np.sort(rng.uniform(1, 9, 5))[::-1])]
    tables = rng.standard_normal((5, 3)) * 0.01

    def study(unit: float) -> list[Sample]:
        return [
            Sample(str(i), (unit * c,) * 3, tuple((q + tables[i]).tolist()), (1, 2, 3))
            for i, (c, q) in enumerate(places)
        ]

    assert wanted(study(scale)) == wanted(study(1.0))
