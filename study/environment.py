"""The one place that changes environment variables: of this process, and so of the processes that it starts.

| variables | set by | why |
|---|---|---|
| `TUNE_*`, `RAY_*` | `cluster/connection.py` | Tune keeps no state; see the table there |
| `RAY_AUTH_TOKEN` | `cluster/connection.py` | a Ray that a study starts has a secret token (ADR 019) |
| `RAY_API_SERVER_ADDRESS` | `cluster/jobs/head.py` | Ray's job client prefers it to its own argument |
| `MLFLOW_*` | `cluster/sinks/dispatcher.py` | MLflow does not wait and sends no telemetry |
| `OMP_NUM_THREADS` | `training/distributed/local_group.py` | torch reads it once, when it is imported |
| `NCCL_SOCKET_IFNAME`, `GLOO_SOCKET_IFNAME` | `training/distributed/rendezvous.py` | the interface towards rank 0 |
| `CUDA_VISIBLE_DEVICES` | `tuning/worker_group.py` | all ranks of a node see the same GPUs |
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def set_defaults(variables: Mapping[str, str]) -> None:
    """Set each variable that the user has not set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def override(name: str, value: str) -> None:
    """Set a variable, whatever the user has set."""
    os.environ[name] = value
