"""Where results last: a folder that all nodes share, or a store behind a URI that a study's folder is mirrored to."""

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
from study.ledger.store import LEDGER
from study.safe_text import masked

EVERY_S = 5.0
AT_MOST_BUSY = 0.05  # share of the time that goes into the mirror
CHUNK_BYTES = 1 << 20
# What pyarrow and fsspec raise for a store that is not there, refuses, or is written wrong.
TROUBLE = (OSError, ValueError, ImportError, ArrowException)


def shared_folder(storage: str) -> Path | None:
    """The folder meant by a path or a file:// URI; None for a store that cannot be written to in place.

    Raises ClusterError for a relative path, for a scheme that nobody knows, and for a URI with a password or a token in
    it: jobs are listed with their storage.
    """
    import fsspec

    uri = urlsplit(storage)
    known = ("", "file", *fsspec.available_protocols())
    if uri.scheme not in known or "::" in storage:  # fsspec would chain any of its kinds
        raise ConfigError(f"{storage}: no such kind of storage{did_you_mean(uri.scheme, known)}", "--storage")
    if masked(storage) != storage:
        raise ConfigError("credentials belong into the environment of the cluster's nodes, not into a URI", "--storage")
    if uri.scheme not in ("", "file"):
        return None
    folder = Path(uri.path if uri.scheme else storage)
    if not folder.is_absolute():
        raise ConfigError(f"{storage}: give an absolute path, or a URI such as s3://bucket/folder", "--storage")
    return folder


class Store:
    """One study's results behind a URI."""

    def __init__(self, storage: str, study_id: str) -> None:
        """Raises ClusterError where no library at hand can open such a URI, or nothing answers there."""
        place, mark, options = storage.partition("?")
        self.uri = f"{place.rstrip('/')}/{study_id}{mark}{options}"
        with error_context(ClusterError, f"--storage: {storage}", TROUBLE, first_line):
            self._fs, self._path = _filesystem(self.uri)

    def names(self) -> list[str]:
        """The results that are there."""
        selector = arrow.FileSelector(self._path, allow_not_found=True, recursive=True)
        files = [one.path for one in self._fs.get_file_info(selector) if one.type == arrow.FileType.File]
        root = self._path.strip("/") + "/"
        return in_order(path.lstrip("/").removeprefix(root) for path in files)

    def chunks(self, name: str) -> Iterator[bytes]:
        """One result, piece by piece."""
        with self._fs.open_input_stream(f"{self._path}/{name}") as stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece

    def put(self, name: str, content: bytes) -> None:
        """Replace one result."""
        path = f"{self._path}/{name}"
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        """Take one result away."""
        self._fs.delete_file(f"{self._path}/{name}")


def _filesystem(uri: str) -> tuple[arrow.FileSystem, str]:
    try:
        return arrow.FileSystem.from_uri(uri)
    except (ValueError, ArrowException):
        import fsspec

        found, path = fsspec.core.url_to_fs(uri)
        return arrow.PyFileSystem(arrow.FSSpecHandler(found)), path


class Mirror:
    """Keeps a store like a study's folder, from a thread of its own; whole when the block is left.

    Raises ClusterError on entering if the store cannot be used, and on leaving if the last of it could not be written.
    """

    def __init__(self, folder: Path, store: Store, every_s: float = EVERY_S) -> None:
        self.folder, self.store = folder, store
        self._every_s = every_s
        self._known: dict[str, tuple[int, int]] = {}  # as of the last push: time of change and size
        self._gone: set[str] = set()  # in the store, but no longer in the folder at the last push
        self._over = threading.Event()
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
        self._over.set()
        self._thread.join()
        try:
            for _ in range(2):  # the second takes away what the first has found gone
                self.push()
        except TROUBLE as error:
            raise ClusterError(
                f"{self.store.uri}: {first_line(error)}; the results lie in {self.folder} alone", "--storage"
            ) from value

    def push(self) -> None:
        """Bring the store up to what the folder holds now."""
        ledger = self.folder / LEDGER
        # The ledger as of now, its snapshots after that: no row without the snapshot that it speaks of.
        rows = ledger.read_bytes() if ledger.exists() else b""
        names = results_in(self.folder)
        for name in names:
            path = self.folder / name
            try:
                state = path.stat()
                version = (state.st_mtime_ns, state.st_size) if name != LEDGER else (0, len(rows))
                if self._known.get(name) != version:
                    self.store.put(name, rows if name == LEDGER else path.read_bytes())
                    self._known[name] = version
            except FileNotFoundError:  # a trial is over, and its snapshot gone
                continue
        gone = self._known.keys() - set(names)
        # The ledger in the store may still speak of a snapshot that was replaced just now, not of one gone a push ago.
        for name in gone & self._gone:
            self.store.remove(name)
            del self._known[name]
        self._gone = gone - self._gone

    def _pull(self) -> None:
        """What the store has that this node has not: all, unless the folder's ledger goes on from the store's."""
        names = self.store.names()
        ledger = self.folder / LEDGER
        if LEDGER in names and not _goes_on(ledger, self.store.chunks(LEDGER)):
            for name in names:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.folder / name, b"".join(self.store.chunks(name)))

    def _keep(self) -> None:
        wait_s = self._every_s
        while not self._over.wait(wait_s):
            began = time.monotonic()
            try:
                self.push()
            except TROUBLE as error:
                print(f"{self.store.uri}: {first_line(error)}; trying again", file=sys.stderr)
            wait_s = max(self._every_s, (time.monotonic() - began) / AT_MOST_BUSY)


def _goes_on(ledger: Path, chunks: Iterable[bytes]) -> bool:
    """Whether a ledger begins with all that the chunks hold."""
    if not ledger.exists():
        return False
    with ledger.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks)
