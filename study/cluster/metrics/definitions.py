"""What a study tells Prometheus: the one list of metrics.

Dashboard and alert rules are built from it, and the documentation's table is held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from study.ledger.schema import Decision, Outcome
from study.ledger.state import RECENT_HAND_OVERS

UNREPORTED = "unreported"  # the phase of what an open lease has cost since its group last spoke
OUTCOMES: tuple[str, ...] = get_args(Outcome)
STATES = ("pending", "running", "paused", *OUTCOMES)
KINDS = ("search", "confirm", "censored")
TRIAL_KINDS = KINDS[:2]
DECISIONS: tuple[Decision, ...] = get_args(Decision)


@dataclass(frozen=True)
class Metric:
    """One gauge, by the name that Ray is given; Prometheus sees it with `ray_` before it and the tag `study`."""

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
        "censored once a trial of either has ended without a final accuracy. All of them add up to the bill.",
        ("kind", "phase"),
    ),
    Metric("study_devices_leased", "devices", "Devices that attempts hold now."),
    Metric("study_samples_per_second", "samples/s", "Training speed of the running trials together, last intervals."),
    Metric("study_best_val_accuracy", "fraction", "Best validation accuracy of any report so far.", ("kind",)),
    Metric(
        "study_frontier_hypervolume",
        "device-hours",
        "Area between the frontier of billed confirm trials (device-hours, final accuracy) and (the dearest, 0).",
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
    Metric("study_lacking_ranks", "ranks", "That a waiting study's cluster is too small by; 0 while it does not wait."),
    Metric("study_quiet_seconds", "s", "Since the last word of the quietest running trial; 0 if none runs."),
    Metric("study_longest_interval_seconds", "s", "Longest time that a running trial has taken to its next report."),
    Metric("study_heartbeat_timestamp_seconds", "Unix time", "When the driver last set its metrics."),
    Metric("study_ended_timestamp_seconds", "Unix time", "When the driver ended in order; 0 while it runs."),
)
