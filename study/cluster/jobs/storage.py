"""Storage that outlives a cluster: a folder that all nodes share, or a store that a study's folder is mirrored to."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from pyarrow import ArrowException
from pyarrow import fs as arrow

from study.cluster.jobs.results import in_order, results_in
from study.errors import ClusterError, ConfigError, did_you_mean, error_context, first_line
from study.ledger.atomic_files import write_atomic
from study.ledger.paths import StudyPaths
from study.safe_text import masked

EVERY_S = 5.0
AT_MOST_BUSY = 0.05  # share of time that the mirror may work
CHUNK_BYTES = 1 << 20
# pyarrow and fsspec raise these for a store that does not exist, refuses, or has a malformed URI.
TROUBLE = (OSError, ValueError, ImportError, ArrowException)


def shared_folder(storage: str) -> Path | None:
    """Return the folder of a path or a file:// URI; None for the URI of a store.

    Raises ConfigError for a relative path, an unknown scheme, and a URI with a password or token, because everyone who
    lists jobs sees their storage.
    """
    import fsspec

    uri = urlsplit(storage)
    known = ("", "file", *fsspec.available_protocols())
    if uri.scheme not in known or "::" in storage:  # fsspec would chain several schemes
        raise ConfigError(f"{storage}: no such kind of storage{did_you_mean(uri.scheme, known)}", "--storage")
    if masked(storage) != storage:
        raise ConfigError("put credentials into the environment of the cluster's nodes, not into a URI", "--storage")
    if uri.scheme not in ("", "file"):
        return None
    folder = Path(uri.path if uri.scheme else storage)
    if not folder.is_absolute():
        raise ConfigError(f"{storage}: give an absolute path, or a URI such as s3://bucket/folder", "--storage")
    return folder


class Store:
    """One study's results in a store, such as a bucket."""

    def __init__(self, storage: str, study_id: str) -> None:
        """Raise ClusterError if no installed library can open the URI, or if nothing answers there."""
        base, mark, options = storage.partition("?")
        self.uri = f"{base.rstrip('/')}/{study_id}{mark}{options}"
        with error_context(ClusterError, f"--storage: {storage}", TROUBLE, first_line):
            self._fs, self._path = _filesystem(self.uri)

    def names(self) -> list[str]:
        """Return the names of the results in the store, relative to the study's folder."""
        selector = arrow.FileSelector(self._path, allow_not_found=True, recursive=True)
        files = [one.path for one in self._fs.get_file_info(selector) if one.type == arrow.FileType.File]
        root = self._path.strip("/") + "/"
        return in_order(path.lstrip("/").removeprefix(root) for path in files)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one result's bytes in pieces of at most CHUNK_BYTES."""
        with self._fs.open_input_stream(f"{self._path}/{name}") as stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece

    def put(self, name: str, content: bytes) -> None:
        """Write one result, in place of an older one of that name."""
        path = f"{self._path}/{name}"
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        """Delete one result from the store."""
        self._fs.delete_file(f"{self._path}/{name}")


def _filesystem(uri: str) -> tuple[arrow.FileSystem, str]:
    try:
        return arrow.FileSystem.from_uri(uri)
    except (ValueError, ArrowException):
        import fsspec

        found, path = fsspec.core.url_to_fs(uri)
        return arrow.PyFileSystem(arrow.FSSpecHandler(found)), path


class Mirror:
    """Copies a study's folder to a store in a separate thread; both are equal when the block ends.

    Raises ClusterError on entering if the store cannot be used, and on leaving if the last changes were not written.
    """

    def __init__(self, folder: Path, store: Store, every_s: float = EVERY_S) -> None:
        self.folder, self.store = folder, store
        self._every_s = every_s
        self._known: dict[str, tuple[int, int]] = {}  # by name: time of change (ns) and size (bytes) at the last push
        self._gone: set[str] = set()  # in the store, but no longer in the folder at the last push
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        with error_context(ClusterError, f"--storage: {self.store.uri}", TROUBLE, first_line):
            self._pull()
            self.push()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        try:
            for _ in range(2):  # the second deletes what the first found gone
                self.push()
        except TROUBLE as error:
            raise ClusterError(
                f"{self.store.uri}: {first_line(error)}; the results are only in {self.folder}", "--storage"
            ) from value

    def push(self) -> None:
        """Write changed results to the store, and delete those that were gone at the last push too."""
        ledger = StudyPaths(self.folder).ledger
        # Read the ledger before its checkpoints, so that the store holds no row without its checkpoint.
        rows = ledger.read_bytes() if ledger.exists() else b""
        names = results_in(self.folder)
        for name in names:
            path = self.folder / name
            try:
                state = path.stat()
                version = (state.st_mtime_ns, state.st_size) if name != StudyPaths.LEDGER else (0, len(rows))
                if self._known.get(name) != version:
                    self.store.put(name, rows if name == StudyPaths.LEDGER else path.read_bytes())
                    self._known[name] = version
            except FileNotFoundError:  # its trial has ended and deleted the checkpoint
                continue
        gone = self._known.keys() - set(names)
        # Rows in the store may refer to a checkpoint that was replaced just now, but not to one gone at the last push.
        for name in gone & self._gone:
            self.store.remove(name)
            del self._known[name]
        self._gone = gone - self._gone

    def _pull(self) -> None:
        """Copy all from the store into the folder, unless the folder's ledger continues the store's."""
        names = self.store.names()
        ledger = StudyPaths(self.folder).ledger
        if StudyPaths.LEDGER in names and not _continues(ledger, self.store.chunks(StudyPaths.LEDGER)):
            for name in names:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.folder / name, b"".join(self.store.chunks(name)))

    def _keep(self) -> None:
        wait_s = self._every_s
        while not self._ending.wait(wait_s):
            began = time.monotonic()
            try:
                self.push()
            except TROUBLE as error:
                print(f"{self.store.uri}: {first_line(error)}; trying again", file=sys.stderr)
            wait_s = max(self._every_s, (time.monotonic() - began) / AT_MOST_BUSY)


def _continues(ledger: Path, chunks: Iterable[bytes]) -> bool:
    """Return whether a ledger begins with the bytes of all chunks."""
    if not ledger.exists():
        return False
    with ledger.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks)
