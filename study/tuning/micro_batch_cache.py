"""Turns `hardware.micro_batch: auto` into a number before a plan is run, by a probe on one GPU of the cluster."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from study.cluster.connection import connected
from study.cluster.target import ClusterTarget
from study.config.workloads import Custom
from study.errors import ConfigError, DiskError
from study.ledger.atomic_files import write_atomic
from study.planning.capacity import check_capacity
from study.planning.trials import Plan, make_plan
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.topology import RankTopology

CACHE = "micro_batches.json"


def cache_folder() -> Path:
    """Return the package's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "study"


class JsonCache:
    """Positive integers by key, in one JSON file of the user's cache folder. What cannot be read counts as missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> int | None:
        """Return the number of a key; None if there is none above 0."""
        found = self._read().get(key)
        return found if isinstance(found, int) and found > 0 else None

    def put(self, key: str, number: int) -> None:
        """Store a number, if the folder can be written."""
        with suppress(OSError, DiskError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(self._read() | {key: number}, indent=1))

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Fitted:
    """The largest micro batch that fits on a GPU."""

    gpu: str
    micro_batch: int  # 0: not even one sample fits
    tried: int  # sizes; 0: the answer came from the cache


def fitted(plan: Plan, target: ClusterTarget, cpus: int | None, say: Callable[[str], None]) -> Plan:
    """Return the plan with a number in place of `auto`, or without a limit on the CPU, where nothing is probed.

    `say` receives one line for the user. Raises ConfigError if no GPU can be probed, or if not one sample fits.
    """
    hardware = plan.config.hardware
    if hardware.micro_batch != "auto":
        return plan
    if not hardware.on_gpu:
        say("Micro batch: a rank's whole share of a batch, because auto is about a GPU's memory.")
        return _with(plan, None)
    with connected(target, cpus) as nodes:
        check_capacity(nodes, hardware)
        task = ray.remote(num_cpus=hardware.cpus_per_rank, num_gpus=hardware.gpus_per_rank, max_retries=0)(probe)
        try:
            found: Fitted = ray.get(task.remote(plan))
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise ConfigError(f"probing a GPU failed: {cause!s}".splitlines()[0], "hardware.micro_batch") from None
    if not found.micro_batch:
        raise ConfigError(f"not even one sample fits on {found.gpu}", "hardware.micro_batch")
    how = f"{found.tried} sizes tried" if found.tried else "as found before"
    say(f"Micro batch: at most {found.micro_batch} samples, which fit on {found.gpu} ({how}).")
    return _with(plan, found.micro_batch)


def _with(plan: Plan, micro_batch: int | None) -> Plan:
    hardware = plan.config.hardware.model_copy(update={"micro_batch": micro_batch})
    return make_plan(plan.config.model_copy(update={"hardware": hardware}))


def probe(plan: Plan) -> Fitted:
    """Return what fits on the first GPU of this process: from the cache, else by training.

    Raises Mistake for an error of a user's own module.
    """
    return translate_errors(partial(_probe, plan))


def _probe(plan: Plan) -> Fitted:
    import torch

    from study.training.preflight.micro_batch import largest_micro_batch, sizes_of

    gpu = torch.cuda.get_device_properties(0)
    cache = JsonCache(cache_folder() / CACHE)
    key = key_of(plan, sizes_of(plan), gpu.name, gpu.total_memory, torch.__version__)
    if known := cache.get(key):
        return Fitted(gpu.name, known, tried=0)
    topology = RankTopology(0, 1, 0, 1, 0, "cuda", gpu_share=plan.config.hardware.devices_per_rank)
    size, tried = largest_micro_batch(plan, topology)
    # The code behind an import path may change, and what fits changes with it.
    if size and not any(isinstance(config.workload, Custom) for config in plan.variants.values()):
        cache.put(key, size)
    return Fitted(gpu.name, size, tried)


def key_of(plan: Plan, sizes: list[int], gpu: str, memory_bytes: int, torch_version: str) -> str:
    """Return a hash of everything that takes memory, and of the GPU: equal keys have equal answers."""
    hardware = plan.config.hardware
    takes = [
        [config.workload.model_dump(mode="json"), config.optimizer.model_dump(mode="json"), config.ghost_batch]
        for config in plan.variants.values()
    ]
    how = [hardware.precision, hardware.channels_last, hardware.compile, hardware.devices_per_rank]
    text = json.dumps([takes, how, sizes, gpu, memory_bytes, torch_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
