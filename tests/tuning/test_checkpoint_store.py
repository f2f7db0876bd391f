"""The checkpoint store: what it keeps, and what an attempt starts from."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from study.tuning.checkpoint_store import CheckpointRef, CheckpointStore


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's node, without a Ray."""

    class Context:
        def get_node_id(self) -> str:
            return "here"

    monkeypatch.setattr("study.tuning.checkpoint_store.ray.get_runtime_context", Context)


def name(trial: str, updates: int, content: bytes) -> str:
    return f"{trial}@{updates}-{zlib.crc32(content):08x}.pt"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("absolute", [True, False])
def test_the_newest_checkpoints_are_kept_until_the_trial_ends(
    absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore((tmp_path if absolute else Path()) / "checkpoints", keep=2)
    for updates, snapshot in ((9, b"old"), (10, b"newer"), (20, b"new")):  # by number, not by name
        store.put("a", updates, snapshot)
    store.put("b", 10, b"other")
    files = content(tmp_path / "checkpoints")
    assert files == {
        name("a", 10, b"newer"): b"newer",
        name("a", 20, b"new"): b"new",
        name("b", 10, b"other"): b"other",
    }
    monkeypatch.chdir("/")
    store.remove("a")
    assert list(content(tmp_path / "checkpoints")) == [name("b", 10, b"other")]


def test_an_attempt_starts_from_the_newest_checkpoint_that_the_ledger_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    assert store.start("a", 100) is None
    for updates in (5, 10, 20):
        store.put("a", updates, b"at %d" % updates)
    assert updates_of(store.start("a", 20)) == 20
    start = store.start("a", 19)
    assert start == CheckpointRef("here", store.folder / name("a", 10, b"at 10"), 10)
    assert start.read() == b"at 10"
    # The trial's curve goes on from 10: what another attempt did up to 20 is no part of it any more.
    assert updates_of(store.start("a", 100)) == 10
    assert store.start("a", 4) is None
    assert content(store.folder) == {}
    assert caplog.messages == []


def updates_of(start: CheckpointRef | None) -> int:
    assert start is not None
    return start.updates


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: content[:-1], "its checksum does not match"),
        (flipped, "its checksum does not match"),
    ],
)
def test_a_damaged_checkpoint_is_logged_and_removed_and_the_one_before_it_is_used(
    spoil: Callable[[bytes], bytes], wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    for updates in (10, 20):
        store.put("a", updates, b"at %d" % updates)
    older, newer = (store.folder / name("a", updates, b"at %d" % updates) for updates in (10, 20))
    newer.write_bytes(spoil(newer.read_bytes()))
    assert store.start("a", 20) == CheckpointRef("here", older, 10)
    assert list(content(store.folder)) == [older.name]
    older.write_bytes(spoil(older.read_bytes()))
    assert store.start("a", 20) is None
    assert caplog.messages == [
        f"checkpoint {newer} is damaged ({wrong}): the trial goes on from the one before, at 10 updates",
        f"checkpoint {older} is damaged ({wrong}): the trial goes on from its beginning",
    ]


def test_tidy_removes_what_killed_drivers_have_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    store.tidy(ended=["a"])  # no folder yet
    store.put("a", 5, b"a")
    store.put("ab", 5, b"ab")
    (store.folder / f".{name('ab', 6, b'torn')}.x1.tmp").write_bytes(b"to")
    (store.folder / "a@7.pt").write_bytes(b"of an earlier version")
    assert updates_of(store.start("a", 100)) == 5
    store.tidy(ended=["a"])
    assert list(content(store.folder)) == [name("ab", 5, b"ab")]
