"""Run a study from Python."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.api.argument_names import argument_names
from study.api.plans import checked_plan
from study.api.results import StudyResults, load
from study.cluster.target import ClusterTarget
from study.config.loader import StudyFile, find_config, load_study, study_from
from study.config.schema import StudyConfig
from study.errors import ConfigError

if TYPE_CHECKING:
    pass


def run(
    config: str | PathLike[str] | Mapping[str, Any] | StudyConfig,
    out: str | PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    address: str = "local",
    cpus: int | None = None,
    try_modules: bool = True,
    progress: bool = True,
) -> StudyResults:
    """Run a study, wait until it ends, and load its results.

    `config` is a study file, the name of a shipped one, or a mapping with the keys of a study file. `out` is a new
    folder for the ledger. `overrides` replaces keys, such as {"limits.usd": 20}. `address` is "local" (a Ray of its
    own, with `cpus` logical CPUs, as many as there are cores when left out), "auto" or host:port of a cluster.
    `try_modules` first trains some updates with each module of your own. `progress` prints a line for each trial.

    A study that a limit cuts, or that a mistake in a module ends, returns what it has: see `summary.cut` and
    `summary.mistaken`. `study resume` goes on with it. Raises the errors of `study run`: ConfigError and DataError
    before anything runs, LedgerError for a folder that holds a study already, ClusterError and DiskError; and
    KeyboardInterrupt once Ctrl-C has ended the study in order.
    """
    if multiprocessing.current_process().name != "MainProcess" and "__mp_main__" in sys.modules:
        raise ConfigError("a script that calls study.run must do so under `if __name__ == '__main__':`")
    from rich.console import Console

    from study.reporting.text.terminal import ProgressView

    # In a notebook, tqdm and Ray report that widgets are missing, which nothing here needs.
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from study.tuning.driver import run_study
        from study.tuning.micro_batch_cache import fitted

    console = Console(force_jupyter=False, quiet=not progress)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with argument_names():
        file, target = _study_file(config, overrides or {}), ClusterTarget.parse(address)
        plan = fitted(checked_plan(file, target, cpus, say if try_modules else None), target, cpus, say)
        with ProgressView(plan, console) as view:
            outcome = run_study(plan, Path(out), target, cpus, view)
    if not (outcome.finished or outcome.cut or outcome.mistake):
        raise KeyboardInterrupt(f"the study was interrupted; `study resume {out}` goes on with it")
    return load(out)


def _study_file(
    config: str | PathLike[str] | Mapping[str, Any] | StudyConfig, overrides: Mapping[str, Any]
) -> StudyFile:
    changes = [f"{key}={_yaml_value(key, value)}" for key, value in overrides.items()]
    if isinstance(config, StudyConfig):
        config = config.model_dump(mode="json", exclude_unset=True)
    if isinstance(config, Mapping):
        return study_from(config, changes)
    return load_study(find_config(str(config)), changes)


def _yaml_value(key: str, value: Any) -> str:
    """Return a value as JSON, which YAML reads."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise ConfigError(f"must be a plain value; got {type(value).__name__}", key) from None
