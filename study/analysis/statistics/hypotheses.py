"""Two arms of a study, seed by seed, and what may be said of the difference between them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit

from study.analysis.statistics.arrays import Floats

Answer = Literal["supported", "contradicted", "inconclusive"]
TestName = Literal["paired t", "Welch t"]
LEVEL = 0.025  # of each one-sided test, so that a verdict says what the 95% interval shows
POWER = 0.8
_MOST_SEEDS = 1000
_ROUNDING = 1e-12  # of the largest value: a standard error below is the rounding of equal differences


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    values: Mapping[int, float]  # by seed
    rows: tuple[str, ...] = ()  # ids of the trials it rests on


@dataclass(frozen=True)
class Claim:
    """What is said of `a` and `b`: that a's mean is the greater, or within `margin` of b's, or at most that much less.

    For a claim of "greater" the margin is the smallest difference worth having: a difference shown to be smaller
    contradicts the claim too. At 0 only a difference the other way does. Raises ValueError for a margin that cannot be.
    """

    name: str
    kind: Literal["greater", "equivalent", "no_less"]
    a: Arm
    b: Arm
    margin: float = 0.0  # in the unit of the values

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf or (self.kind != "greater" and self.margin == 0):
            raise ValueError(f"{self.name}: a margin of {self.margin} says nothing")


@dataclass(frozen=True)
class Difference:
    """Mean of a minus mean of b, and how well it is known."""

    effect: float
    standard_error: float
    degrees: float
    ci: tuple[float, float]  # 95%, Student's t
    test: TestName
    n: tuple[int, int]  # seeds of a and of b that were used

    def p_above(self, bound: float) -> float:
        """One-sided p of the hypothesis that the true difference is `bound` or less."""
        return float(stdtr(self.degrees, (bound - self.effect) / self.standard_error))

    def p_below(self, bound: float) -> float:
        """One-sided p of the hypothesis that the true difference is `bound` or more."""
        return float(stdtr(self.degrees, (self.effect - bound) / self.standard_error))


@dataclass(frozen=True)
class Verdict:
    """What the seeds say of a claim. The numbers are None where no test could be made."""

    claim: str
    verdict: Answer
    reason: str  # one line, for people
    difference: Difference | None
    p_supported: float | None  # of the claim being false, Holm-corrected
    p_contradicted: float | None  # of the claim being true, Holm-corrected
    margin: float
    rows: tuple[str, ...]
    more_seeds: int | None  # per arm, to settle an inconclusive one; None if settled, or if a thousand would not do


def judge(claims: Sequence[Claim]) -> tuple[Verdict, ...]:
    """A verdict on each claim; the claims are one family, and Holm's correction covers them together.

    A claim is supported if its negation is rejected at 2.5%, and contradicted if the claim itself is. Equivalence is
    two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419), and "no_less" is the lower of them alone. One seed
    on a side is never enough.
    """
    found = [difference(claim.a.values, claim.b.values) for claim in claims]
    values = [(*claim.a.values.values(), *claim.b.values.values()) for claim in claims]
    tested = [i for i, d in enumerate(found) if d is not None and has_spread(d, values[i])]
    raw = [_p_values(claims[i], found[i]) for i in tested]
    support = dict(zip(tested, holm([p for p, _ in raw]), strict=True))
    contradict = dict(zip(tested, holm([p for _, p in raw]), strict=True))
    verdicts = []
    for i, claim in enumerate(claims):
        untested = Verdict(
            claim=claim.name,
            verdict="inconclusive",
            reason=_why_untested(claim, found[i]),
            difference=found[i],
            p_supported=None,
            p_contradicted=None,
            margin=claim.margin,
            rows=claim.a.rows + claim.b.rows,
            more_seeds=None,
        )
        verdicts.append(_decide(untested, claim, support[i], contradict[i]) if i in support else untested)
    return tuple(verdicts)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Paired t where every seed of the smaller arm is in the other too, else Welch's; None under 2 seeds."""
    if min(len(a), len(b)) < 2:
        return None
    shared = sorted(a.keys() & b.keys())
    if len(shared) == min(len(a), len(b)):
        return _paired(np.array([a[s] - b[s] for s in shared]))
    return welch(list(a.values()), list(b.values()))


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Difference of the means of two independent samples of two or more (Welch 1947, doi:10.1093/biomet/34.1-2.28)."""
    variance = np.array([np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)])
    total = float(variance.sum())
    freedom = variance**2 / [len(a) - 1, len(b) - 1]
    degrees = total**2 / float(freedom.sum()) if total > 0 else len(a) + len(b) - 2.0
    effect = float(np.mean(a) - np.mean(b))
    return _difference(effect, math.sqrt(total), degrees, "Welch t", (len(a), len(b)))


def has_spread(found: Difference, values: Sequence[float]) -> bool:
    """Whether the difference varies by more than the rounding of the values: accuracies are counts over a total."""
    return found.standard_error > _ROUNDING * max(map(abs, values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Holm 1979): the smallest times n, the next times n - 1, never falling."""
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min((len(p_values) - place) * p_values[i], 1.0))
        adjusted[i] = so_far
    return adjusted


def seeds_to_settle(claim: Claim, found: Difference, level: float = LEVEL) -> int | None:
    """Seeds per arm, beyond those there are, for a verdict either way with a power of 80% if all stays as seen.

    Noncentral t with the effect and spread observed; None if a thousand seeds per arm would not do.
    """
    have = max(found.n)
    seeds = range(have + 1, _MOST_SEEDS + 1)
    # With the effect and spread as they are, power over 80% is not lost again with more seeds.
    enough = bisect_left(seeds, True, key=lambda n: _power(claim, found, n, level) >= POWER)
    return seeds[enough] - have if enough < len(seeds) else None


def _power(claim: Claim, found: Difference, n: int, level: float) -> float:
    """Probability of the likelier verdict with n seeds per arm."""
    # The standard error shrinks with the root of n, which paired and independent arms have in common.
    have = min(found.n)
    error = found.standard_error * math.sqrt(have / n)
    degrees = found.degrees * (n - 1) / (have - 1)
    cut = stdtrit(degrees, 1 - level)

    def clears(distance: float) -> float:
        """Of showing that the difference lies beyond a bound which it clears by `distance`."""
        return 1 - float(nctdtr(degrees, distance / error, cut))

    above, below = clears(found.effect - claim.margin), clears(claim.margin - found.effect)
    if claim.kind == "greater":
        return max(clears(found.effect), below)
    if claim.kind == "no_less":
        return max(clears(found.effect + claim.margin), clears(-claim.margin - found.effect))
    return max(clears(found.effect + claim.margin) + below - 1, above, clears(-claim.margin - found.effect))


def _paired(differences: Floats) -> Difference:
    error = float(np.std(differences, ddof=1) / math.sqrt(len(differences)))
    count = len(differences)
    return _difference(float(differences.mean()), error, count - 1.0, "paired t", (count, count))


def _difference(effect: float, error: float, degrees: float, test: TestName, n: tuple[int, int]) -> Difference:
    half = float(stdtrit(degrees, 1 - LEVEL)) * error
    return Difference(effect, error, degrees, (effect - half, effect + half), test, n)


def _p_values(claim: Claim, found: Difference | None) -> tuple[float, float]:
    """(of the claim being false, of the claim being true)"""
    assert found is not None
    if claim.kind == "greater":
        return found.p_above(0.0), found.p_below(claim.margin)
    if claim.kind == "no_less":
        return found.p_above(-claim.margin), found.p_below(-claim.margin)
    within = max(found.p_above(-claim.margin), found.p_below(claim.margin))
    beyond = 2 * min(found.p_above(claim.margin), found.p_below(-claim.margin))
    return within, min(beyond, 1.0)


def _why_untested(claim: Claim, found: Difference | None) -> str:
    if found is None:
        return f"{len(claim.a.values)} and {len(claim.b.values)} seeds: a verdict needs two on each side"
    return "all seeds gave the same: without a spread there is no test"


def _decide(untested: Verdict, claim: Claim, support: float, contradict: float) -> Verdict:
    found = untested.difference
    assert found is not None
    answer: Answer = "inconclusive"
    # A tiny difference can be shown to be both above 0 and below the margin: then it is not worth having.
    if contradict <= LEVEL:
        answer = "contradicted"
    elif support <= LEVEL:
        answer = "supported"
    more = seeds_to_settle(claim, found) if answer == "inconclusive" else None
    low, high = found.ci
    return replace(
        untested,
        verdict=answer,
        reason=f"{claim.a.name} - {claim.b.name} = {found.effect:+.4g} [{low:+.4g}, {high:+.4g}], {found.test}",
        p_supported=support,
        p_contradicted=contradict,
        more_seeds=more,
    )
