"""Two configurations compared on their seeds: the difference of their means, and which statements about it hold."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import nctdtr, stdtr, stdtrit

from study.analysis.statistics.samples import Axis, Sample, by_seed, log_costs
from study.analysis.statistics.seed_noise import seed_noise

Answer = Literal["supported", "contradicted", "inconclusive"]
HypothesisKind = Literal["greater", "equivalent", "no_less"]
TestName = Literal["paired t", "Welch t", "moderated paired t", "moderated t"]
LEVEL = 0.025  # of each one-sided test, so that a verdict agrees with the 95% interval
POWER = 0.8
_MOST_SEEDS = 1000
_ROUNDING = 1e-12  # share of the largest value: a smaller standard error is the rounding of equal differences


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    values: Mapping[Hashable, float]  # by seed
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
    family: tuple[Arm, ...] = ()  # arms of the same study and measure, which help to know the noise

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf or (self.kind != "greater" and self.margin == 0):
            raise ValueError(f"{self.name}: a margin of {self.margin} says nothing")


@dataclass(frozen=True)
class Difference:
    """The mean of a minus the mean of b, and how well it is known."""

    effect: float
    standard_error: float
    degrees: float  # of freedom
    ci: tuple[float, float]  # 95%, by Student's t
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
    """The mean of `a` less that of `b`, in the unit of the values; of costs the ratio of their geometric means.

    `answer` follows from the interval alone: "more" or "less" where all of it lies on that side of 0 (of 1 for a
    ratio), else "indistinct". It is "untested", without interval and test, where a side has one seed or the values have
    no spread.
    """

    a: str  # labels
    b: str
    effect: float
    ci: tuple[float, float] | None  # 95%, together with those of the contrasts made with it
    test: TestName | None
    n_seeds: tuple[int, int]  # of a and of b that `effect` rests on
    answer: Literal["more", "less", "indistinct", "untested"]


def contrasts(samples: Sequence[Sample], pairs: Sequence[tuple[int, int]], axis: Axis = "quality") -> list[Contrast]:
    """Compare pairs (a, b) of configurations of one study, by their places in `samples`.

    All configurations help to know the noise of a seed. The 95% intervals hold for all pairs at once (Bonferroni).
    Costs are compared by their logarithm, and effect and interval are then ratios.
    """
    values = by_seed(samples, axis) if axis == "quality" else log_costs(samples)
    if values is None:
        return [_untested(samples[a], samples[b], axis) for a, b in pairs]
    arms = [Arm(sample.label, one) for sample, one in zip(samples, values, strict=True)]
    found = [difference(arms[a], arms[b], arms, at_once=len(pairs)) for a, b in pairs]
    return [_contrast(samples[a], samples[b], one, axis) for (a, b), one in zip(pairs, found, strict=True)]


def _contrast(a: Sample, b: Sample, found: Difference | None, axis: Axis) -> Contrast:
    if found is None or not has_spread(found, (*a.quality, *b.quality) if axis == "quality" else (1.0,)):
        return _untested(a, b, axis)
    low, high = found.ci
    answer: Literal["more", "less", "indistinct"] = "more" if low > 0 else "less" if high < 0 else "indistinct"
    effect, ci = found.effect, found.ci
    if axis == "cost":
        effect, ci = math.exp(effect), (math.exp(low), math.exp(high))
    return Contrast(a.label, b.label, effect, ci, found.test, found.n, answer)


def _untested(a: Sample, b: Sample, axis: Axis) -> Contrast:
    gap = a.mean_quality - b.mean_quality
    if axis == "cost":
        gap = a.mean_cost / b.mean_cost if b.mean_cost else math.nan
    return Contrast(a.label, b.label, gap, None, None, (a.n_seeds, b.n_seeds), "untested")


def difference(a: Arm, b: Arm, family: Sequence[Arm] = (), at_once: int = 1) -> Difference | None:
    """Return the mean of `a` less that of `b`; None where one has under two seeds.

    Arms are compared seed by seed where they ran the same seeds. `family` holds the arms of the same study, whose noise
    helps to know that of the two, and whose seeds allow for those that one of the two lacks (see `seed_noise`); those
    that share rows with `a` or `b` are left out. Without any this is the paired t test, over the seeds that both have
    if one lost up to half of the other's, or else Welch's (1947, doi:10.1093/biomet/34.1-2.28). The interval is one of
    `at_once` that hold together with 95%.
    """
    if min(len(a.values), len(b.values)) < 2:
        return None
    rows = {*a.rows, *b.rows}
    beside = [one for one in family if len(one.values) > 1 and one not in (a, b) and not rows & set(one.rows)]
    first, second = (a.values, b.values) if beside else _over_shared_seeds(a.values, b.values)
    noise = seed_noise([first, second, *(one.values for one in beside)])
    error, degrees = noise.difference(0, 1)
    effect = float(noise.mean[0] - noise.mean[1])
    half = float(stdtrit(degrees, 1 - LEVEL / at_once)) * error
    paired = bool(noise.paired[:2].all()) and not set(first).isdisjoint(second)
    moderated = bool(noise.moderated[:2].all())
    return Difference(
        effect=effect,
        standard_error=error,
        degrees=degrees,
        ci=(effect - half, effect + half),
        test=_test_name(paired, moderated),
        n=(len(first), len(second)),
    )


def _over_shared_seeds(
    a: Mapping[Hashable, float], b: Mapping[Hashable, float]
) -> tuple[Mapping[Hashable, float], Mapping[Hashable, float]]:
    """Return two arms over the seeds of the smaller one, if these are at least half of the other's."""
    fewer, more = sorted((set(a), set(b)), key=len)
    if not fewer <= more or 2 * len(fewer) < len(more):
        return a, b
    return {seed: a[seed] for seed in fewer}, {seed: b[seed] for seed in fewer}


def _test_name(paired: bool, moderated: bool) -> TestName:
    if moderated:
        return "moderated paired t" if paired else "moderated t"
    return "paired t" if paired else "Welch t"


def has_spread(found: Difference, values: Sequence[float]) -> bool:
    """Say whether the difference varies by more than the rounding of the values: accuracies are counts over a total."""
    return found.standard_error > _ROUNDING * max(map(abs, values))


def judge(hypotheses: Sequence[Hypothesis]) -> tuple[Judgement, ...]:
    """Judge each hypothesis; all are one family, and Holm's correction covers them together.

    A hypothesis is supported if its negation is rejected at 2.5%, and contradicted if it is itself rejected.
    Equivalence is two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419), and "no_less" is the lower of them
    alone. One seed on a side is never enough.
    """
    found = [difference(one.a, one.b, one.family) for one in hypotheses]
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
