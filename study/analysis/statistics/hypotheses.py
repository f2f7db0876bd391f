"""Two configurations compared on their seeds: the difference of their means, and which statements about it hold."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit
from scipy.stats import ttest_1samp, ttest_ind

from study.analysis.statistics.samples import Sample

Answer = Literal["supported", "contradicted", "inconclusive"]
HypothesisKind = Literal["greater", "equivalent", "no_less"]
TestName = Literal["paired t", "Welch t"]
Axis = Literal["cost", "quality"]
LEVEL = 0.025  # of each one-sided test, so that a verdict agrees with the 95% interval
POWER = 0.8
_MOST_SEEDS = 1000
_ROUNDING = 1e-12  # share of the largest value: a smaller standard error is the rounding of equal differences


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    values: Mapping[int, float]  # by seed
    rows: tuple[str, ...] = ()  # ids of the trials that the values come from


@dataclass(frozen=True)
class Hypothesis:
    """A statement about the means of `a` and `b`.

    `kind` "greater": a's mean is above b's. "equivalent": they differ by less than `margin`. "no_less": a's mean is
    below b's by less than `margin`. For "greater" the margin is the smallest difference worth having: a difference
    shown to be smaller contradicts the hypothesis too; with a margin of 0 only a difference the other way does.
    Raises ValueError for a margin below 0 or infinite, and for a margin of 0 where the kind needs one.
    """

    name: str
    kind: HypothesisKind
    a: Arm
    b: Arm
    margin: float = 0.0  # in the unit of the values

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf or (self.kind != "greater" and self.margin == 0):
            raise ValueError(f"{self.name}: a margin of {self.margin} says nothing")


@dataclass(frozen=True)
class Difference:
    """The mean of a minus the mean of b, and how well it is known."""

    effect: float
    standard_error: float
    degrees: float  # of freedom
    ci: tuple[float, float]  # 95%, Student's t
    test: TestName
    n: tuple[int, int]  # seeds of a and of b that were used

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of the hypothesis that the true difference is `bound` or less."""
        return float(stdtr(self.degrees, (bound - self.effect) / self.standard_error))

    def p_below(self, bound: float) -> float:
        """Return the one-sided p-value of the hypothesis that the true difference is `bound` or more."""
        return float(stdtr(self.degrees, (self.effect - bound) / self.standard_error))


@dataclass(frozen=True)
class Judgement:
    """The answer that the seeds give on one hypothesis. P-values are None where no test was possible."""

    hypothesis: str
    verdict: Answer
    reason: str  # one line, for people
    difference: Difference | None
    p_supported: float | None  # of the hypothesis being false, Holm-corrected
    p_contradicted: float | None  # of the hypothesis being true, Holm-corrected
    margin: float
    rows: tuple[str, ...]
    more_seeds: int | None  # per arm, to settle an inconclusive one; None if settled, or if a thousand are too few


@dataclass(frozen=True)
class Contrast:
    """The mean of `a` less that of `b`, in the unit of the values.

    `answer` follows from the interval alone: "more" or "less" where all of it lies on that side of 0, else
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
    """Compare two configurations; no correction for other comparisons is made (docs/adr/020)."""
    found = difference_of(a, b, axis)
    if found is None:
        gap = a.mean_quality - b.mean_quality if axis == "quality" else a.mean_cost - b.mean_cost
        return Contrast(a.label, b.label, gap, None, None, (a.n_seeds, b.n_seeds), "untested")
    if not has_spread(found, (*_values(a, axis), *_values(b, axis))):
        return Contrast(a.label, b.label, found.effect, None, None, found.n, "untested")
    low, high = found.ci
    answer: Literal["more", "less", "indistinct"] = "more" if low > 0 else "less" if high < 0 else "indistinct"
    return Contrast(a.label, b.label, found.effect, found.ci, found.test, found.n, answer)


def difference_of(a: Sample, b: Sample, axis: Axis = "quality") -> Difference | None:
    """Return the difference of two samples, Welch's where a sample does not know its seeds; None under two seeds."""
    values_a, values_b = _values(a, axis), _values(b, axis)
    if min(len(values_a), len(values_b)) < 2:
        return None
    if not a.seeds or not b.seeds:
        return welch(values_a, values_b)
    return difference(dict(zip(a.seeds, values_a, strict=True)), dict(zip(b.seeds, values_b, strict=True)))


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Return the difference of two arms, values by seed; None under two seeds.

    Paired t where every seed of the smaller arm is in the other too, else Welch's.
    """
    if min(len(a), len(b)) < 2:
        return None
    shared = sorted(a.keys() & b.keys())
    if len(shared) == min(len(a), len(b)):
        return _paired([a[seed] - b[seed] for seed in shared])
    return welch(list(a.values()), list(b.values()))


def _paired(differences: Sequence[float]) -> Difference:
    with _equal_values_allowed():
        test = ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(1 - 2 * LEVEL)
    return Difference(
        effect=float(np.mean(differences)),
        standard_error=_standard_error(differences),
        degrees=float(test.df),
        ci=(float(interval.low), float(interval.high)),
        test="paired t",
        n=(len(differences), len(differences)),
    )


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the difference of two independent samples of two or more (Welch 1947, doi:10.1093/biomet/34.1-2.28)."""
    with _equal_values_allowed():
        test = ttest_ind(a, b, equal_var=False)
        interval = test.confidence_interval(1 - 2 * LEVEL)
    return Difference(
        effect=float(np.mean(a) - np.mean(b)),
        standard_error=math.hypot(_standard_error(a), _standard_error(b)),
        degrees=float(test.df),
        ci=(float(interval.low), float(interval.high)),
        test="Welch t",
        n=(len(a), len(b)),
    )


@contextmanager
def _equal_values_allowed() -> Iterator[None]:
    """Silence SciPy's warning of lost precision: seeds that agree to the last digit are common, see `has_spread`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def has_spread(found: Difference, values: Sequence[float]) -> bool:
    """Say whether the difference varies by more than the rounding of the values: accuracies are counts over a total."""
    return found.standard_error > _ROUNDING * max(map(abs, values))


def _values(sample: Sample, axis: Axis) -> tuple[float, ...]:
    return sample.quality if axis == "quality" else sample.cost


def judge(hypotheses: Sequence[Hypothesis]) -> tuple[Judgement, ...]:
    """Judge each hypothesis; all are one family, and Holm's correction covers them together.

    A hypothesis is supported if its negation is rejected at 2.5%, and contradicted if it is itself rejected.
    Equivalence is two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419), and "no_less" is the lower of them
    alone. One seed on a side is never enough.
    """
    found = [difference(one.a.values, one.b.values) for one in hypotheses]
    values = [(*one.a.values.values(), *one.b.values.values()) for one in hypotheses]
    tested = {i: d for i, d in enumerate(found) if d is not None and has_spread(d, values[i])}
    raw = [_p_values(hypotheses[i], d) for i, d in tested.items()]
    support = dict(zip(tested, holm([p for p, _ in raw]), strict=True))
    contradict = dict(zip(tested, holm([p for _, p in raw]), strict=True))
    judgements = []
    for i, one in enumerate(hypotheses):
        untested = Judgement(
            hypothesis=one.name,
            verdict="inconclusive",
            reason=_why_untested(one, found[i]),
            difference=found[i],
            p_supported=None,
            p_contradicted=None,
            margin=one.margin,
            rows=one.a.rows + one.b.rows,
            more_seeds=None,
        )
        judgements.append(_decided(untested, one, tested[i], support[i], contradict[i]) if i in tested else untested)
    return tuple(judgements)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values, in the order given (Holm 1979): the smallest times n, the next times n - 1, and so on.

    An adjusted p-value is never below that of a smaller one.
    """
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min((len(p_values) - place) * p_values[i], 1.0))
        adjusted[i] = so_far
    return adjusted


def _p_values(hypothesis: Hypothesis, found: Difference) -> tuple[float, float]:
    """Return the p-values of the hypothesis being false, and of it being true."""
    margin = hypothesis.margin
    if hypothesis.kind == "greater":
        return found.p_above(0.0), found.p_below(margin)
    if hypothesis.kind == "no_less":
        return found.p_above(-margin), found.p_below(-margin)
    within = max(found.p_above(-margin), found.p_below(margin))
    beyond = 2 * min(found.p_above(margin), found.p_below(-margin))
    return within, min(beyond, 1.0)


def _why_untested(hypothesis: Hypothesis, found: Difference | None) -> str:
    if found is None:
        seeds = f"{len(hypothesis.a.values)} and {len(hypothesis.b.values)} seeds"
        return f"{seeds}: a verdict needs two on each side"
    return "all seeds gave the same: without a spread there is no test"


def _decided(
    untested: Judgement, hypothesis: Hypothesis, found: Difference, support: float, contradict: float
) -> Judgement:
    answer: Answer = "inconclusive"
    # A tiny difference can be shown to be both above 0 and below the margin: then it is not worth having.
    if contradict <= LEVEL:
        answer = "contradicted"
    elif support <= LEVEL:
        answer = "supported"
    low, high = found.ci
    sides = f"{hypothesis.a.name} - {hypothesis.b.name}"
    return replace(
        untested,
        verdict=answer,
        reason=f"{sides} = {found.effect:+.4g} [{low:+.4g}, {high:+.4g}], {found.test}",
        p_supported=support,
        p_contradicted=contradict,
        more_seeds=seeds_to_settle(hypothesis, found) if answer == "inconclusive" else None,
    )


def seeds_to_settle(hypothesis: Hypothesis, found: Difference, level: float = LEVEL) -> int | None:
    """Return how many more seeds per arm give a verdict with a power of 80%, if effect and spread stay as observed.

    From the noncentral t distribution; None if a thousand seeds per arm are too few.
    """
    have = max(found.n)
    seeds = range(have + 1, _MOST_SEEDS + 1)
    # Power grows with the seeds once it is above 80%, so a bisection finds the first.
    enough = bisect_left(seeds, True, key=lambda n: _power(hypothesis, found, n, level) >= POWER)
    return seeds[enough] - have if enough < len(seeds) else None


def _power(hypothesis: Hypothesis, found: Difference, n: int, level: float) -> float:
    """Return the probability of the likelier verdict with n seeds per arm."""
    # The standard error shrinks with the root of n for paired and for independent arms.
    have = min(found.n)
    error = found.standard_error * math.sqrt(have / n)
    degrees = found.degrees * (n - 1) / (have - 1)
    critical_t = stdtrit(degrees, 1 - level)

    def shown(distance: float) -> float:
        """Return the probability of a test that rejects a bound which the true difference is `distance` beyond."""
        return 1 - float(nctdtr(degrees, distance / error, critical_t))

    effect, margin = found.effect, hypothesis.margin
    above, below = shown(effect - margin), shown(margin - effect)
    if hypothesis.kind == "greater":
        return max(shown(effect), below)
    if hypothesis.kind == "no_less":
        return max(shown(effect + margin), shown(-margin - effect))
    return max(shown(effect + margin) + below - 1, above, shown(-margin - effect))
