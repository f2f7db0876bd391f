"""A group of ranks on this machine without Ray: for `study check`, tests and benchmarks."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from study.config.schema import StudyConfig
from study.environment import set_defaults
from study.planning.trials import TrialSpec
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.process_guard import end_with_this_process
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport
from study.training.rank import Rank

START_METHOD = "spawn"  # of the processes; tests fork them from one that has imported torch
_rank: Rank  # one a process


def _create(topology: RankTopology, config: StudyConfig, kind: type[Rank]) -> None:
    """Create this process's rank, with its output discarded: what a module prints is not for the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    end_with_this_process()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As a Ray worker has it: a loader's workers start at once, and need not be sent what cannot be pickled.
    mp.set_start_method(None, force=True)
    global _rank
    _rank = kind(topology, config)


def _end_with_parent() -> None:
    """End this process when the one that made it is gone: killed, it closes no pools."""
    parent = mp.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call(method: str, *args: Any) -> Any:
    return translate_errors(partial(getattr(_rank, method), *args))


class LocalGroup:
    """`world_size` spawned processes, each holding one Rank, or one of another `kind`. A context manager."""

    def __init__(self, config: StudyConfig, world_size: int, kind: type[Rank] = Rank) -> None:
        hardware = config.hardware
        topology = RankTopology(0, world_size, 0, world_size, 0, "cuda" if hardware.on_gpu else "cpu")
        topology = replace(topology, gpu_share=hardware.devices_per_rank)
        to_a_gpu = int(1 / topology.gpu_share + 1e-9)
        # Read when torch is imported, so it must be set before the processes start.
        set_defaults({"OMP_NUM_THREADS": str(hardware.cpus_per_rank)})
        self._pools = [
            ProcessPoolExecutor(
                1,
                mp.get_context(START_METHOD),
                initializer=_create,
                initargs=(replace(topology, rank=rank, local_rank=rank, gpu=rank // to_a_gpu), config, kind),
            )
            for rank in range(world_size)
        ]
        self._pids: list[int] = []
        self._pids = self.call(os.getpid)
        port = self._pools[0].submit(_call, "open_store", "127.0.0.1").result() if world_size > 1 else 0
        self._all("join", "127.0.0.1", port)

    def _all(self, method: str, *args: Any) -> list[Any]:
        return self.call(_call, method, *args)

    def call(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Run a module's function in every process; return what each returned, in order of rank.

        Raises at once what one of them raised. The group can then not be used any more: the other processes may wait
        for that one.
        """
        futures = [pool.submit(function, *args) for pool in self._pools]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self._kill()
            raise
        return [future.result() for future in futures]

    def _kill(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, spec: TrialSpec, count: int | None = None) -> list[RankReport]:
        """Train a trial to its end, or to a number of reports; return rank 0's reports."""
        self._all("begin", spec)
        reports = [self._all("advance")[0] for _ in range(count or len(spec.report_at))]
        self._all("halt")
        return reports

    def close(self) -> None:
        """End the processes, and wait for them."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> LocalGroup:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
