"""Start an embedded Ray, or join a cluster."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from study.errors import ClusterError, ConfigError
from study.planning.capacity import Node

CONNECT_TIMEOUT_S = 5.0
# What opens an HTTP/2 connection, the protocol of Ray's own services: the preface and empty settings (RFC 9113, 3.4).
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_FRAME_BYTES, _SETTINGS = 9, 4  # of a frame's header, and the type of the frame that answers
_MOST_LETTERS = 600  # of what Ray says
_TOKEN_BYTES = 32


@contextmanager
def connected(address: str, cpus: int | None) -> Iterator[tuple[Node, ...]]:
    """Yields the nodes of the cluster.

    `address`: "local" starts a Ray that ends with us, of `cpus` logical CPUs (None: as many as there are cores);
    "auto" joins the cluster of this machine; host:port joins another as driver.
    Raises ClusterError where there is no such cluster, or where Ray does not start.
    """
    # Tune would log every trial as CSV, JSON and TensorBoard; the ledger is our record.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # And it would save the state of all trials every ten seconds, for a resume of its own.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    stdout_deduplicator.skip_re = re.compile("A worker died or was killed")  # told by Ray itself; reaches into it
    # How many trials wait for their groups is bounded by what we hand out.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "10000")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # And a trial that fails is a line of ours, not a page of Tune's.
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    joined = ray.is_initialized()
    if not joined:
        if address.startswith("ray://"):
            raise ConfigError(
                f"--address {address}: Ray Tune's driver cannot run in a Ray client; "
                f"start the study on a machine of the cluster, with --address auto or host:port"
            )
        refuse_what_is_not_ray(address)
        options: dict[str, Any] = {}
        if address == "local":
            options = {"num_cpus": cpus, "include_dashboard": False}
            _make_token()
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
        except Exception as error:  # Ray raises whatever it meets, plain Exception too
            ray.shutdown()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _not_started(address, error) from None
        take_sigterm_as_ctrl_c()
    try:
        yield alive_nodes()
    finally:
        if not joined:
            ray.shutdown()


def _not_started(address: str, error: Exception) -> ClusterError:
    """What Ray says, in one line, and what can be done about it."""
    said = " ".join(str(error).split()).partition(". Ensure")[0][:_MOST_LETTERS] or type(error).__name__
    if isinstance(error, AuthenticationError):
        remedy = "; correct or unset RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH"
    elif address != "local":
        remedy = ""
    elif isinstance(error, OSError) and not isinstance(error, ConnectionError):
        remedy = "; set RAY_TMPDIR to a folder with a short name that can be written"
    else:
        temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        remedy = f"; its logs are in {temporary}/ray/session_latest/logs"
    where = "Ray does not start here" if address == "local" else f"--address {address}"
    return ClusterError(f"{where}: {said.rstrip('.')}{remedy}")


def _make_token() -> None:
    """For a Ray of our own, which listens at every address of the machine (docs/adr/019). Ray keeps the first that it
    sees for as long as the process lives.
    """
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(_TOKEN_BYTES)


def take_sigterm_as_ctrl_c() -> None:
    """Whoever stops us so (Ray Jobs, Kubernetes, a spot machine) means a clean end. Ray's own handler just exits."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Called, not raised: Ray blocks SIGINT in the processes that it starts, a job's driver among them.
        # Where it is ignored, as in what a script starts in the background, SIGTERM still means us.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def alive_nodes() -> tuple[Node, ...]:
    """The nodes that the cluster has now, as if empty."""
    return tuple(
        Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]
    )


def refuse_what_is_not_ray(address: str) -> None:
    """Raises ClusterError where no Ray answers: Ray itself waits for minutes then."""
    place = address
    if address == "auto":
        logging.getLogger("ray").setLevel(logging.ERROR)  # it would list every Ray of this machine
        with suppress(ConnectionError, ValueError):  # Ray itself refuses those at once
            place = canonicalize_bootstrap_address(address) or address  # from RAY_ADDRESS, or of what ran here last
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
                return
            connection.sendall(_HTTP2_HELLO)
            answer = _answer(connection)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--address {address}: nothing answers at {place}: {error}") from None
    if answer[3:4] != bytes([_SETTINGS]):
        raise ClusterError(
            f"--address {address}: what answers at {place} is no Ray head, whose port is 6379 unless set"
        )


def _answer(connection: socket.socket) -> bytes:
    """The header of the first frame that comes back; less of it, if no more comes."""
    answer = b""
    with suppress(TimeoutError, ConnectionError):
        while len(answer) < _FRAME_BYTES and (more := connection.recv(_FRAME_BYTES - len(answer))):
            answer += more
    return answer


def this_machine(cpus: int | None) -> tuple[Node, ...]:
    """What an embedded Ray would find here, without starting one."""
    import torch

    return (Node(cpus or os.cpu_count() or 1, torch.cuda.device_count()),)
