"""Start an embedded Ray, or join a cluster."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator

from study.plan.capacity import Node
from study.plan.errors import PlanError

CONNECT_TIMEOUT_S = 5.0
_TOKEN_BYTES = 32


@contextmanager
def connected(address: str, cpus: int | None) -> Iterator[tuple[Node, ...]]:
    """Yields the nodes of the cluster.

    `address`: "local" starts a Ray that ends with us, of `cpus` logical CPUs (None: as many as there are cores);
    "auto" joins the cluster of this machine; host:port joins another as driver.
    Raises PlanError where there is no such cluster.
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
            raise PlanError(
                f"--address {address}: Ray Tune's driver cannot run in a Ray client; "
                f"start the study on a machine of the cluster, with --address auto or host:port"
            )
        _refuse_silence(address)
        options: dict[str, Any] = {}
        if address == "local":
            options = {"num_cpus": cpus, "include_dashboard": False}
            _make_token()
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise PlanError(f"--address {address}: {str(error).splitlines()[0]}") from None
        take_sigterm_as_ctrl_c()
    try:
        yield alive_nodes()
    finally:
        if not joined:
            ray.shutdown()


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


def _refuse_silence(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise PlanError(f"--address {address}: nobody answers there: {error}") from None


def this_machine(cpus: int | None) -> tuple[Node, ...]:
    """What an embedded Ray would find here, without starting one."""
    import torch

    return (Node(cpus or os.cpu_count() or 1, torch.cuda.device_count()),)
