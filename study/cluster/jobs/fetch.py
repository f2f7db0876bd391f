"""Copy a submitted study's results to this machine: only known names, only into one folder, through no link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from study.cluster.jobs.head import Head
from study.cluster.jobs.results import in_order
from study.cluster.jobs.storage import TROUBLE, Store, shared_folder
from study.cluster.jobs.submissions import SubmittedStudy
from study.errors import ClusterError, ConfigError, error_context, first_line
from study.ledger.atomic_files import replacing
from study.ledger.paths import StudyPaths
from study.ledger.state import StudyState
from study.ledger.store import decode

MOST_BYTES, MOST_FILES = 16 << 30, 100_000
MOST_CONFIG_BYTES = 16 << 20
MOST_LEDGER_BYTES = 64 << 20  # that `study jobs` reads to count trials


class Source(Protocol):
    """A place from which a study's results can be read."""

    def names(self) -> list[str]:
        """Return the paths of the files there, relative to the study's folder. They are not checked."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes in pieces. Raises ClusterError or one of TROUBLE."""


class OnNode:
    """Reads results through the head, from Ray's log folder on the node of the driver."""

    def __init__(self, head: Head, study: SubmittedStudy) -> None:
        """Raise ClusterError if no driver of the study has started."""
        if study.node_id is None:
            raise ClusterError(f"{study.study_id} has not started, so it has no results yet")
        self._head, self._node, self._folder = head, study.node_id, study.folder

    def names(self) -> list[str]:
        patterns = (f"{self._folder}/*", f"{self._folder}/*/*")
        found = [path for pattern in patterns for path in self._head.files(self._node, pattern)]
        return [path.removeprefix(f"{self._folder}/") for path in found if not path.endswith("/")]

    def chunks(self, name: str) -> Iterator[bytes]:
        return self._head.chunks(self._node, f"{self._folder}/{name}")


def source_of(head: Head, study: SubmittedStudy) -> Source:
    """Return the study's storage if this machine can read it, else its folder through the head."""
    if study.storage is None:
        return OnNode(head, study)
    shared = shared_folder(study.storage)
    if shared is None or (shared / study.study_id).is_dir():
        with suppress(ClusterError, *TROUBLE):  # perhaps only the nodes have access
            store = Store(shared.as_uri() if shared else study.storage, study.study_id)
            store.names()  # some stores connect only now
            return store
    return OnNode(head, study)


def config_of(source: Source) -> bytes:
    """Return the study file as bytes. Raises ClusterError if it is larger than MOST_CONFIG_BYTES."""
    found = bytearray()
    for chunk in source.chunks(StudyPaths.CONFIG):
        found += chunk
        if len(found) > MOST_CONFIG_BYTES:
            raise ClusterError(f"{StudyPaths.CONFIG}: larger than {MOST_CONFIG_BYTES >> 20} MiB")
    return bytes(found)


def ended_trials(source: Source) -> int | None:
    """Return how many trials have ended, from the ledger as it is now; None if it is larger than MOST_LEDGER_BYTES.

    Raises ClusterError or one of TROUBLE if there is no ledger.
    """
    state, line, size = StudyState(whole_curves=False), b"", 0
    for chunk in source.chunks(StudyPaths.LEDGER):
        size += len(chunk)
        if size > MOST_LEDGER_BYTES:
            return None
        *lines, line = (line + chunk).split(b"\n")
        try:
            for whole in lines:
                state.apply(decode(whole))
        except ValueError:  # rows after a damaged one do not count
            break
    return len(state.ended)


def fetch(source: Source, out: Path, checkpoints: bool, most_bytes: int = MOST_BYTES) -> list[str]:
    """Write the results into `out` and return their names, without checkpoints that the study has replaced meanwhile.

    Raises ClusterError if there are none yet or if they are too many files; ConfigError if they take more than
    `most_bytes`, or if `out` holds something else: a link where a folder belongs, or a ledger that the fetched one does
    not continue; and DiskError.
    """
    names = [name for name in _names(source) if checkpoints or not name.startswith(f"{StudyPaths.CHECKPOINTS}/")]
    if StudyPaths.LEDGER not in names or StudyPaths.CONFIG not in names:
        raise ClusterError("the study has written nothing yet")
    if len(names) > MOST_FILES:
        raise ClusterError(f"the study has {len(names):,} files, more than the {MOST_FILES:,} that are fetched")
    fetched = []
    with error_context(ConfigError, "--out", TROUBLE, first_line):
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (out / name).parent.is_symlink() and (out / name).parent != out:
                raise ConfigError(f"{(out / name).parent}: is a link; name another folder", "--out")
            try:
                most_bytes -= _write(source, name, out / name, most_bytes)
                fetched.append(name)
            except (ClusterError, ConfigError):
                # Its trial has gone on, as the ledger knows, which comes later; a resume does without the snapshot.
                if not name.startswith(f"{StudyPaths.CHECKPOINTS}/") or name in _names(source):
                    raise
    return fetched


def _names(source: Source) -> list[str]:
    with error_context(ClusterError, "--storage", TROUBLE, first_line):
        return in_order(source.names())


def _chunks(source: Source, name: str) -> Iterator[bytes]:
    with error_context(ClusterError, "--storage", TROUBLE, first_line):
        yield from source.chunks(name)


def _write(source: Source, name: str, target: Path, most_bytes: int) -> int:
    """Write one file, whole or not at all, and return its size in bytes. A link there is replaced, not followed."""
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as file:
        for chunk in _chunks(source, name):
            if file.tell() + len(chunk) > most_bytes:
                raise ConfigError(f"{name}: with this file the study is larger than the limit", "--most-gib")
            file.write(chunk)
        size = file.tell()
        file.seek(0)
        if name == StudyPaths.LEDGER and target.is_file() and not _begins_with(file, target):
            raise ConfigError(f"{target}: holds rows that the cluster's ledger lacks; name another folder", "--out")
        return size


def _begins_with(longer: BinaryIO, shorter: Path) -> bool:
    with shorter.open("rb") as other:
        while piece := other.read(1 << 20):
            if longer.read(len(piece)) != piece:
                return False
    return True
