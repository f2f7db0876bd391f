"""What passes between a rank and its driver: reports, and the errors that name whose fault they are."""

from __future__ import annotations

from dataclasses import dataclass

from study.errors import ClusterError, StudyError
from study.measurement import Measurement


class OutOfMemory(StudyError):
    """A trial needs more memory than its device has."""


class Mistake(StudyError):
    """A trial's own code raised; the text is one line, and any process can read it."""


class PeerLost(ClusterError):
    """A rank lost the connection to another of its group."""


@dataclass(slots=True, kw_only=True)
class RankReport(Measurement):
    """One interval as one rank reports it: metrics of all ranks, with the times, energy and memory of this one."""

    phases_s: dict[str, float]  # train, validate, probe: cumulative
    final: bool  # the trial has come to its end
    energy_j: float | None = None  # of this rank's GPU since the trial was ready; None without a meter
    peak_memory_bytes: int | None = None  # of this rank's GPU since the trial began; None on the CPU
