"""What was found out once about this machine, in the user's cache folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from study.errors import DiskError
from study.ledger.atomic_files import write_atomic


def cache_folder() -> Path:
    """The package's own, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "study"


class JsonCache:
    """Whole numbers by key, in one file. It can be lost at any time: what cannot be read is as good as not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> int | None:
        """The number, if one above 0 is remembered."""
        found = self._read().get(key)
        return found if isinstance(found, int) and found > 0 else None

    def put(self, key: str, number: int) -> None:
        """Remember it, where the folder can be written."""
        with suppress(OSError, DiskError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(self._read() | {key: number}, indent=1))

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
