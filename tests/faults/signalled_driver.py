"""A driver that sends itself signals at chosen writes.

`python -m tests.faults.signalled_driver "kill behind report 2, stop before lease 1" resume FOLDER`: the first argument
holds clauses with commas between; the others are those of `study`.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from typing import Any

from study.cli.app import main
from study.ledger.schema import AnyRow, AttemptRow
from study.ledger.store import Ledger
from study.tuning.checkpoint_store import CheckpointStore

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "stop": signal.SIGSTOP}


class WriteSignals:
    """Counts writes by their kind, before and behind each, and sends the signal of a clause when its turn comes."""

    def __init__(self, clauses: str) -> None:
        self._left = {tuple(rest): SIGNALS[verb] for verb, *rest in map(str.split, clauses.split(","))}
        self._seen: Counter[tuple[str, str]] = Counter()

    def at(self, when: str, kinds: set[str]) -> None:
        """Send the signals that are due at this point."""
        for kind in sorted(kinds):
            self._seen[when, kind] += 1
            due = self._left.pop((when, kind, str(self._seen[when, kind])), None)
            if due is not None:
                signal.raise_signal(due)  # to this thread, so that its handler runs here and not a little later


def kinds_of(rows: tuple[AnyRow, ...]) -> set[str]:
    """Return the kinds of rows that are appended at once, with `confirm` for an attempt of that phase."""
    confirms = {"confirm" for row in rows if isinstance(row, AttemptRow) and row.phase == "confirm"}
    return {row.kind for row in rows} | confirms


def patch_writes(clauses: str) -> None:
    """Count every write from now on, and send signals as `clauses` say."""
    signals, append, put = WriteSignals(clauses), Ledger.append, CheckpointStore.put

    def signalled_append(self: Ledger, *rows: AnyRow, durable: bool = True) -> None:
        signals.at("before", kinds_of(rows))
        append(self, *rows, durable=durable)
        signals.at("behind", kinds_of(rows))

    def signalled_put(self: CheckpointStore, *arguments: Any) -> None:
        signals.at("before", {"checkpoint"})
        put(self, *arguments)
        signals.at("behind", {"checkpoint"})

    Ledger.append = signalled_append  # type: ignore[method-assign]
    CheckpointStore.put = signalled_put  # type: ignore[method-assign]


if __name__ == "__main__":
    patch_writes(sys.argv.pop(1))
    main()
