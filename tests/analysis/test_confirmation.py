"""Which seeds are worth running: those of the comparison that is open, and none once the choice is decided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.confirmation import seed_wanted
from study.analysis.statistics.samples import Sample

NOISE = np.array([-0.01, 0.0, 0.01])


def sample(label: str, cost: float, quality: float, scale: float = 1.0, seeds: int = 3) -> Sample:
    noise = np.resize(NOISE, seeds)
    return Sample(label, (cost,) * seeds, tuple((quality + scale * np.roll(noise, len(label))).tolist()))


def wanted(samples: list[Sample], at_most: int = 10) -> tuple[str, str] | None:
    """The configuration that the next seed goes to, and the one that is open."""
    left = [at_most - sample.n_seeds for sample in samples]
    one = seed_wanted(samples, 0.01, 0.9, [0] * len(samples), left)
    return None if one is None else (samples[one.place].label, one.open)


def test_nothing_is_wanted_once_the_choice_is_decided() -> None:
    far = [sample("best", 9.0, 0.95, 0.1), sample("bad", 1.0, 0.80, 0.1), sample("worse", 0.5, 0.70, 0.1)]
    assert wanted(far) is None
    assert wanted([sample("alone", 1.0, 0.9, 0.001)]) is None
    # It is open whether a dearer one is within the margin, and does not matter to the choice.
    assert (
        wanted([sample("best", 9.0, 0.95, 0.1), sample("bad", 1.0, 0.80, 0.1), sample("dear", 20.0, 0.94, 0.3)]) is None
    )


def test_a_seed_goes_to_a_side_of_what_is_open() -> None:
    found = wanted([sample("best", 9.0, 0.95), sample("near", 6.0, 0.94), sample("bad", 1.0, 0.60)])
    assert found is not None
    assert set(found) <= {"best", "near"}


def test_of_equally_noisy_sides_the_cheaper_seed_is_bought_first() -> None:
    found = wanted([sample("best", 90.0, 0.95), sample("near", 1.0, 0.94), sample("bad", 0.5, 0.60)])
    assert found == ("near", "near")


def test_where_the_choice_itself_is_open_its_rival_gets_seeds_too() -> None:
    """Many that may be better than the cheapest: once it has all its seeds, it is they that settle it."""
    samples = [sample("cheap", 1.0, 0.95, seeds=6), *(sample(f"dear {i}", 9.0 + i, 0.95, 2.0) for i in range(6))]
    found = wanted(samples, at_most=6)
    assert found is not None
    assert (found[0][:4], found[1]) == ("dear", "cheap")


def test_no_configuration_gets_more_than_it_may_have() -> None:
    assert wanted([sample("best", 9.0, 0.95, seeds=4), sample("near", 6.0, 0.94, seeds=4)], at_most=4) is None
    found = wanted([sample("best", 9.0, 0.95, seeds=4), sample("near", 6.0, 0.94)], at_most=4)
    assert found == ("near", "near")


def test_one_seed_decides_nothing() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        wanted([sample("a", 1.0, 0.9), Sample("b", (1.0,), (0.9,))])


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
