"""The claim that the gradient noise scale predicts the batch size past which training costs more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from study.analysis.claims.compare import cell_over_seeds, concluded, unproved
from study.analysis.claims.records import ClaimAnswer, ClaimVerdict, Details, Finding, Statement, TableRow
from study.analysis.claims.settings import BatchSeries, Setting, batch_series
from study.analysis.records import TrialRecord
from study.analysis.statistics.critical import CriticalBatch, StepsToTarget, fit_critical_batch
from study.analysis.statistics.samples import mean_interval
from study.analysis.summary.time_to_target import steps_to_target

FACTOR = 3.0  # a ratio within it counts as predicted: the paper claims the order of magnitude
_NORMAL = 1.96  # two-sided 95%
_POWER = 0.84  # one-sided 80%
_MOST_SEEDS = 1000

NOISE_SCALE = Statement(
    "noise_scale",
    f"The gradient noise scale predicts, within a factor of {FACTOR:g}, the batch size past which training costs more",
    "McCandlish et al. 2018",
    "1812.06162",
    "three or more batch sizes with probes.noise_scale and a target of the objective, of budget or report",
)


def noise_scale(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare B_simple over training with B_crit of the law fitted to the updates of each batch size to a target.

    The ratio's interval joins the two intervals in the logarithm by the distances of their ends (Zou and Donner 2008,
    doi:10.1002/sim.3095), as if the two were independent. Supported if all of it is within the factor, contradicted
    if all is beyond.
    """
    found = [
        s for s in batch_series(settings, lambda c: c.quality_target is not None and c.probes.noise_scale) if len(s) > 2
    ]
    if not found:
        return unproved(NOISE_SCALE)
    series = found[0]
    fit = fit_critical_batch([run for setting in series for run in _runs(setting)])
    measured = _noise_by_seed(series)
    return concluded(NOISE_SCALE, (_finding(series, fit, measured),), _details(series, fit))


def _runs(setting: Setting) -> list[StepsToTarget]:
    target, objective = setting.config.quality_target, setting.config.objective
    assert target is not None
    return [
        steps_to_target(trial, target, objective)
        for trial in setting.trials
        if trial.curve and trial.curve[-1].updates > 0
    ]


def _noise_of(trial: TrialRecord) -> float | None:
    """Return the mean log of a trial's noise scales, which grow by orders of magnitude; None without any."""
    values = [point.probes.noise_b_simple for point in trial.curve]
    known = [math.log(value) for value in values if value is not None and 0 < value < math.inf]
    return fmean(known) if known else None


def _noise_by_seed(series: BatchSeries) -> list[float]:
    """Return the mean log of the noise scale for each seed, over its batch sizes."""
    by_seed: dict[int, list[float]] = {}
    for setting in series:
        for trial in setting.trials:
            value = _noise_of(trial)
            if value is not None:
                by_seed.setdefault(trial.seed_index, []).append(value)
    return [fmean(values) for _, values in sorted(by_seed.items())]


def _finding(series: BatchSeries, fit: CriticalBatch, measured: Sequence[float]) -> Finding:
    interval = mean_interval(measured)
    seeds = min(len(setting.trials) for setting in series)
    effect, ci, reason = None, None, None
    verdict: ClaimAnswer = "inconclusive"
    to_settle: str | None = None
    if interval is None or seeds < 2:
        reason = f"{seeds} seed(s) of some batch sizes, {len(measured)} with a noise scale: a verdict needs two"
        to_settle = "two or more completed seeds at every batch size; confirm.seeds of 3 at least"
    elif any(setting.diverged for setting in series):
        reason, to_settle = "some seeds diverged", "a rate at which no seed diverges"
    elif fit.misfit or fit.b_crit is None or fit.b_crit_ci is None:
        reason = fit.misfit_reason or "the runs only bound the critical batch size"
        to_settle = "batch sizes further below and above the critical one, or a target that all of them reach"
    else:
        ratio, low, high = _log_ratio(fmean(measured), interval, math.log(fit.b_crit), fit.b_crit_ci)
        effect, ci = math.exp(ratio), (_exp(low), _exp(high))
        limit = math.log(FACTOR)
        if -limit <= low and high <= limit:
            verdict = "supported"
        elif low > limit or high < -limit:
            verdict = "contradicted"
        else:
            to_settle = _more_seeds(limit - abs(ratio), max(high - ratio, ratio - low), seeds)
    return Finding(
        statement="noise scale over critical batch size",
        verdict=verdict,
        effect=effect,
        effect_unit="times",
        ci=ci,
        margin=FACTOR,
        test="interval within the factor" if ci else None,
        p=None,
        n_seeds=(len(measured), seeds),
        rows=tuple(trial.trial_id for setting in series for trial in setting.trials),
        reason=reason,
        to_settle=to_settle,
    )


def _log_ratio(
    noise: float, noise_ci: tuple[float, float], critical: float, critical_ci: tuple[float, float]
) -> tuple[float, float, float]:
    """Return estimate, low and high of log(B_simple / B_crit); an open side of B_crit leaves one side open."""
    low, high = (math.log(end) if end > 0 else -math.inf for end in critical_ci)
    return (
        noise - critical,
        noise - critical - math.hypot(noise - noise_ci[0], high - critical),
        noise - critical + math.hypot(noise_ci[1] - noise, critical - low),
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _more_seeds(distance: float, half_width: float, seeds: int) -> str:
    """Say how many seeds bring the interval within the limit with a power of 80%; widths shrink as 1/sqrt(seeds)."""
    needed = seeds * ((1 + _POWER / _NORMAL) * half_width / distance) ** 2 if distance else math.inf
    if needed > _MOST_SEEDS:
        return "another factor: as things stand, a thousand seeds a batch size would not do"
    return f"about {max(1, math.ceil(needed - seeds))} more seed(s) a batch size, if all stays as it is"


def _details(series: BatchSeries, fit: CriticalBatch) -> Details:
    steps = [[run.steps for run in _runs(setting) if run.reached] for setting in series]
    noise = [[math.exp(v) for trial in setting.trials if (v := _noise_of(trial)) is not None] for setting in series]
    samples = [[n * setting.batch_size for n in each] for setting, each in zip(series, steps, strict=True)]
    critical = None
    if fit.b_crit is not None and fit.b_crit_ci is not None:
        low, high = fit.b_crit_ci
        critical = f"Critical batch size {fit.b_crit:.3g} [{low:.3g}, {high:.3g}]."
    return Details(
        tuple(setting.name for setting in series),
        (
            TableRow("noise scale", "samples", tuple(map(cell_over_seeds, noise))),
            TableRow("updates to the target", "", tuple(map(cell_over_seeds, steps))),
            TableRow("samples to the target", "", tuple(map(cell_over_seeds, samples))),
        ),
        critical,
    )
