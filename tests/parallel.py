"""How pytest-xdist spreads the tests (`pytest -n 2`): whole files, some of them together, the longest first.

Its own `--dist loadgroup` reads marks, which pytest 9.2 no longer passes on to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Files whose tests share a fixture of the session with processes in it, or start servers: one worker runs them all.
TOGETHER: dict[str, tuple[str, ...]] = {
    "local_ray": (
        "tests/tuning/test_study.py", "tests/tuning/test_halving.py", "tests/tuning/test_infeasible.py",
        "tests/tuning/test_micro_batch_cache.py", "tests/tuning/test_cut_for_real.py", "tests/tuning/test_contract.py",
        "tests/faults/test_ranks.py", "tests/faults/test_checkpoints.py", "tests/faults/test_disk_real.py",
        "tests/faults/test_ledgers.py", "tests/faults/test_ledger_audit.py", "tests/faults/test_sinks.py",
        "tests/cluster/metrics/test_metrics.py", "tests/tuning/test_leases.py",
    ),
    "two_nodes": (
        "tests/cluster/jobs/test_two_nodes.py", "tests/cluster/metrics/test_prometheus.py",
        "tests/docker/test_entrypoint.py", "tests/training/distributed/test_rendezvous.py",
    ),
    "two": (
        "tests/own_modules/test_check.py", "tests/own_modules/test_figures.py", "tests/own_modules/test_order.py",
        "tests/own_modules/test_batch_shapes.py", "tests/own_modules/test_batch_size.py",
        "tests/own_modules/test_by_hand.py", "tests/own_modules/test_callbacks.py",
        "tests/own_modules/test_clipping.py", "tests/own_modules/test_metric_names.py",
        "tests/own_modules/test_objectives.py", "tests/own_modules/test_packages.py",
    ),
    "pair": (
        "tests/training/jobs/test_simclr.py", "tests/training/jobs/test_nt_xent.py",
        "tests/training/probes/test_noise.py",
    ),
    "browser": (
        "tests/reporting/test_browser.py", "tests/reporting/test_exports.py", "tests/reporting/test_live_page.py",
        "tests/test_cli_live.py",
    ),
}  # fmt: skip
LONG = (
    "tests/faults/test_drivers_for_real.py", "tests/faults/test_machines.py", "tests/docker/test_install.py",
    "tests/analysis/claims/test_errors.py", "tests/api/test_notebook.py", "tests/api/test_docs.py",
    "tests/tuning/test_same_mistake_for_real.py", "tests/cluster/test_connection.py", "tests/test_own_model.py",
    "tests/test_cli_first_study.py", "tests/test_cli.py", "tests/faults/test_configs.py", "tests/faults/test_disk.py",
    "tests/faults/test_security.py",
    "tests/faults/test_training.py", "tests/faults/test_drivers.py",
)  # fmt: skip
_GROUP = {file: name for name, files in TOGETHER.items() for file in files}
_FIRST = {file: place for place, file in enumerate([*_GROUP, *LONG])}


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests as `FilesTogether` takes them: those of TOGETHER and LONG first, the others as they were.

    Warns of a test in another file that uses a fixture of TOGETHER, which then starts once more.
    """
    for item in items:
        file, _, _ = item.nodeid.partition("::")
        for fixture in set(getattr(item, "fixturenames", ())) & set(TOGETHER):
            if file not in _GROUP:
                warnings.warn(f"{file} uses {fixture}: add it to TOGETHER in tests/parallel.py", stacklevel=1)
    return sorted(items, key=lambda item: _FIRST.get(item.nodeid.partition("::")[0], len(_FIRST)))


class FilesTogether(LoadScopeScheduling):
    """Hands out files, or the files of one group, in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return _GROUP.get(file, file)
