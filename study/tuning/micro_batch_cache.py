"""`hardware.micro_batch: auto` becomes a number before a plan is run: one GPU of the cluster is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import ray
from ray.exceptions import RayError, RayTaskError

from study.cluster.connection import connected
from study.config.workloads import Custom
from study.errors import ConfigError
from study.planning.capacity import check_capacity
from study.planning.trials import Plan, make_plan
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.topology import RankTopology
from study.tuning.json_cache import JsonCache, cache_folder

CACHE = "micro_batches.json"


@dataclass(frozen=True)
class Fitted:
    """What a probe found."""

    gpu: str
    micro_batch: int  # 0: not even one sample fits
    tried: int  # sizes; 0 where the answer was remembered


def fitted(plan: Plan, address: str, cpus: int | None, say: Callable[[str], None]) -> Plan:
    """The plan with a number for `auto`; on the CPU, where nothing is probed, no limit. Raises ConfigError."""
    hardware = plan.config.hardware
    if hardware.micro_batch != "auto":
        return plan
    if not hardware.on_gpu:
        say("Micro batch: all that a rank gets of a batch, for auto is about a GPU's memory.")
        return _with(plan, None)
    with connected(address, cpus) as nodes:
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
    """On the first GPU that this process sees: as remembered, else found by training and remembered.

    Raises Mistake for what a user's own module raises.
    """
    return translate_errors(partial(_probe, plan))


def _probe(plan: Plan) -> Fitted:
    import torch

    from study.training.preflight.micro_batch import largest_micro_batch, sizes_of

    about = torch.cuda.get_device_properties(0)
    memory = JsonCache(cache_folder() / CACHE)
    key = key_of(plan, sizes_of(plan), about.name, about.total_memory, torch.__version__)
    if known := memory.get(key):
        return Fitted(about.name, known, tried=0)
    place = RankTopology(0, 1, 0, 1, 0, "cuda", gpu_share=plan.config.hardware.devices_per_rank)
    size, tried = largest_micro_batch(plan, place)
    # The code behind an import path may change, and what fits with it.
    if size and not any(isinstance(config.workload, Custom) for config in plan.variants.values()):
        memory.put(key, size)
    return Fitted(about.name, size, tried)


def key_of(plan: Plan, sizes: list[int], gpu: str, memory_bytes: int, torch_version: str) -> str:
    """Equal where the answer must be: a hash of all that takes memory, and of whose memory it is."""
    hardware = plan.config.hardware
    takes = [
        [config.workload.model_dump(mode="json"), config.optimizer.model_dump(mode="json"), config.ghost_batch]
        for config in plan.variants.values()
    ]
    how = [hardware.precision, hardware.channels_last, hardware.compile, hardware.devices_per_rank]
    told = json.dumps([takes, how, sizes, gpu, memory_bytes, torch_version], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
