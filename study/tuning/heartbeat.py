"""Waiting for ranks that may never answer: one that is silent, and a group that is stuck, is lost (docs/adr/016)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from study.config.sections import Recovery
from study.errors import ClusterError

ASK_EVERY_S = 5.0
STARTING = 10  # times as long may a rank be silent whose process has yet to start


class RankLost(ClusterError):
    """A rank is gone, or does not go on."""


def why_lost(error_file: str | None) -> str:
    """What an attempt died of, from the text that Tune wrote: of one that died in a setup, Ray keeps nothing else."""
    text = Path(error_file).read_text() if error_file else ""
    told = re.findall(rf"{RankLost.__name__}: (.+)", text.rpartition("Failure # ")[2])
    return told[-1] if told else "the process that drives its group died"


class Heartbeat:
    """Asks the ranks of a group whether they live, while a call to them is outstanding and at no other time.

    `alive` is an actor method in a concurrency group of its own, so that it answers while another one works; it returns
    a number that changes as long as the rank gets anything done.
    """

    def __init__(self, actors: Sequence[Any], recovery: Recovery) -> None:
        self._actors, self._recovery = actors, recovery
        self._every_s = min(recovery.silent_s / 4, recovery.stuck_s / 4, ASK_EVERY_S)
        self._met: set[int] = set()  # ranks that have answered before
        self.hosts: list[str] = []  # of the ranks, once they have told

    def get(self, calls: list[Any]) -> list[Any]:
        """What calls to the ranks return. Raises at once if one of them fails, and RankLost for a rank that does not
        answer for `silent_s`, or if none has got anything done for `stuck_s`.
        """
        self._asked: dict[int, Any] = {}
        self._silent_s = [0.0] * len(self._actors)
        self._still_s = 0.0
        self._progress: list[int | None] = [None] * len(self._actors)
        while True:
            try:
                return ray.get(calls, timeout=self._every_s)
            except GetTimeoutError:
                self._look()

    def name(self, rank: int) -> str:
        """For people."""
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    def _look(self) -> None:
        """Time is counted in looks, so that nobody is silent to a machine that was asleep itself."""
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
        started = len(self._met) == len(self._actors)  # until then, the bound on silence is theirs
        self._still_s = self._still_s + self._every_s if started and self._progress == before else 0.0
        if self._still_s >= self._recovery.stuck_s:
            raise RankLost(f"no rank got anything done for {self._still_s:.0f} s")
