"""Fetched files: only results, only within one folder, and never over another study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails

from study.cluster.jobs.fetch import OnNode, fetch, source_of
from study.cluster.jobs.storage import Store
from study.cluster.jobs.submissions import Submission, SubmittedStudy
from study.errors import ClusterError, ConfigError
from study.ledger.schema import StudyRow
from study.ledger.store import encode, read
from tests.cluster.jobs.test_results import HOSTILE


class Fake:
    """Names and their contents, as a cluster would tell them."""

    def __init__(self, **changes: bytes) -> None:
        self.files = {"config.yaml": b"name: x\n", "ledger.jsonl": b"row 1\n", "report/report.md": b"r"} | changes

    def names(self) -> list[str]:
        return list(self.files)

    def chunks(self, name: str) -> Iterator[bytes]:
        for start in range(0, len(self.files[name]), 3):
            yield self.files[name][start : start + 3]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_arrive_byte_for_byte_and_nothing_else_does(tmp_path: Path) -> None:
    source = Fake(**dict.fromkeys(HOSTILE, b"evil"), **{"checkpoints/a@4.pt": bytes(range(256))})
    out = tmp_path / "deep" / "out"
    fetch(source, out, checkpoints=True)
    assert files(tmp_path) == {
        f"deep/out/{name}": source.files[name]
        for name in ("config.yaml", "ledger.jsonl", "report/report.md", "checkpoints/a@4.pt")
    }
    assert "checkpoints/a@4.pt" not in fetch(source, tmp_path / "light", checkpoints=False)
    assert not (tmp_path / "light" / "checkpoints").exists()


def test_a_later_fetch_goes_on_from_an_earlier_one_and_not_over_another_study(tmp_path: Path) -> None:
    fetch(Fake(), tmp_path, checkpoints=False)
    fetch(Fake(**{"ledger.jsonl": b"row 1\nrow 2\n"}), tmp_path, checkpoints=False)
    for other in (b"row 1\n", b"row 1\nrow X\nrow 3\n"):
        with pytest.raises(ConfigError, match="holds rows that the cluster's ledger lacks"):
            fetch(Fake(**{"ledger.jsonl": other}), tmp_path, checkpoints=False)
    assert files(tmp_path)["ledger.jsonl"] == b"row 1\nrow 2\n"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_links_in_the_way_are_not_followed(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    for folder in (elsewhere, out):
        folder.mkdir()
    (elsewhere / "file").write_text("mine")
    (out / "config.yaml").symlink_to(elsewhere / "file")
    (out / "report").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="report: is a link"):
        fetch(Fake(), out, checkpoints=False)
    assert files(elsewhere) == {"file": b"mine"}
    assert not (out / "config.yaml").is_symlink()


def test_before_the_first_row_there_is_nothing(tmp_path: Path) -> None:
    source = Fake()
    del source.files["ledger.jsonl"]
    with pytest.raises(ClusterError, match="has written nothing yet"):
        fetch(source, tmp_path / "out", checkpoints=False)
    assert not (tmp_path / "out").exists()


def test_a_row_that_was_being_written_is_told(tmp_path: Path) -> None:
    row = StudyRow(
        at_s=0, written="2026-11-25T00:00:00", study_id="a", config={}, config_hash="b", hardware={}, versions={}
    )
    whole = encode(row)
    fetch(Fake(**{"ledger.jsonl": whole + whole[:40]}), tmp_path, checkpoints=False)
    contents = read(tmp_path)
    assert contents.rows == (row,)
    assert "torn line of 40 bytes" in str(contents.damage)


@pytest.mark.parametrize("missing", [FileNotFoundError(2, "gone"), ClusterError("http://head: A file is not found")])
def test_a_snapshot_that_goes_while_it_is_fetched_is_left_out(tmp_path: Path, missing: Exception) -> None:
    source = Fake(**{"checkpoints/a@4.pt": b"s", "checkpoints/b@4.pt": b"s"})
    chunks = source.chunks

    def late(name: str) -> Iterator[bytes]:
        if name == "checkpoints/a@4.pt":  # replaced after it was listed
            del source.files[name]
            raise missing
        return chunks(name)

    source.chunks = late  # type: ignore[method-assign]
    fetched = fetch(source, tmp_path, checkpoints=True)
    assert set(fetched) == set(files(tmp_path)) == set(source.files)
    assert "checkpoints/b@4.pt" in fetched


def test_who_fails_is_blamed(tmp_path: Path) -> None:
    def refused(name: str) -> Iterator[bytes]:
        yield b"row"
        raise OSError("When reading: AWS Error ACCESS_DENIED\nmore")

    source = Fake(**{"checkpoints/a@4.pt": b"s"})
    source.chunks = refused  # type: ignore[method-assign]
    for checkpoints in (True, False):  # a snapshot that is there, but cannot be read, is not left out
        with pytest.raises(ClusterError, match=r"^--storage: When reading: AWS Error ACCESS_DENIED$"):
            fetch(source, tmp_path / "out", checkpoints)
    assert files(tmp_path) == {}
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=rf"^--out: .*File exists: '{tmp_path}/file'"):
        fetch(Fake(), tmp_path / "file", checkpoints=False)


def job_with(storage: str | None) -> SubmittedStudy:
    run = Submission("tiny-1", "Tiny", storage=storage)
    return SubmittedStudy(
        "tiny-1",
        (JobDetails(type="SUBMISSION", status="STOPPED", entrypoint="x", metadata=run.metadata, driver_node_id="n1"),),
    )


def test_storage_is_read_where_it_can_be_and_the_head_is_asked_elsewhere(tmp_path: Path) -> None:
    head: Any = object()  # asked for nothing yet
    (tmp_path / "tiny-1").mkdir()
    assert isinstance(source_of(head, job_with(str(tmp_path))), Store)
    assert isinstance(source_of(head, job_with(f"local://{tmp_path}")), Store)
    assert isinstance(source_of(head, job_with(str(tmp_path / "not-here"))), OnNode)
    assert isinstance(source_of(head, job_with(None)), OnNode)


def test_a_store_that_refuses_only_when_it_is_asked_is_read_through_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store) -> list[str]:
        raise OSError("When listing objects: AWS Error NETWORK_CONNECTION")

    monkeypatch.setattr(Store, "names", refuse)
    head: Any = object()
    assert isinstance(source_of(head, job_with("memory:///studies")), OnNode)
