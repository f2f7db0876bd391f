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

from study.cluster.target import AUTO, LOCAL, ClusterTarget
from study.environment import override, set_defaults
from study.errors import ClusterError, ConfigError
from study.planning.capacity import Node

CONNECT_TIMEOUT_S = 5.0
# A client opens an HTTP/2 connection with this preface and empty settings (RFC 9113, 3.4). Ray's services speak HTTP/2.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HEADER_BYTES, _SETTINGS = 9, 4  # size of a frame's header; type of the frame that a server sends first
_MOST_LETTERS = 600  # of Ray's text in a message
_TOKEN_BYTES = 32
# Variables that Ray and Tune read in the driver. Those that a user has set stay.
_RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard of every trial; the ledger has all of it
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # no state of all trials every ten seconds; a study resumes from its ledger
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # PlanSearcher bounds how many trials wait for their placement groups
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # `study` prints one line for a failed trial, not its whole traceback
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's older output, which verbose=0 silences
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a process without GPUs keeps its CUDA_VISIBLE_DEVICES
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's authors
}


@contextmanager
def connected(target: ClusterTarget, cpus: int | None) -> Iterator[tuple[Node, ...]]:
    """Connect this process to Ray and yield the nodes of the cluster.

    A local target starts a Ray that ends with the block, with `cpus` logical CPUs (None: the number of cores). Any
    other is joined as its driver.
    Raises ClusterError if there is no such cluster or Ray does not start, and ConfigError for a ray:// address.
    """
    set_defaults(_RAY_ENVIRONMENT)
    stdout_deduplicator.skip_re = re.compile("A worker died or was killed")  # Ray prints it; `skip_re` is private
    joined = ray.is_initialized()
    if not joined:
        if target.address.startswith("ray://"):
            raise ConfigError(
                f"--address {target}: Ray Tune's driver cannot run in a Ray client; "
                f"start the study on a machine of the cluster, with --address auto or host:port"
            )
        check_ray_answers(target)
        options: dict[str, Any] = {}
        if target == LOCAL:
            options = {"num_cpus": cpus, "include_dashboard": False}
            _make_token()
        try:
            ray.init(
                target.address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options
            )
        except Exception as error:  # Ray raises many types, plain Exception too
            ray.shutdown()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _not_started(target, error) from None
        handle_sigterm_as_ctrl_c()
    try:
        yield alive_nodes()
    finally:
        if not joined:
            ray.shutdown()


def _not_started(target: ClusterTarget, error: Exception) -> ClusterError:
    """Return a ClusterError with Ray's text in one line, and a remedy where one is known."""
    text = " ".join(str(error).split()).partition(". Ensure")[0][:_MOST_LETTERS] or type(error).__name__
    if isinstance(error, AuthenticationError):
        remedy = "; correct or unset RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH"
    elif target != LOCAL:
        remedy = ""
    elif isinstance(error, OSError) and not isinstance(error, ConnectionError):
        remedy = "; set RAY_TMPDIR to a folder with a short name that can be written"
    else:
        temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        remedy = f"; its logs are in {temporary}/ray/session_latest/logs"
    where = "Ray does not start here" if target == LOCAL else f"--address {target}"
    return ClusterError(f"{where}: {text.rstrip('.')}{remedy}")


def _make_token() -> None:
    """Set a random token for an embedded Ray, because it listens at every address of the machine (docs/adr/019).

    Ray keeps the first token that it reads until the process ends.
    """
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        override("RAY_AUTH_TOKEN", secrets.token_hex(_TOKEN_BYTES))


def handle_sigterm_as_ctrl_c() -> None:
    """Make SIGTERM end a study as Ctrl-C does, where Ray's own handler exits at once.

    Ray Jobs, Kubernetes and spot machines stop a process with SIGTERM.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The handler is called, and no SIGINT raised, because Ray blocks SIGINT in the processes that it starts, such
        # as a job's driver. A command that a script starts in the background ignores SIGINT: SIGTERM still ends it.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def alive_nodes() -> tuple[Node, ...]:
    """Return the nodes of the cluster that are alive, with all their CPUs and GPUs, used or free."""
    return tuple(
        Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]
    )


def check_ray_answers(target: ClusterTarget) -> None:
    """Raise ClusterError if no Ray answers at the address, for which Ray itself would wait for minutes."""
    place = target.address
    if target == AUTO:
        logging.getLogger("ray").setLevel(logging.ERROR)  # it would list every Ray of this machine
        with suppress(ConnectionError, ValueError):  # ray.init raises the same at once
            place = canonicalize_bootstrap_address(place) or place  # from RAY_ADDRESS, or the last Ray started here
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
                return
            connection.sendall(_HTTP2_PREFACE)
            header = _read_header(connection)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--address {target}: nothing answers at {place}: {error}") from None
    if header[3:4] != bytes([_SETTINGS]):
        raise ClusterError(f"--address {target}: what answers at {place} is no Ray head, whose port is 6379 unless set")


def _read_header(connection: socket.socket) -> bytes:
    """Return the header of the first frame that the server sends, or the bytes of it that came in time."""
    header = b""
    with suppress(TimeoutError, ConnectionError):
        while len(header) < _HEADER_BYTES and (more := connection.recv(_HEADER_BYTES - len(header))):
            header += more
    return header


def this_machine(cpus: int | None) -> tuple[Node, ...]:
    """Return this machine as the one node that an embedded Ray would have, without starting Ray."""
    import torch

    return (Node(cpus or os.cpu_count() or 1, torch.cuda.device_count()),)
