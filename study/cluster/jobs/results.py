"""Which files of a study's folder are results. Only these names are copied, because a remote side may send any name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from study.ledger.paths import StudyPaths

# No name begins with a dot, holds `..` as a folder, or is deeper than one folder, so it is safe to join to a path.
_PLAIN = r"[A-Za-z0-9+_-][A-Za-z0-9+_.@-]*"
_RESULT = re.compile(
    "|".join(
        (
            re.escape(StudyPaths.CONFIG),
            re.escape(StudyPaths.LEDGER),
            rf"{re.escape(StudyPaths.QUARANTINE)}\d+",
            rf"(?:{StudyPaths.REPORT}|{StudyPaths.CHECKPOINTS})/{_PLAIN}",
        )
    )
)


def is_result(name: str) -> bool:
    """Return whether a path relative to a study's folder, with slashes, is the name of a result."""
    return _RESULT.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """Return the results among the names, checkpoints before the ledger, whose rows refer to them."""
    ranks = {StudyPaths.CONFIG: 0, StudyPaths.CHECKPOINTS: 1, StudyPaths.LEDGER: 2, StudyPaths.REPORT: 3}
    return sorted(filter(is_result, names), key=lambda name: (ranks.get(name.partition("/")[0], 4), name))


def results_in(folder: Path) -> list[str]:
    """Return the names of the results in a study's folder, without links."""
    found = (*folder.glob("*"), *folder.glob(f"{StudyPaths.REPORT}/*"), *folder.glob(f"{StudyPaths.CHECKPOINTS}/*"))
    return in_order(path.relative_to(folder).as_posix() for path in found if path.is_file() and not path.is_symlink())
