"""The one list of metrics that a study exports to Prometheus, and PromQL over them.

Dashboard and alert rules are built from it, and a test compares the documentation's table with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from study.ledger.schema import Decision, Outcome
from study.ledger.state import RECENT_HAND_OVERS

UNREPORTED = "unreported"  # the phase of what an open lease has cost since its group's last report
OUTCOMES: tuple[str, ...] = get_args(Outcome)
STATES = ("pending", "running", "paused", *OUTCOMES)
KINDS = ("search", "confirm", "censored")
TRIAL_KINDS = KINDS[:2]
DECISIONS: tuple[Decision, ...] = get_args(Decision)


@dataclass(frozen=True)
class Metric:
    """A gauge by its name in Ray. Prometheus sees it with `ray_` before it and the tag `study`."""

    name: str
    unit: str
    help: str
    tags: tuple[str, ...] = ()  # beside the study's name


METRICS = (
    Metric("study_trials", "trials", "Trials of the plan by state; all states add up to it.", ("kind", "state")),
    Metric(
        "study_device_hours",
        "device-hours",
        "Billed device-hours, open leases included, by phase of the bill and kind of trial: search, confirm, or "
        "censored once a trial of either has ended without a final objective. All of them add up to the bill.",
        ("kind", "phase"),
    ),
    Metric("study_devices_leased", "devices", "Devices that attempts hold now."),
    Metric("study_samples_per_second", "samples/s", "Training speed of the running trials together, last intervals."),
    Metric("study_tokens_per_second", "tokens/s", "The same in tokens; only where a sample holds a number of them."),
    Metric("study_best_objective", "as logged", "Best objective of any report so far.", ("kind", "metric")),
    Metric(
        "study_frontier_hypervolume",
        "device-hours",
        "Area between the frontier of billed confirm trials (device-hours, final objective) and the highest cost, "
        "with an accuracy of 0 or else the worst objective.",
    ),
    Metric("study_decisions", "decisions", f"Answers to reports: {', '.join(DECISIONS)}.", ("decision",)),
    Metric(
        "study_hand_over_seconds",
        "s",
        f"From trial to trial on a warm group, of the last {RECENT_HAND_OVERS}.",
        ("stat",),
    ),
    Metric("study_attempts", "attempts", "Tries at trials, retries included."),
    Metric("study_lost_leases", "leases", "Leases whose group or driver died under them; most are tried again."),
    Metric("study_spend_usd", "USD", "The bill in dollars; only where the study has a price."),
    Metric("study_limit_used_ratio", "ratio", "Spent over allowed; only limits that are given.", ("limit",)),
    Metric(
        "study_lacking_ranks",
        "ranks",
        "Ranks that a waiting study's cluster lacks for a trial; 0 while it does not wait.",
    ),
    Metric("study_quiet_seconds", "s", "Longest time since a running trial's last report; 0 if none runs."),
    Metric("study_longest_interval_seconds", "s", "Longest time that a running trial has taken to its next report."),
    Metric("study_heartbeat_timestamp_seconds", "Unix time", "When the driver last set its metrics."),
    Metric("study_ended_timestamp_seconds", "Unix time", "When the driver ended without an error; 0 while it runs."),
)


def most(metric: str, by: str = "") -> str:
    """Return PromQL for a gauge without the labels of the process that set it: the old and the new driver of a resumed
    study may overlap. `[f]` is the place of a reader's filters.
    """
    return f"max by (study{', ' + by if by else ''}) (ray_{metric}[f])"


def total(metric: str, by: str, where: str = "") -> str:
    """Return the same, summed over the tags that are not in `by`."""
    tags = ", ".join(next(known.tags for known in METRICS if known.name == metric))
    chosen = f"ray_{metric}[f{',' + where if where else ''}]"
    return f"sum by (study{', ' + by if by else ''}) (max by (study, {tags}) ({chosen}))"


def filtered(query: str, filters: str) -> str:
    """Return a query with `[f]` and `[f,…]` replaced by a label selector."""
    opened = query.replace("[f]", "{" + filters + "}" if filters else "")
    head, *rest = opened.split("[f,")
    comma = "," if filters else ""
    return head + "".join("{" + filters + comma + part.replace("]", "}", 1) for part in rest)
