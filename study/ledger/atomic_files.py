"""Durable writes: after the call returns, the file is whole on disk, or the old one still is."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from study.errors import DiskError, error_context

_UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a temporary file to write and read, which replaces `path` when the block ends: fsync, rename, fsync of the
    folder.

    Raises DiskError; no temporary file stays behind then, or if the block raises, unless the process itself is killed.
    """
    with error_context(DiskError, path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`, as `replacing` does."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def remove_unfinished(folder: Path, older_than_s: float = 0.0) -> None:
    """Remove temporary files that a killed `write_atomic` has left in `folder`, if they are old enough."""
    with error_context(DiskError, folder):
        for path in folder.glob(f".*{_UNFINISHED}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
