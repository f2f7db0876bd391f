"""A client of a cluster's head over HTTP: jobs, their logs, files in Ray's log folder. Every error is one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from study.cluster.connection import CONNECT_TIMEOUT_S
from study.cluster.jobs.submissions import STOP_WAIT_S, Submission
from study.cluster.target import ClusterTarget
from study.environment import override
from study.errors import ClusterError, ConfigError

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_HINT = "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
READ_TIMEOUT_S = 60.0
FILE_TIMEOUT_S = 600
POLL_EVERY_S = 0.3
CHUNK_BYTES = 1 << 20
MOST_TEXT_BYTES = 64 << 20  # of an answer that is kept in memory
_LOGGERS_WITH_ADVICE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.authentication.http_token_authentication",
)


def environment_address() -> str | None:
    """Return the HTTP address of a head that the environment names, if it does."""
    values = (os.environ.get(name, "") for name in ADDRESS_VARIABLES)
    return next((value for value in values if ClusterTarget.parse(value).kind == "head"), None)


def head_address(given: str | None) -> str:
    """Return the HTTP address of --address, or else of the environment, without a slash at its end.

    Raises ConfigError if there is none, or if it is no HTTP address.
    """
    given = given or environment_address()
    if given is None:
        raise ConfigError(f"say which cluster, as http://head:8265, or set {ADDRESS_VARIABLES[0]}", "--address")
    if ClusterTarget.parse(given).kind != "head" or not urlsplit(given).hostname:
        raise ConfigError(f"{given}: must be the head's HTTP address, as http://head:8265", "--address")
    return given.rstrip("/")


class Head:
    """One cluster's head. Every method raises ClusterError where it does not answer, refuses the token, or fails."""

    def __init__(self, address: str) -> None:
        """Raise ClusterError if no Ray head answers at the address, or if it refuses the token."""
        self.address = address
        # The client logs advice, and prefers an address in the environment to its argument.
        for name in _LOGGERS_WITH_ADVICE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        override(ADDRESS_VARIABLES[0], address)
        with self._one_line_errors():
            self._check_port_answers()
            self._client = JobSubmissionClient(address)

    def submit(self, run: Submission, archive: Path, node_id: str | None) -> None:
        """Start a run in a working directory unpacked from `archive`, on one node or on one that Ray chooses.

        Without a node and CPUs for the driver, Ray starts it on the head.
        """
        with self._one_line_errors():
            self._client.submit_job(
                entrypoint=run.entrypoint,
                submission_id=run.job_id,
                # Ray reads how long a job may take to stop from its supervisor's environment, which is the job's.
                runtime_env={
                    "working_dir": str(archive),
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
                },
                metadata=run.metadata,
                entrypoint_num_cpus=run.driver_cpus or None,
                entrypoint_label_selector={"ray.io/node-id": node_id} if node_id else None,
            )

    def jobs(self) -> list[JobDetails]:
        """Return all jobs that were submitted since the cluster started, in no order."""
        with self._one_line_errors():
            return [job for job in self._client.list_jobs() if job.submission_id]

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job."""
        with self._one_line_errors():
            return self._client.get_job_status(job_id)

    def stop(self, job_id: str) -> None:
        """Ask a job to end; returns at once."""
        with self._one_line_errors():
            self._client.stop_job(job_id)

    def wait_until_ended(self, job_id: str, timeout_s: float) -> None:
        """Return when a job has ended. Raises ClusterError if it has not by then."""
        deadline = time.monotonic() + timeout_s
        while not (status := self.status(job_id)).is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"{job_id} is still {status.value.lower()} after {timeout_s:.0f} s")
            time.sleep(POLL_EVERY_S)

    def log(self, job_id: str) -> str:
        """Return what a job has printed."""
        with self._one_line_errors():
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, show: Callable[[str], None]) -> None:
        """Pass what a job prints to `show`, until it ends."""

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job_id):
                show(text)

        with self._one_line_errors():
            asyncio.run(tail())

    def files(self, node_id: str, pattern: str) -> list[str]:
        """Return the paths in a node's log folder that match a glob pattern, relative to it."""
        with self._one_line_errors():
            answer = json.loads(_text(self._get("/api/v0/logs", node_id=node_id, glob=pattern)))
            if not answer["result"]:
                raise RuntimeError(answer["msg"])
            kinds: dict[str, list[str]] = answer["data"]["result"]
            return [path for paths in kinds.values() for path in paths]

    def chunks(self, node_id: str, path: str) -> Iterator[bytes]:
        """Yield a file in a node's log folder in pieces, byte for byte."""
        with self._one_line_errors():
            query = {"node_id": node_id, "filename": path, "lines": -1, "timeout": FILE_TIMEOUT_S}
            with self._get("/api/v0/logs/file", **query) as answer:
                yield from answer.iter_content(CHUNK_BYTES)

    def _get(self, path: str, **query: Any) -> requests.Response:
        headers = {**(self._client._headers or {}), "Accept-Encoding": "identity"}
        answer = requests.get(self.address + path, query, headers=headers, stream=True, timeout=READ_TIMEOUT_S)
        if answer.headers.get("Content-Encoding", "identity") != "identity":  # a few bytes can unpack to any number
            raise RuntimeError("the answer is compressed, which was not asked for")
        if not answer.ok:
            raise RuntimeError(_text(answer).strip() or answer.reason)
        return answer

    def _check_port_answers(self) -> None:
        """Raise OSError where nothing answers: Ray's client itself would wait for minutes."""
        place = urlsplit(self.address)
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((str(place.hostname), port), CONNECT_TIMEOUT_S).close()

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Within, make any failure a ClusterError of one line that holds no token."""
        try:
            yield
        except ClusterError:
            raise
        except AuthenticationError as error:
            text = str(error)
            if text.startswith("Authentication required"):
                why = f"the cluster wants a token, and got none: {TOKEN_HINT}"
            elif text.startswith("Authentication failed"):
                why = f"the cluster refuses this token: {TOKEN_HINT}"
            else:
                why = f"{text.split('. ')[0]}: {TOKEN_HINT}"
            raise self._wrong(why) from None
        except requests.exceptions.InvalidHeader:  # its text contains the token
            raise self._wrong("the token has characters that no token has; is its file the right one?") from None
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, ConnectionError, TimeoutError):
            raise self._wrong("nothing answers there, or no longer") from None
        except (ValueError, KeyError, requests.exceptions.RequestException) as error:
            raise self._wrong(f"what answers there is no Ray head ({type(error).__name__})") from None
        except OSError as error:
            raise self._wrong(f"nothing answers there: {error.strerror or error}") from None
        except RuntimeError as error:
            raise self._wrong(str(error).removeprefix("Request failed with status code ").splitlines()[0]) from None

    def _wrong(self, why: str) -> ClusterError:
        return ClusterError(f"{self.address}: {why}", "--address")


def _text(answer: requests.Response) -> str:
    """Return a whole answer. Raises RuntimeError for one larger than MOST_TEXT_BYTES."""
    with answer:
        found = bytearray()
        for chunk in answer.iter_content(CHUNK_BYTES):
            found += chunk
            if len(found) > MOST_TEXT_BYTES:
                raise RuntimeError(f"the answer is larger than {MOST_TEXT_BYTES >> 20} MiB")
    return found.decode(errors="replace")
