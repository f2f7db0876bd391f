"""Shared fixtures: small studies, groups of ranks, one Ray for the whole session, a browser."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time

# Before torch is imported anywhere: two ranks of a test share two cores.
os.environ["OMP_NUM_THREADS"] = "1"
# And before mlflow is, which would call home.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest
from hypothesis import settings

from study.cluster.target import LOCAL
from study.config.schema import StudyConfig
from study.ledger.schema import AnyRow
from study.planning.trials import Plan, make_plan
from tests.parallel import FilesTogether, in_order

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WAIT_S = 200.0  # far more than is needed, and less than a test may take
T = TypeVar("T")
settings.register_profile("patient", deadline=None)  # a test beside others on the same cores is slow at times
settings.load_profile("patient")
FAULTS = Path(__file__).parent / "faults"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the thorough tests of `tests/faults` unless asked for; order the tests for pytest-xdist."""
    asked_for = "thorough" in config.option.markexpr or any(path.is_relative_to(FAULTS) for path in _named(config))
    left_out = [item for item in items if item.get_closest_marker("thorough") and not asked_for]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if hasattr(config, "workerinput"):
        items[:] = in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether:
    """Spread the tests over the workers of `-n`."""
    return FilesTogether(config, log)


def _named(config: pytest.Config) -> list[Path]:
    """The paths on the command line; none, if it is `pytest` alone."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    return [(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args]


TINY: dict[str, Any] = {
    "name": "tiny",
    "batch_sizes": [16, 64],
    "search": {"lr": [0.05, 0.2]},
    "budget": {"epochs": 3},
    "confirm": {"seeds": 2},
    "workload": {"kind": "digits", "width": 16, "val_samples": 21, "test_samples": 1000},
}


def make_config(**changes: Any) -> StudyConfig:
    """TINY with some sections changed key by key, and the workload as a whole."""
    data = dict(TINY)
    for key, value in changes.items():
        merge = isinstance(value, dict) and key != "workload"
        data[key] = {**data.get(key, {}), **value} if merge else value
    return StudyConfig.model_validate(data, strict=False)


@pytest.fixture
def config() -> Callable[..., StudyConfig]:
    """Builds a small config; keyword arguments change it."""
    return make_config


@pytest.fixture(scope="session", autouse=True)
def forked_ranks() -> Iterator[None]:
    """Fork the ranks of LocalGroup from a process that has imported torch: the import takes longer than most tests."""
    local_group = sys.modules.get("study.training.distributed.local_group")
    if local_group is None:
        yield  # no test needs it
        return
    multiprocessing.set_forkserver_preload([local_group.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_group, "START_METHOD", "forkserver")
        yield


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray of four logical CPUs for all tests of this process."""
    import ray

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def wait_for(found: Callable[[], T | None], process: subprocess.Popen[str] | None = None) -> T:
    """What is found, once it is anything; while a process runs, if one is named."""
    deadline = time.monotonic() + WAIT_S
    while not (something := found()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return something


class Run:
    """A study that was really run."""

    def __init__(self, plan: Plan, folder: Path, rows: list[AnyRow]) -> None:
        self.plan, self.folder, self.rows = plan, folder, rows

    def of(self, kind: type[Any]) -> list[Any]:
        """The rows of one kind."""
        return [row for row in self.rows if isinstance(row, kind)]


def run_for_real(config: StudyConfig, folder: Path, observe: Callable[[AnyRow], None] = lambda row: None) -> Run:
    """Run a study on the session's Ray."""
    from study.ledger.store import read
    from study.tuning.driver import run_study

    plan = make_plan(config)
    run_study(plan, folder, LOCAL, None, observe)
    return Run(plan, folder, list(read(folder).rows))


def rank_pids(kind: str = "RankActor") -> set[int]:
    """Processes of rank actors, or of actors of another kind, on this test session's own Ray."""
    import psutil

    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            if kind in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


@pytest.fixture(scope="session")
def asha_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search under ASHA that stops trials, and its confirm phase, on two ranks."""
    config = make_config(
        search={"lr": [0.2, 0.1, 0.02, 0.005, 0.002, 0.001]},
        budget={"epochs": 4},
        scheduler={"kind": "asha", "grace": 1, "eta": 2},
        hardware={"world_size": 2},
    )
    return run_for_real(config, tmp_path_factory.mktemp("asha"))


FRONTIER: dict[str, Any] = {
    "batch_sizes": [16, 64, 256],
    "search": {"lr": [0.2, 0.1, 0.02, 0.005, 0.002, 0.001]},
    "budget": {"epochs": 9},
    "confirm": {"seeds": 1},
    "hardware": {"world_size": 2},
    "scheduler": {"kind": "frontier_asha"},
}


@pytest.fixture(scope="session")
def frontier_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search that halves within each batch size, some stopped trials audited, on two ranks."""
    config = make_config(**FRONTIER | {"scheduler": {"kind": "frontier_asha", "audit": 0.3}})
    return run_for_real(config, tmp_path_factory.mktemp("frontier"))


def lacking(missing: str, variable: str) -> NoReturn:
    """Skips the test for want of something, or fails it where the variable is set: there, as in CI, it must run."""
    if os.environ.get(variable):
        pytest.fail(missing)
    pytest.skip(missing)


def program(variable: str, package: str, *names: str) -> str:
    """Where a program of the system is, under any of these names."""
    for name in names:
        if found := shutil.which(name):
            return found
    lacking(f"no {names[0]} on this machine (apt-get install {package})", variable)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    return program("REQUIRE_BROWSER", "chromium", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Where promtool is."""
    return program("REQUIRE_PROMETHEUS", "prometheus", "promtool")


@pytest.fixture(scope="session")
def prometheus_binary() -> str:
    """Where Prometheus is."""
    return program("REQUIRE_PROMETHEUS", "prometheus", "prometheus")


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, and in most containers, Chromium cannot set its own sandbox up. A GPU drawn by software costs time.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
