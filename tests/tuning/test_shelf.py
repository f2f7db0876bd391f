"""Where paused trials lie."""

from pathlib import Path

import pytest

from study.tuning.shelf import Shelf


@pytest.mark.parametrize("absolute", [True, False])
def test_a_snapshot_replaces_the_one_before_and_stays(
    absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = Shelf((tmp_path if absolute else Path()) / "checkpoints")
    shelf.put("a", 10, b"old")
    shelf.put("a", 20, b"new")
    shelf.put("b", 10, b"other")
    files = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    assert files == {"a@20.pt": b"new", "b@10.pt": b"other"}
    monkeypatch.chdir("/")
    shelf.remove("a")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["b@10.pt"]
