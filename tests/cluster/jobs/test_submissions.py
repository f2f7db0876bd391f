"""Studies among a cluster's jobs."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.job_submission import JobDetails, JobStatus

from study.cli import job_commands as commands
from study.cluster.jobs import fetch as fetching
from study.cluster.jobs.fetch import ended_trials
from study.cluster.jobs.submissions import Submission, find, new_id, studies_of
from study.config.loader import to_yaml
from study.errors import ClusterError, ConfigError
from study.ledger.schema import AnyRow, EndRow
from study.ledger.store import encode
from tests.conftest import make_config


def job(run: Submission, status: str = "SUCCEEDED", start_s: int = 1000, node: str | None = "n1") -> JobDetails:
    return JobDetails(
        type="SUBMISSION", submission_id=run.job_id, status=status, entrypoint=run.entrypoint,
        metadata=run.metadata, start_time=start_s * 1000, driver_node_id=node,
    )  # fmt: skip


@given(st.text(min_size=1, max_size=80))
def test_an_id_is_a_plain_word_whatever_the_study_is_called(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{6}", new_id(name))


def test_runs_of_a_study_are_one_study_and_its_last_run_counts() -> None:
    first = Submission("tiny-1", "Tiny", storage="s3://b/x", driver_cpus=0.5)
    stopped = studies_of([job(first, "STOPPED")])["tiny-1"]
    second = stopped.next_run()
    assert (second.job_id, second.storage, second.driver_cpus) == ("tiny-1.2", "s3://b/x", 0.5)
    runs = [job(first, "STOPPED")]
    for number in range(2, 12):  # 10 comes after 9, not after 1
        runs.insert(0, job(studies_of(runs)["tiny-1"].next_run(), "FAILED", start_s=1000 + number))
    study = studies_of(runs)["tiny-1"]
    assert (study.job_id, len(study.runs), study.status) == ("tiny-1.11", 11, JobStatus.FAILED)
    assert study.started.timestamp() == 1000


def test_other_peoples_jobs_are_no_studies_and_the_latest_comes_first() -> None:
    other = JobDetails(type="SUBMISSION", submission_id="raysubmit_x", status="RUNNING", entrypoint="x", metadata=None)
    old, new = Submission("old-1", "Old"), Submission("new-1", "New")
    assert list(studies_of([job(old, start_s=1), other, job(new, start_s=2)])) == ["new-1", "old-1"]


def test_the_folder_is_where_a_driver_last_was_not_where_one_never_came_to_be() -> None:
    first = Submission("tiny-1", "Tiny")
    stopped = studies_of([job(first, "STOPPED", node="n1")])["tiny-1"]
    pending = job(stopped.next_run(), "PENDING", node=None)
    assert studies_of([job(first, "STOPPED", node="n1"), pending])["tiny-1"].node_id == "n1"


def test_storage_with_spaces_stays_one_word_of_the_command() -> None:
    run = Submission("tiny-1", "Tiny", storage="/mnt/my studies; rm -rf $HOME")
    assert shlex.split(run.entrypoint)[-1] == run.storage


def test_an_unknown_id_is_one_line_with_the_nearest() -> None:
    studies = studies_of([job(Submission("tiny-abc123", "Tiny"))])
    with pytest.raises(ClusterError, match=re.escape("tiny-abc12: no study of that id (did you mean tiny-abc123?)")):
        find(studies, "tiny-abc12")
    with pytest.raises(ClusterError, match="none was submitted there"):
        find({}, "x")


def ledger_of(*rows: AnyRow, tail: bytes = b"") -> Any:
    """A source whose ledger comes in small pieces."""
    data = b"".join(map(encode, rows)) + tail
    return SimpleNamespace(chunks=lambda name: (data[at : at + 7] for at in range(0, len(data), 7)))


def end(trial_id: str) -> EndRow:
    return EndRow(
        at_s=1.0, written="2026-01-01T00:00:00+00:00", trial_id=trial_id, outcome="completed", attempts=1,
        final_val_accuracy=0.9, best_val_accuracy=0.9, test_accuracy=None, error=None,
    )  # fmt: skip


def test_ended_trials_are_counted_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_trials(ledger_of()) == 0
    assert ended_trials(ledger_of(end("a"), end("b"), end("b"))) == 2
    torn = encode(end("c"))
    assert ended_trials(ledger_of(end("a"), tail=torn[:-9])) == 1
    assert ended_trials(ledger_of(end("a"), tail=b"damaged\n" + torn)) == 1
    monkeypatch.setattr("study.cluster.jobs.fetch.MOST_LEDGER_BYTES", 10)
    assert ended_trials(ledger_of(end("a"))) is None


@pytest.mark.parametrize(("said", "means"), [("8", 8), ("", 0), ("many", 0), ("9" * 5000, 0)])
def test_the_number_of_trials_is_read_from_the_metadata(said: str, means: int) -> None:
    described = job(Submission("tiny-1", "Tiny", n_trials=5), "RUNNING")
    described.metadata["study_trials"] = said
    study = studies_of([described])["tiny-1"]
    assert study.n_trials == means
    assert study.next_run().n_trials == means


def test_a_resume_raises_limits_and_sends_nothing_that_the_driver_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = studies_of([job(Submission("tiny-1", "Tiny"), "STOPPED")])["tiny-1"]
    text, sent = to_yaml(make_config()).encode(), []
    source = SimpleNamespace(chunks=lambda name: iter([text]))

    def send(head: Any, run: Submission, config: Any, node_id: str | None) -> None:
        sent.append((run.job_id, config.limits.wall_h, node_id))

    monkeypatch.setattr(commands, "_head", lambda address: SimpleNamespace(address=address))
    monkeypatch.setattr(commands, "_found", lambda head, study_id: stopped)
    monkeypatch.setattr(fetching, "source_of", lambda head, study: source)
    monkeypatch.setattr(commands, "_send", send)
    with pytest.raises(ConfigError, match=r"^--set: tiny-1 .*only limits, recovery and tracking may change$"):
        commands.resume_submitted("tiny-1", "http://head:8265", ["search.lr=[0.1,0.9]", "limits.wall_h=20"])
    assert sent == []
    commands.resume_submitted("tiny-1", "http://head:8265", ["limits.wall_h=20", "search.lr=[0.05,0.2]"])
    assert sent == [("tiny-1.2", 20, "n1")]


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        ("SUCCEEDED", 0, "finished"),
        ("FAILED", 3, "cut by a limit"),
        ("FAILED", 5, "ended, no trial completed"),
        ("FAILED", 130, "interrupted"),
        ("FAILED", 1, "failed"),
    ],
)
def test_how_a_run_ended_is_told_by_the_exit_code_of_its_driver(status: str, code: int, word: str) -> None:
    ended = job(Submission("tiny-1", "Tiny"), status).model_copy(update={"driver_exit_code": code})
    assert commands._word(studies_of([ended])["tiny-1"]) == word
