"""Claims about cost: larger batches cost less to train, and batches of requests cost less to answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from study.analysis.claims.compare import Question, answers, ask, cell_over_seeds, concluded, table, unproved
from study.analysis.claims.measures import (
    DEVICE_S,
    GRADIENT_GB,
    SAMPLES_PER_S,
    UPDATES,
    Measure,
    probe_measure,
)
from study.analysis.claims.records import ClaimVerdict, Details, Statement, TableRow
from study.analysis.claims.settings import BatchSeries, Setting, batch_series, has_equal_epochs
from study.measurement import ProbeReadings, ServingPoint

SATURATED = 0.9  # of the highest throughput
LATENCY_LIMIT_MS = 10.0

COST = Statement(
    "cost",
    "Larger batches cost less to train: less device time for the same epochs, in fewer updates that move less data",
    "Goyal et al. 2017",
    "1706.02677",
    "several batch sizes with budget.epochs, alike in all else",
)
SERVING = Statement(
    "serving",
    "Batching requests cuts the cost of predictions",
    "Crankshaw et al. 2017",
    "1612.03079",
    "probes.serving",
)


def cost(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare device time of the smallest batch against the largest, over the same epochs."""
    if any(setting.config.hardware.shares_gpus for setting in settings):
        return replace(unproved(COST), to_settle="hardware.gpus_per_rank: 1; ranks that share a GPU slow one another")
    found = batch_series(settings, has_equal_epochs)
    if not found:
        return unproved(COST)
    series = found[0]
    small, large = series[0], series[-1]
    findings = answers(
        (ask(f"{small.name} takes more device time than {large.name}", "greater", small, large, DEVICE_S),), settings
    )
    measures = (DEVICE_S, UPDATES, GRADIENT_GB, SAMPLES_PER_S, small.objective)
    return concluded(COST, findings, table(series, measures, _saturation(series)))


def _saturation(series: BatchSeries) -> str | None:
    """Name the batch size from which larger ones are hardly faster; None without throughputs."""
    paces = [(s, cell_over_seeds(known).mean) for s in series if (known := _throughputs(s))]
    if not paces:
        return None
    most = max(pace for _, pace in paces if pace is not None)
    first = next(s for s, pace in paces if pace is not None and pace >= SATURATED * most)
    return f"{first.name} is the first within {100 * (1 - SATURATED):.0f}% of the highest throughput."


def _throughputs(setting: Setting) -> list[float]:
    return [value for trial in setting.trials if (value := SAMPLES_PER_S.value(trial)) is not None]


def serving(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the largest batch of requests against single requests, on the same networks."""
    measured = [setting for setting in settings if setting.config.probes.serving]
    if not measured:
        return unproved(SERVING)
    # One batch size alone: the others train the same network, and its timings would count several times.
    network = max(measured, key=lambda setting: len(setting.trials))
    sizes = _request_batches(network)
    if len(sizes) < 2:
        return replace(
            unproved(SERVING), to_settle="confirm trials that complete: the serving curve comes at their end"
        )
    rates = [_rate(size) for size in sizes]
    question = Question(
        f"a prediction alone costs more than one in a batch of {sizes[-1]}",
        "greater",
        network.arm(rates[-1]),
        replace(network.arm(rates[0]), rows=()),  # the same trials
        rates[-1],
    )
    return concluded(SERVING, answers((question,)), _serving_table(network, sizes))


def _request_batches(setting: Setting) -> list[int]:
    points = (point for trial in setting.trials for point in trial.curve)
    return sorted({served.batch_size for point in points for served in point.probes.serving})


def _served(label: str, unit: str, size: int, figure: Callable[[ServingPoint], float]) -> Measure:
    """Return the measure of one figure of the request batch `size`."""

    def read(readings: ProbeReadings) -> float | None:
        point = readings.serving_at(size)
        return None if point is None else figure(point)

    return probe_measure(label, read, unit)


def _rate(size: int) -> Measure:
    return _served("predictions a second", "1/s", size, lambda point: point.predictions_per_s)


def _serving_table(network: Setting, sizes: Sequence[int]) -> Details:
    """Return throughput, latency and device time by request batch; the note names the best one within the limit."""

    def values(measure: Measure) -> list[float]:
        return [value for trial in network.trials if (value := measure.value(trial)) is not None]

    rates = [values(_rate(size)) for size in sizes]
    p50 = [values(_served("latency, p50", "ms", size, lambda point: point.p50_ms)) for size in sizes]
    p99 = [values(_served("latency, p99", "ms", size, lambda point: point.p99_ms)) for size in sizes]
    figures = (
        TableRow("predictions", "1/s", tuple(cell_over_seeds(each) for each in rates)),
        TableRow("latency, median", "ms", tuple(cell_over_seeds(each) for each in p50)),
        TableRow("latency, p99", "ms", tuple(cell_over_seeds(each) for each in p99)),
        TableRow(
            "a million predictions", "device-s", tuple(cell_over_seeds([1e6 / rate for rate in each]) for each in rates)
        ),
    )
    within = [
        (cell_over_seeds(rate).mean or 0.0, size)
        for rate, late, size in zip(rates, p99, sizes, strict=True)
        if late and (cell_over_seeds(late).mean or math.inf) <= LATENCY_LIMIT_MS
    ]
    knee = f"{max(within)[1]} is the best request batch" if within else "No request batch is"
    note = f"{knee} within {LATENCY_LIMIT_MS:g} ms at p99. Measured on the networks of {network.name}."
    return Details(tuple(f"{size}" for size in sizes), figures, note)
