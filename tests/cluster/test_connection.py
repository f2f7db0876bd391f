"""Joining a cluster."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from ray.exceptions import AuthenticationError

from study.cluster.connection import check_ray_answers, connected, handle_sigterm_as_ctrl_c
from study.cluster.target import AUTO, LOCAL
from study.errors import ClusterError
from tests.conftest import TINY


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_whoever_terminates_the_driver_interrupts_it(handler: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    before_int = signal.signal(signal.SIGINT, handler)
    # As Ray leaves the driver of a job.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        handle_sigterm_as_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, before_int)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x/ray"), "Permission denied.*; set RAY_TMPDIR"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "107 bytes; set RAY_TMPDIR"),
        (ValueError("the object store needs\nmore than /dev/shm has"), "store needs more than /dev/shm has; its logs"),
        (Exception("The current node timed out during startup."), "timed out during startup; its logs are in /"),
        (RuntimeError(), "RuntimeError; its logs"),
        (AuthenticationError("RAY_AUTH_TOKEN_PATH is empty: /x. Ensure that"), "is empty: /x; correct or unset RAY_AU"),
    ],
)
def test_whatever_keeps_a_ray_from_starting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def init(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ClusterError, match=f"^Ray does not start here: .*{says}") as raised, connected(LOCAL, 1):
        pass
    assert str(raised.value).isprintable()


def test_a_disk_that_is_full_is_no_mistake_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/ray")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(OSError, match="No space"), connected(LOCAL, 1):
        pass


@contextmanager
def answers(text: bytes) -> Iterator[str]:
    """The address of a server that says so to everyone, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def study(folder: Path, *options: str, **environment: str) -> str:
    """What `study run` prints where no Ray starts: its one line."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    done = subprocess.run(
        [sys.executable, "-m", "study", "run", "tiny", "--out", "s", "--cpus", "1", *options],
        cwd=folder, capture_output=True, text=True, timeout=100,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "STUDY_TEST": str(folder)} | environment,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    # Nothing is left running, and the same command can be given again.
    left = [process for process in psutil.process_iter() if _environment(process).get("STUDY_TEST") == str(folder)]
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive
    assert [path.name for path in (folder / "s").iterdir()] == [".ledger.jsonl.lock"]
    return line


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error):
        return process.environ()
    return {}


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_listens_at_an_address_and_is_no_ray_is_refused_at_once(tmp_path: Path, text: bytes) -> None:
    with answers(text) as address:
        line = study(tmp_path, "--address", address)
    says = f"what answers at {address} is no Ray head, whose port is 6379 unless set"
    assert line == f"study: --address {address}: {says}"


def test_a_cluster_that_ran_here_last_and_is_gone_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    # Another Ray on this machine would be joined instead.
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    with pytest.raises(ClusterError, match=r"^--address auto: nothing answers at "):
        check_ray_answers(AUTO)


@pytest.mark.slow
def test_a_folder_for_temporary_files_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in study(tmp_path, RAY_TMPDIR=str(tmp_path / "file"))
    long = tmp_path / ("x" * 120)
    long.mkdir()
    assert "set RAY_TMPDIR to a folder with a short name" in study(tmp_path, RAY_TMPDIR=str(long))
