"""The panels of the dashboard: queries over the metrics, with titles and units."""

from __future__ import annotations

from dataclasses import dataclass

from study.cluster.metrics.definitions import most, total


@dataclass(frozen=True)
class Panel:
    """Queries with their legends. `[f]` is the place of the filters by session, cluster and study."""

    title: str
    help: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 12
    kind: str = "timeseries"
    stacked: bool = False


def _last(metric: str) -> str:
    """Return PromQL for a driver's last value, which is kept after the driver has ended."""
    return f"max by (study) (last_over_time(ray_{metric}[f][10m]))"


_HOURS = total("study_device_hours", "")
PANELS = (
    Panel(
        "Limits used",
        "Spent over allowed, of each limit that the study file gives. Past 100% the study is cut.",
        "ratio",
        ((most("study_limit_used_ratio", "limit"), "{{study}} {{limit}}"),),
        width=6,
        kind="stat",
    ),
    Panel(
        "Spend",
        "The bill in dollars, open leases included; empty where the study has no price.",
        "USD",
        ((most("study_spend_usd"), "{{study}}"),),
        width=6,
        kind="stat",
    ),
    Panel(
        "Best objective",
        "Of any report so far, as logged.",
        "as logged",
        ((most("study_best_objective", "kind, metric"), "{{study}} {{kind}} {{metric}}"),),
        width=6,
        kind="stat",
    ),
    Panel(
        "The driver",
        "Time since it last set its metrics, and since it ended without an error; for ten minutes.",
        "s",
        (
            (f"time() - {_last('study_heartbeat_timestamp_seconds')}", "{{study}} last sign"),
            (f"time() - ({_last('study_ended_timestamp_seconds')} > 0)", "{{study}} ended"),
        ),
        width=6,
        kind="stat",
    ),
    Panel(
        "Trials by state",
        "All trials of the plan, both phases together.",
        "trials",
        ((total("study_trials", "state"), "{{study}} {{state}}"),),
        stacked=True,
    ),
    Panel(
        "Trials that wait or run, by kind",
        "What is left of the search and of the confirm phase.",
        "trials",
        ((total("study_trials", "kind", 'state=~"pending|running|paused"'), "{{study}} {{kind}}"),),
    ),
    Panel(
        "Frontier: hypervolume",
        "Area between the frontier of the billed confirm trials and the highest cost, device-hours times objective.",
        "device-hours",
        ((most("study_frontier_hypervolume"), "{{study}}"),),
    ),
    Panel(
        "Answers to reports",
        "How many reports were answered by each decision, since the study began.",
        "decisions",
        ((most("study_decisions", "decision"), "{{study}} {{decision}}"),),
    ),
    Panel(
        "Device-hours by phase",
        "The bill so far. unreported: what open leases cost since their groups' last reports.",
        "device-hours",
        ((total("study_device_hours", "phase"), "{{study}} {{phase}}"),),
        stacked=True,
    ),
    Panel(
        "Device-hours by kind",
        "Of search and confirm trials that run or completed, and of trials that ended censored.",
        "device-hours",
        ((total("study_device_hours", "kind"), "{{study}} {{kind}}"),),
        stacked=True,
    ),
    Panel(
        "Idle share of the bill",
        "Device-time that groups waited for decisions or for the next trial, over all that is billed.",
        "ratio",
        ((total("study_device_hours", "", 'phase="idle"') + f" / ({_HOURS} > 0)", "{{study}}"),),
    ),
    Panel(
        "Devices leased",
        "Held by attempts now.",
        "devices",
        ((most("study_devices_leased"), "{{study}}"),),
    ),
    Panel(
        "Training speed",
        "Samples a second of all running trials together, each over its last interval, training time only.",
        "samples/s",
        ((most("study_samples_per_second"), "{{study}}"),),
    ),
    Panel(
        "Training speed in tokens",
        "The same in tokens, of studies whose samples hold a number of them.",
        "tokens/s",
        ((most("study_tokens_per_second"), "{{study}}"),),
    ),
    Panel(
        "Hand-over",
        "Seconds from one trial to the next on a warm group; the last hundred.",
        "s",
        ((most("study_hand_over_seconds", "stat"), "{{study}} {{stat}}"),),
    ),
    Panel(
        "Silence",
        "Longest time since a running trial's last report, beside the longest interval between two reports so far.",
        "s",
        (
            (most("study_quiet_seconds"), "{{study}} quietest"),
            (most("study_longest_interval_seconds"), "{{study}} longest interval"),
        ),
    ),
    Panel(
        "Waiting for a larger cluster",
        "Ranks that one trial needs and the cluster has no room for; 0 while the study does not wait.",
        "ranks",
        ((most("study_lacking_ranks"), "{{study}}"),),
    ),
    Panel(
        "Attempts and lost leases",
        "Tries at trials, and those whose group or driver died under them; most of these are tried again.",
        "attempts",
        (
            (most("study_attempts"), "{{study}} attempts"),
            (most("study_lost_leases"), "{{study}} lost"),
        ),
    ),
)
