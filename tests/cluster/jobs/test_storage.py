"""Storage behind a URI, through fsspec's file system in memory and on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from study.cluster.jobs.storage import Mirror, Store, shared_folder
from study.errors import ClusterError, StudyError


def content(store: Store) -> dict[str, bytes]:
    return {name: b"".join(store.chunks(name)) for name in store.names()}


@pytest.fixture(params=["memory://{}", "local://{}", "file://{}"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(request.param.format(tmp_path / "store"), "tiny-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder."""
    folder = tmp_path / "study"
    for name, text in {"config.yaml": "c", "ledger.jsonl": "row 1\n", "checkpoints/a@4.pt": "s", ".lock": "l"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("storage", "uri"),
    [
        (
            "s3://b/p?endpoint_override=127.0.0.1:9000&scheme=http",
            "s3://b/p/a-1?endpoint_override=127.0.0.1:9000&scheme=http",
        ),
        ("s3://b/?region=eu-north-1", "s3://b/a-1?region=eu-north-1"),
    ],
)
def test_a_study_has_a_folder_of_its_own_whatever_options_a_uri_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, uri: str
) -> None:
    one, other = (Store(f"{tmp_path.as_uri()}?use_mmap", name) for name in ("a-1", "b-1"))
    one.put("config.yaml", b"c")
    assert (tmp_path / "a-1" / "config.yaml").read_bytes() == b"c"
    assert other.names() == []
    opened: list[str] = []
    monkeypatch.setattr("study.cluster.jobs.storage._filesystem", lambda opening: (None, opened.append(opening) or "p"))
    Store(storage, "a-1")
    assert opened == [uri]


def test_a_mirror_is_the_folders_results_when_it_is_left(folder: Path, store: Store) -> None:
    with Mirror(folder, store):
        assert content(store) == {"config.yaml": b"c", "checkpoints/a@4.pt": b"s", "ledger.jsonl": b"row 1\n"}
        (folder / "ledger.jsonl").write_text("row 1\nrow 2\n")
        (folder / "checkpoints" / "a@4.pt").unlink()
        (folder / "report").mkdir()
        (folder / "report" / "report.md").write_text("r")
    assert content(store) == {"config.yaml": b"c", "ledger.jsonl": b"row 1\nrow 2\n", "report/report.md": b"r"}


def test_a_mirror_follows_by_itself(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, followed = store.put, threading.Event()

    def seen(name: str, written: bytes) -> None:
        put(name, written)
        if written == b"row 1\nrow 2\n":
            followed.set()

    monkeypatch.setattr(store, "put", seen)
    with Mirror(folder, store, every_s=0.01):
        (folder / "ledger.jsonl").write_text("row 1\nrow 2\n")
        assert followed.wait(10)


def test_the_ledger_in_the_store_never_knows_more_than_its_snapshots(folder: Path, store: Store) -> None:
    put = store.put

    def late(name: str, written: bytes) -> None:
        if name == "config.yaml":  # a trial pauses while the mirror is at work
            (folder / "ledger.jsonl").write_text("row 1\npause of b\n")
            (folder / "checkpoints" / "b@8.pt").write_text("s")
        put(name, written)

    store.put = late  # type: ignore[method-assign]
    Mirror(folder, store).push()
    assert content(store)["ledger.jsonl"] == b"row 1\n"


def test_a_snapshot_stays_in_the_store_as_long_as_the_ledger_there_speaks_of_it(folder: Path, store: Store) -> None:
    mirror, put = Mirror(folder, store), store.put
    mirror.push()

    def late(name: str, written: bytes) -> None:
        put(name, written)
        if name == "config.yaml":  # the trial has gone on from @4, and pauses again; its row is not yet written
            (folder / "checkpoints" / "a@4.pt").unlink(missing_ok=True)
            (folder / "checkpoints" / "a@8.pt").write_text("t")

    store.put = late  # type: ignore[method-assign]
    (folder / "config.yaml").write_text("other limits")
    for _ in range(2):  # replaced while the mirror looks, and just before it does
        before = content(store)
        mirror.push()
        assert content(store)["ledger.jsonl"] == before["ledger.jsonl"] == b"row 1\n"
        assert content(store)["checkpoints/a@4.pt"] == b"s"
    (folder / "ledger.jsonl").write_text("row 1\npause at 8\n")
    mirror.push()
    assert content(store) == {
        "config.yaml": b"other limits",
        "ledger.jsonl": b"row 1\npause at 8\n",
        "checkpoints/a@8.pt": b"t",
    }


@pytest.mark.parametrize(
    ("here", "then"),
    [
        (None, "row 1\nrow 2\n"),  # another node, or a new one
        ("row 1\nrow 2\nrow 3\n", "row 1\nrow 2\nrow 3\n"),  # the same node: its last rows never reached the store
        ("row 1\nother\nrow 3\n", "row 1\nrow 2\n"),  # a node that was left behind
    ],
)
def test_a_resumed_study_goes_on_from_the_ledger_that_knows_most(
    tmp_path: Path, store: Store, here: str | None, then: str
) -> None:
    store.put("config.yaml", b"c")
    store.put("ledger.jsonl", b"row 1\nrow 2\n")
    store.put("checkpoints/a@4.pt", b"s")
    folder = tmp_path / "node"
    folder.mkdir()
    if here is not None:
        (folder / "ledger.jsonl").write_text(here)
    with Mirror(folder, store):
        assert (folder / "ledger.jsonl").read_text() == then
    assert content(store)["ledger.jsonl"] == then.encode()


def test_a_store_that_fails_is_told_when_the_study_begins_and_when_it_ends(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ClusterError, match=r"^--storage: local://"),
        Mirror(folder, Store(f"local://{tmp_path}/file", "x")),
    ):
        raise AssertionError("the store is a file")
    good = Store(f"local://{tmp_path}/store", "x")
    mirror = Mirror(folder, good)

    def study() -> None:
        with mirror:
            (folder / "ledger.jsonl").write_text("row 1\nrow 2\n")
            good.put = fail  # type: ignore[method-assign]

    def fail(name: str, written: bytes) -> None:
        raise PermissionError(13, "no longer")

    with pytest.raises(ClusterError, match=f"no longer; the results are only in {folder}"):
        study()


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ("/mnt/studies", Path("/mnt/studies")),
        ("file:///mnt/studies", Path("/mnt/studies")),
        ("s3://bucket/studies", None),
        ("gs://bucket/studies", None),
    ],
)
def test_a_path_is_written_in_place_and_a_uri_is_not(storage: str, folder: Path | None) -> None:
    assert shared_folder(storage) == folder


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: shared_folder("studies"), "give an absolute path, or a URI"),
        (lambda: shared_folder("s3://key:secret@bucket/x"), "put credentials into the environment"),
        (lambda: shared_folder("nosuch://bucket"), "no such kind of storage"),
        (lambda: Store("nosuch://bucket", "x"), "nosuch"),
    ],
)
def test_storage_that_cannot_work_is_refused(use: Callable[[], object], says: str) -> None:
    with pytest.raises(StudyError, match=says) as raised:
        use()
    assert "secret" not in str(raised.value)
