"""A failing disk: every call that opens, writes, syncs, renames or removes within a folder can be made to fail."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.ledger.paths import StudyPaths

REFUSALS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)
FULL = (errno.ENOSPC, errno.EDQUOT)  # of which a disk still gives space back
NEEDS_SPACE = {"create", "write", "flush", "fsync", "mkdir", "replace"}


@dataclass(frozen=True)
class Call:
    """One call to the disk."""

    kind: str
    path: Path


class FailingDisk:
    """Records the calls that were made within `folder`, and refuses one of them, or all after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[Call] = []
        self.at_refusal: dict[str, bytes] | None = None  # files when the first call was refused
        self.durable = b""  # the ledger, as it was synced last before that
        self._refuse_at: int | None = None
        self._error = 0
        self._lasting = False

    def refuse(self, at: int, error: int, lasting: bool) -> None:
        """Let the call of that number fail; if `lasting`, also all later ones that such a disk would refuse."""
        self._refuse_at, self._error, self._lasting = at, error, lasting

    def call(self, kind: str, place: Any, tear: Callable[[], Any] = lambda: None) -> None:
        """Raise OSError if the call is refused, after `tear` has done what the call had done until then."""
        path = self._path(place)
        if not path.is_relative_to(self.folder):
            return
        number = len(self.calls)
        self.calls.append(Call(kind, path))
        if self._refuse_at is None or number < self._refuse_at:
            if kind == "fsync" and path.name == StudyPaths.LEDGER:
                self.durable = files(self.folder)[StudyPaths.LEDGER]
            return
        if number > self._refuse_at and not (
            self._lasting and (self._error not in FULL or kind in NEEDS_SPACE)
        ):  # fmt: skip
            return
        if self.at_refusal is None:
            self.at_refusal = files(self.folder)
        tear()
        raise OSError(self._error, os.strerror(self._error), str(path))

    @staticmethod
    def _path(place: Any) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{place}")) if isinstance(place, int) else Path(os.fspath(place))


class _File:
    """A file that is open for writing. A write that is refused has written the first half."""

    def __init__(self, disk: FailingDisk, file: Any) -> None:
        self._disk, self._file = disk, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        self._disk.call("write", self._file.fileno(), lambda: self._file.write(data[: len(data) // 2]))
        return int(self._file.write(data))

    def flush(self) -> None:
        self._disk.call("flush", self._file.fileno())
        self._file.flush()

    def truncate(self, size: int) -> int:
        self._disk.call("truncate", self._file.fileno())
        return int(self._file.truncate(size))


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, by their relative path."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:  # not `Path.open`, which is watched
                found[path.relative_to(folder).as_posix()] = file.read()
    return found


def unfinished(folder: Path) -> list[Path]:
    """Return the temporary files below a folder."""
    return [path for path in folder.rglob("*") if path.suffix == ".tmp"]


@contextmanager
def watched(folder: Path) -> Iterator[FailingDisk]:
    """Let all calls below `folder` pass through the disk that is yielded."""
    disk = FailingDisk(folder)
    real_open, real_io_open = os.open, io.open

    def opened(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        disk.call("create" if flags & os.O_CREAT else "open", path)
        return real_open(path, flags, *rest, **options)

    def io_opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        writes = set(mode) & set("wax+")
        if not isinstance(path, int):
            disk.call("create" if set(mode) & set("wax") else "open", path)
        file = real_io_open(path, mode, *rest, **options)
        return _File(disk, file) if writes and disk._path(file.fileno()).is_relative_to(folder) else file

    def passing(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *rest: Any, **options: Any) -> Any:
            disk.call(kind, place)
            return real(place, *rest, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(io, "open", io_opened)
        for name in ("fsync", "replace", "rename", "unlink", "chmod", "mkdir"):
            patch.setattr(os, name, passing(name, getattr(os, name)))
        yield disk
