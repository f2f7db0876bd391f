"""The file behind the rows: one JSON object a line, its checksum last, one writer, never rewritten."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydantic import ValidationError

from study.errors import DiskError, LedgerError, error_context
from study.ledger.atomic_files import sync_folder, write_atomic
from study.ledger.paths import StudyPaths
from study.ledger.schema import PROTOCOL_VERSION, ROW, AnyRow

_END = b',"crc32":"%08x"}'
_END_BYTES = len(_END % 0)


@dataclass(frozen=True)
class Contents:
    """The rows of a ledger file, up to the first damaged line."""

    rows: tuple[AnyRow, ...]
    good_bytes: int
    damage: str | None  # what is wrong after the good prefix, naming the line
    is_torn: bool = False  # the damage is a last row that was still being written


def encode(row: AnyRow) -> bytes:
    """Return a row as one line, which ends with a checksum of all before it."""
    body = row.model_dump_json().encode()[:-1]
    return body + _END % zlib.crc32(body) + b"\n"


def decode(line: bytes) -> AnyRow:
    """Return the row of a line that is given without its newline. Raises ValueError if it is damaged."""
    body, end = line[:-_END_BYTES], line[-_END_BYTES:]
    if end != _END % zlib.crc32(body):
        raise ValueError("checksum does not match")
    return ROW.validator.validate_json(body + b"}")


def read(folder: Path) -> Contents:
    """Return the good prefix of a study's ledger, and what is wrong after it. Writes nothing.

    Raises LedgerError if there is no ledger, or if it is of another major protocol version; DiskError if it cannot be
    read.
    """
    scan = LedgerScan(StudyPaths(folder).ledger)
    rows = tuple(scan)
    return Contents(rows, scan.good_bytes, scan.damage, scan.damage is not None and scan.damaged_line is None)


def refuse_links(folder: Path, *others: str) -> None:
    """Raise LedgerError if one of the files that a study writes is a link, which could point out of its folder.

    `others` are more paths to check, relative to `folder`.
    """
    paths = StudyPaths(folder)
    own = (paths.ledger, paths.config, paths.report, paths.checkpoints, paths.scratch)
    for path in (*own, *(folder / name for name in others)):
        if path.is_symlink():
            raise LedgerError(f"{path}: is a link; what a study writes lies in its own folder")


class LedgerScan:
    """One pass over a ledger file, which keeps no row: iterating yields the rows up to the first that is damaged.

    After it, `good_bytes` is the length of the good prefix, `damage` says what is wrong after it, and `damaged_line` is
    that line's number; it is None for a last row that was still being written. Iterating raises LedgerError and
    DiskError as `read` does, at the latest in place of the row that causes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good_bytes = 0
        self.damage: str | None = None
        self.damaged_line: int | None = None

    @property
    def note(self) -> str | None:
        """A sentence for those who read figures made of these rows; None unless rows are missing from them."""
        if self.damaged_line is None:
            return None
        return f"The ledger is damaged from line {self.damaged_line} on: figures lack all that it recorded after that."

    def __iter__(self) -> Iterator[AnyRow]:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for number, line in enumerate(file, start=1):
                    row = self._row(line, number, size)
                    if row is None:
                        return
                    self.good_bytes += len(line)
                    yield row
        except (FileNotFoundError, NotADirectoryError):
            raise LedgerError(f"{self.path.parent}: no study here ({self.path.name} is missing)") from None
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from None

    def _row(self, line: bytes, number: int, size: int) -> AnyRow | None:
        if not line.endswith(b"\n"):
            self.damage = f"{self.path}:{number}: torn line of {len(line)} bytes"
            return None
        try:
            row = decode(line[:-1])
        except ValidationError as error:
            raise LedgerError(
                f"{self.path}:{number}: not a row of protocol {PROTOCOL_VERSION}: {error.error_count()} errors"
            ) from None
        except ValueError as error:
            left = size - self.good_bytes
            self.damage = f"{self.path}:{number}: {error}; {left} bytes from here on are set aside"
            self.damaged_line = number
            return None
        if row.protocol_version.split(".")[0] != PROTOCOL_VERSION.split(".")[0]:
            raise LedgerError(f"{self.path}: protocol {row.protocol_version} cannot be mixed with {PROTOCOL_VERSION}")
        return row


class Ledger:
    """The one writer. Holds a lock on the study's folder for as long as it is open.

    The file is created with its first row. Raises LedgerError if another process holds it or if a link leads out
    of the folder, DiskError.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = StudyPaths(folder)
        self.path = self._paths.ledger
        self.rows: tuple[AnyRow, ...] = ()  # as found when it was opened; those appended are not kept
        self._file: BinaryIO | None = None
        self._durable_bytes = 0
        self._refused: DiskError | None = None
        self.quarantined: str | None = None
        from filelock import FileLock, Timeout  # here, because those who only read a ledger do without it

        refuse_links(folder)
        self._lock = FileLock(self._paths.lock)
        with error_context(DiskError, folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise LedgerError(f"{folder}: another process is running this study") from None
        try:
            if self.path.exists():
                with error_context(DiskError, self.path):
                    self._file = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> BinaryIO:
        contents = read(self.path.parent)
        self.rows = contents.rows
        if contents.damage:
            self.quarantined = self._quarantine(contents)
        file = self.path.open("ab", buffering=0)
        os.fsync(file.fileno())  # the last rows of a driver that was killed may be in memory only
        self._durable_bytes = contents.good_bytes
        return file

    def _quarantine(self, contents: Contents) -> str:
        """Move what follows the good prefix into a side file, then cut it off."""
        side = self._paths.quarantine(time.time_ns())
        with self.path.open("r+b") as file:
            file.seek(contents.good_bytes)
            write_atomic(side, file.read())
            file.truncate(contents.good_bytes)
            os.fsync(file.fileno())
        return f"{contents.damage}; kept in {side.name}"

    def append(self, *rows: AnyRow, durable: bool = True) -> None:
        """Write rows and return when they are on disk; if not `durable`, they will be with the next that are.

        Raises DiskError if the disk refuses. All that is not known to be on it is then cut off again, for a system
        whose fsync has failed may take for written what it has dropped; and the ledger takes no more rows until it is
        opened again.
        """
        if self._refused is not None:
            raise self._refused
        try:
            with error_context(DiskError, self.path):
                self._append(b"".join(encode(row) for row in rows), durable)
        except DiskError as error:
            self._refused = error
            if self._file is not None:
                with suppress(OSError):  # what is left of a row is set aside when it is opened
                    self._file.truncate(self._durable_bytes)
            raise

    def _append(self, data: bytes, durable: bool) -> None:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
            sync_folder(self.path.parent)
        left = memoryview(data)
        while left:  # a disk that is nearly full takes a part
            left = left[self._file.write(left) :]
        if durable:
            os.fsync(self._file.fileno())
            self._durable_bytes = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Release the file and the lock."""
        if self._file is not None:
            self._file.close()
        self._lock.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
