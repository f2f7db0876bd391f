"""Waits for ranks that may never answer: a silent rank, or a stuck group, is lost (docs/adr/016)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError

from study.config.sections import Recovery
from study.errors import ClusterError

ASK_EVERY_S = 5.0
STARTING = 10  # a rank whose process has yet to start may be silent this many times as long


class RankLost(ClusterError):
    """A rank has died, does not answer, or its group makes no progress."""


def why_lost(error_file: str | None) -> str:
    """Return in one line why an attempt died, from the text that Tune wrote: of an error in a set-up, Ray keeps only
    the text.
    """
    text = Path(error_file).read_text() if error_file else ""
    reasons = re.findall(rf"{RankLost.__name__}: (.+)", text.rpartition("Failure # ")[2])
    return reasons[-1] if reasons else "the process that drives its group died"


class Heartbeat:
    """Asks the ranks of a group whether they are alive, while a call to them is outstanding and at no other time.

    It calls the actors' method `alive`, which has its own concurrency group, so that it answers while another method
    runs. `alive` returns a number that changes while the rank makes progress.
    """

    def __init__(self, actors: Sequence[ActorHandle], recovery: Recovery) -> None:
        self._actors, self._recovery = actors, recovery
        self._every_s = min(recovery.silent_s / 4, recovery.stuck_s / 4, ASK_EVERY_S)
        self._met: set[int] = set()  # ranks that have answered once
        self.hosts: list[str] = []  # of the ranks, once known

    def get(self, calls: list[ObjectRef]) -> list[Any]:
        """Return the results of calls to the ranks, in order.

        Raises what a failed call raises, at once. Raises RankLost for a rank that does not answer for `silent_s`, or if
        no rank makes progress for `stuck_s`.
        """
        self._asked: dict[int, ObjectRef] = {}
        self._silent_s = [0.0] * len(self._actors)
        self._still_s = 0.0
        self._progress: list[int | None] = [None] * len(self._actors)
        while True:
            try:
                return ray.get(calls, timeout=self._every_s)
            except GetTimeoutError:
                self._look()

    def name(self, rank: int) -> str:
        """Return a rank's name for people: its number, and its host once known."""
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    def _look(self) -> None:
        """Collect answers and ask again. Time is counted in looks: a machine that slept itself blames no rank."""
        before = list(self._progress)
        for rank, actor in enumerate(self._actors):
            self._silent_s[rank] += self._every_s
            if rank in self._asked and ray.wait([self._asked[rank]], timeout=0)[0]:
                self._progress[rank] = ray.get(self._asked.pop(rank))
                self._met.add(rank)
                self._silent_s[rank] = 0.0
            if self._silent_s[rank] >= self._recovery.silent_s * (1 if rank in self._met else STARTING):
                raise RankLost(f"{self.name(rank)} did not answer for {self._silent_s[rank]:.0f} s")
            if rank not in self._asked:
                self._asked[rank] = actor.alive.remote()
        started = len(self._met) == len(self._actors)  # until then, only the limit on silence applies
        self._still_s = self._still_s + self._every_s if started and self._progress == before else 0.0
        if self._still_s >= self._recovery.stuck_s:
            raise RankLost(f"no rank made progress for {self._still_s:.0f} s")
