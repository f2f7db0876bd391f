"""The alert rules of Prometheus over the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from study.cluster.metrics.definitions import OUTCOMES, most, total


@dataclass(frozen=True)
class Alert:
    """A rule that fires once `expr` has had a result for `hold`."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str


_ENDED = f'state=~"{"|".join(OUTCOMES)}"'
_FAILED = total("study_trials", "", 'state="failed"')
_QUIET, _LONGEST = most("study_quiet_seconds"), most("study_longest_interval_seconds")
_LAST_SIGN = "max by (study) (last_over_time(ray_study_heartbeat_timestamp_seconds[f][1h]))"
_ORDERLY_END = "max by (study) (last_over_time(ray_study_ended_timestamp_seconds[f][1h]))"
ALERTS = (
    Alert(
        "StudyGroupStuck",
        f"({_QUIET} > 60 and {_QUIET} > 3 * {_LONGEST}) or ({_QUIET} > 1800 unless {_LONGEST})",
        "1m",
        "warning",
        "A trial of {{ $labels.study }} has not reported for {{ $value | humanizeDuration }}",
        "That is three times the longest interval so far, or half an hour without any report. Its leases are billed "
        "all the same: look at the group in Ray's dashboard, under the study's name.",
    ),
    Alert(
        "StudyWaits",
        f"{most('study_lacking_ranks')} > 0",
        "5m",
        "warning",
        "{{ $labels.study }} waits: its cluster lacks {{ $value }} ranks for a single trial",
        "Nothing of it runs until machines join, or until limits.wait_h cuts it.",
    ),
    Alert(
        "StudyNearLimit",
        f"{most('study_limit_used_ratio', 'limit')} >= 0.9 < 1",
        "0s",
        "warning",
        "{{ $labels.study }} has used {{ $value | humanizePercentage }} of its limit {{ $labels.limit }}",
        "At 100% it is cut: no new trial starts, and running ones end at their next report.",
    ),
    Alert(
        "StudyPastLimit",
        f"{most('study_limit_used_ratio', 'limit')} >= 1",
        "0s",
        "critical",
        "{{ $labels.study }} is past its limit {{ $labels.limit }}: {{ $value | humanizePercentage }}",
        "Running trials end at their next report. To go on, raise the limit and resume the study.",
    ),
    Alert(
        "StudyTrialsFail",
        f"{_FAILED} / {total('study_trials', '', _ENDED)} > 0.1 and {_FAILED} >= 3",
        "0s",
        "warning",
        "{{ $value | humanizePercentage }} of the trials of {{ $labels.study }} that finished have failed",
        "Failed is not diverged: processes died, memory ran out, or the user's code raised. `study status` and the "
        "report name the errors.",
    ),
    Alert(
        "StudyDriverGone",
        f"(time() - {_LAST_SIGN} > 60) and ({_LAST_SIGN} > {_ORDERLY_END})",
        "0s",
        "critical",
        "The driver of {{ $labels.study }} gave its last sign {{ $value | humanizeDuration }} ago",
        "It did not end in order. What it had written is in the ledger: `study resume` goes on from there.",
    ),
)
