"""What of a study's folder is a result, and may travel: by name, whoever says the name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from study.ledger.store import CHECKPOINTS, CONFIG, LEDGER, REPORT

# No name begins with a dot, none climbs, none lies deeper than one folder: safe to join to a path.
_PLAIN = r"[A-Za-z0-9+_-][A-Za-z0-9+_.@-]*"
_RESULT = re.compile(
    rf"{re.escape(CONFIG)}|{re.escape(LEDGER)}(?:\.quarantine-\d+)?|(?:{REPORT}|{CHECKPOINTS})/{_PLAIN}"
)


def is_result(name: str) -> bool:
    """Whether a path relative to a study's folder, with slashes, is one that a study writes for others."""
    return _RESULT.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """Results alone, what the ledger rests on before it: a snapshot is there before the row that speaks of it."""
    ranks = {CONFIG: 0, CHECKPOINTS: 1, LEDGER: 2, REPORT: 3}
    return sorted(filter(is_result, names), key=lambda name: (ranks.get(name.partition("/")[0], 4), name))


def results_in(folder: Path) -> list[str]:
    """The results that lie in a study's folder, links left out."""
    found = (*folder.glob("*"), *folder.glob(f"{REPORT}/*"), *folder.glob(f"{CHECKPOINTS}/*"))
    return in_order(path.relative_to(folder).as_posix() for path in found if path.is_file() and not path.is_symlink())
