"""A driver that signals itself at chosen writes: `python -m tests.faults.doomed "kill behind report 2" resume FOLDER`.

The first argument holds such clauses, with commas between; the others are those of `study`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any

from study.cli.app import main
from study.ledger.schema import AnyRow, AttemptRow
from study.ledger.store import Ledger
from study.tuning.checkpoint_store import CheckpointStore

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "stop": signal.SIGSTOP}


class Doom:
    """Counts the writes of each kind by what it is just before, or just behind."""

    def __init__(self, clauses: str) -> None:
        self._left = {tuple(rest): SIGNALS[verb] for verb, *rest in map(str.split, clauses.split(","))}
        self._seen: Counter[tuple[str, str]] = Counter()

    def at(self, when: str, kinds: set[str]) -> None:
        """Sends what is due."""
        for kind in sorted(kinds):
            self._seen[when, kind] += 1
            due = self._left.pop((when, kind, str(self._seen[when, kind])), None)
            if due is not None:
                os.kill(os.getpid(), due)


def kinds_of(rows: tuple[AnyRow, ...]) -> set[str]:
    """Of what is appended at once; `confirm` beside `attempt`, where it is one of that phase."""
    confirms = {"confirm" for row in rows if isinstance(row, AttemptRow) and row.phase == "confirm"}
    return {row.kind for row in rows} | confirms


def doom(clauses: str) -> None:
    """Everything that is written from now on counts."""
    doom, append, put = Doom(clauses), Ledger.append, CheckpointStore.put

    def doomed_append(self: Ledger, *rows: AnyRow, durable: bool = True) -> None:
        doom.at("before", kinds_of(rows))
        append(self, *rows, durable=durable)
        doom.at("behind", kinds_of(rows))

    def doomed_put(self: CheckpointStore, *arguments: Any) -> None:
        doom.at("before", {"checkpoint"})
        put(self, *arguments)
        doom.at("behind", {"checkpoint"})

    Ledger.append = doomed_append  # type: ignore[method-assign]
    CheckpointStore.put = doomed_put  # type: ignore[method-assign]


if __name__ == "__main__":
    doom(sys.argv.pop(1))
    main()
