"""Two configurations compared on their seeds, by the test that claims use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from study.analysis.statistics.hypotheses import Difference, TestName, difference, has_spread, welch
from study.analysis.statistics.samples import Sample

Axis = Literal["cost", "quality"]


@dataclass(frozen=True)
class Contrast:
    """The mean of `a` less that of `b`, in the unit of the values.

    `answer` says no more than the interval does: "more" or "less" where all of it lies on that side of 0, else
    "indistinct". It is "untested", without interval and test, where a side has one seed or the values have no spread.
    """

    a: str  # labels
    b: str
    effect: float  # over the seeds that both have, where these are paired
    ci: tuple[float, float] | None  # 95%
    test: TestName | None
    n_seeds: tuple[int, int]  # of a and of b that `effect` rests on
    answer: Literal["more", "less", "indistinct", "untested"]


def contrast(a: Sample, b: Sample, axis: Axis = "quality") -> Contrast:
    """The contrast of two configurations; each comparison stands by itself, uncorrected for others (docs/adr/020)."""
    found = difference_of(a, b, axis)
    if found is None:
        gap = a.mean_quality - b.mean_quality if axis == "quality" else a.mean_cost - b.mean_cost
        return Contrast(a.label, b.label, gap, None, None, (a.n_seeds, b.n_seeds), "untested")
    if not spreads(found, a, b, axis):
        return Contrast(a.label, b.label, found.effect, None, None, found.n, "untested")
    low, high = found.ci
    answer: Literal["more", "less", "indistinct"] = "more" if low > 0 else "less" if high < 0 else "indistinct"
    return Contrast(a.label, b.label, found.effect, found.ci, found.test, found.n, answer)


def difference_of(a: Sample, b: Sample, axis: Axis = "quality") -> Difference | None:
    """Paired by seed as claims are, Welch's where a sample does not say its seeds; None under two seeds."""
    one, other = _values(a, axis), _values(b, axis)
    if min(len(one), len(other)) < 2:
        return None
    if not a.seeds or not b.seeds:
        return welch(one, other)
    return difference(dict(zip(a.seeds, one, strict=True)), dict(zip(b.seeds, other, strict=True)))


def spreads(found: Difference, a: Sample, b: Sample, axis: Axis = "quality") -> bool:
    """Whether there is a spread to test the difference against."""
    return has_spread(found, (*_values(a, axis), *_values(b, axis)))


def _values(sample: Sample, axis: Axis) -> tuple[float, ...]:
    return sample.quality if axis == "quality" else sample.cost
