"""Where checkpoints lie."""

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
def test_so_many_of_the_newest_stay_until_the_trial_is_over(
    absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = CheckpointStore((tmp_path if absolute else Path()) / "checkpoints", keep=2)
    for updates, snapshot in ((9, b"old"), (10, b"newer"), (20, b"new")):  # by number, not by name
        shelf.put("a", updates, snapshot)
    shelf.put("b", 10, b"other")
    files = content(tmp_path / "checkpoints")
    assert files == {
        name("a", 10, b"newer"): b"newer",
        name("a", 20, b"new"): b"new",
        name("b", 10, b"other"): b"other",
    }
    monkeypatch.chdir("/")
    shelf.remove("a")
    assert list(content(tmp_path / "checkpoints")) == [name("b", 10, b"other")]


def test_an_attempt_begins_at_the_newest_that_its_ledger_knows_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = CheckpointStore(tmp_path / "checkpoints", keep=3)
    assert shelf.start("a", 100) == {"snapshot": None, "from_updates": 0}
    for updates in (5, 10, 20):
        shelf.put("a", updates, b"at %d" % updates)
    assert shelf.start("a", 20)["from_updates"] == 20
    start = shelf.start("a", 19)
    assert start == {"snapshot": CheckpointRef("here", shelf.folder / name("a", 10, b"at 10")), "from_updates": 10}
    assert start["snapshot"].read() == b"at 10"
    # Its curve begins at 10 again: what another attempt did up to 20 is no part of it any more.
    assert shelf.start("a", 100)["from_updates"] == 10
    assert shelf.start("a", 4)["from_updates"] == 0
    assert content(shelf.folder) == {}
    assert caplog.messages == []


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
def test_a_damaged_one_is_named_and_removed_and_the_one_before_it_used(
    spoil: Callable[[bytes], bytes], wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = CheckpointStore(tmp_path / "checkpoints", keep=2)
    for updates in (10, 20):
        shelf.put("a", updates, b"at %d" % updates)
    older, newer = (shelf.folder / name("a", updates, b"at %d" % updates) for updates in (10, 20))
    newer.write_bytes(spoil(newer.read_bytes()))
    assert shelf.start("a", 20) == {"snapshot": CheckpointRef("here", older), "from_updates": 10}
    assert list(content(shelf.folder)) == [older.name]
    older.write_bytes(spoil(older.read_bytes()))
    assert shelf.start("a", 20) == {"snapshot": None, "from_updates": 0}
    assert caplog.messages == [
        f"checkpoint {newer} is damaged ({wrong}): the trial goes on from the one before, at 10 updates",
        f"checkpoint {older} is damaged ({wrong}): the trial goes on from its beginning",
    ]


def test_what_drivers_that_were_killed_have_left_is_taken_away(tmp_path: Path) -> None:
    shelf = CheckpointStore(tmp_path / "checkpoints", keep=1)
    shelf.tidy(over=["a"])  # no folder yet
    shelf.put("a", 5, b"a")
    shelf.put("ab", 5, b"ab")
    (shelf.folder / f".{name('ab', 6, b'torn')}.x1.tmp").write_bytes(b"to")
    (shelf.folder / "a@7.pt").write_bytes(b"of an earlier version")
    assert shelf.start("a", 100)["from_updates"] == 5
    shelf.tidy(over=["a"])
    assert list(content(shelf.folder)) == [name("ab", 5, b"ab")]
