"""Training that goes wrong: what a rank makes of it, and what becomes of the other trials of a study."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from study.plan.config import StudyConfig
from study.plan.trials import TrialSpec, make_plan
from study.training.place import Place
from study.training.plainly import plainly
from study.training.rank import Rank
from study.training.report import Mistake, OutOfMemory, Report
from tests.conftest import make_config
from tests.faults.conftest import Injections

ALONE = Place(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Faults = Callable[[str], Injections]


def workload(**module_args: Any) -> dict[str, Any]:
    return {
        "kind": "custom", "module": "tests.unruly:Unruly", "data": "tests.unruly:UnrulyData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss", "module_args": module_args,
    }  # fmt: skip


def config_of(**module_args: Any) -> StudyConfig:
    return make_config(workload=workload(**module_args), batch_sizes=[16], budget={"epochs": 3})


def trained(rank: Rank, config: StudyConfig, phase: str = "confirm") -> list[Report]:
    """As an actor does it: all reports up to the last, or to one that diverged."""
    plan = make_plan(config)
    rank.config = config
    spec: TrialSpec = plan.search[0] if phase == "search" else plan.confirm_trials(plan.cells[0], 0.1)[0]
    try:
        plainly(lambda: rank.begin(spec))
        reports = [plainly(rank.advance)]
        while not (reports[-1].final or reports[-1].diverged):
            reports.append(plainly(rank.advance))
        return reports
    finally:
        rank.halt()


@pytest.fixture(scope="module")
def rank() -> Rank:
    """One for all: whatever a trial did to it, the next one must find it in order."""
    return Rank(ALONE, config_of())


@pytest.fixture(scope="module")
def undisturbed(rank: Rank) -> list[Report]:
    return trained(rank, config_of())


def losses(reports: list[Report]) -> list[tuple[float, float | None, float]]:
    return [(report.train_loss, report.val_loss, report.val_accuracy) for report in reports]


@pytest.mark.parametrize("where", ["__init__", "configure_optimizers", "training_step", "validation_step"])
@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("raise", r"ArithmeticError: the module broke \(unruly\.py:\d+\)$"),
        ("unpicklable", r"Unpicklable: .*it holds a lambda.* \(unruly\.py:\d+\)$"),
        ("mute", r"Mute \(unruly\.py:\d+\)$"),
        ("megabyte", r"ArithmeticError: .{,300} \.\.\. \(unruly\.py:\d+\)$"),
        ("base", r"Foreign.* \(unruly\.py:\d+\)$"),
        ("sys.exit", r"SystemExit.* \(unruly\.py:\d+\)$"),
        ("interrupt", r"KeyboardInterrupt.* \(unruly\.py:\d+\)$"),
        ("generator", r"GeneratorExit.* \(unruly\.py:\d+\)$"),
    ],
)
def test_whatever_a_module_raises_is_one_line_and_the_rank_goes_on(
    rank: Rank, undisturbed: list[Report], faults: Faults, act: str, says: str, where: str
) -> None:
    line = faults("user module raises or exits")
    line.inject()
    optimizer = {"optimizer": "module"} if where == "configure_optimizers" else {}
    config = make_config(workload=workload(act=act, where=where, after=0) | optimizer, batch_sizes=[16])
    with pytest.raises(Mistake, match=says) as raised:
        trained(rank, config)
    told = pickle.loads(pickle.dumps(raised.value))
    assert str(told) == str(raised.value)
    assert len(str(told)) < 400
    assert str(told).isprintable()
    assert losses(trained(rank, config_of())) == losses(undisturbed)
    line.survived()


@pytest.mark.parametrize("phase", ["search", "confirm"])
@pytest.mark.parametrize("no_number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("arguments", "reports"),
    [
        ({"key": "loss", "after": 0}, 1),
        ({"key": "loss", "after": 9}, 3),  # epochs of four batches
        ({"key": "val_loss"}, 1),
        ({"key": "val_acc"}, 1),
        ({"key": "weight", "after": 11, "val_loss": None}, 3),  # by the last update of all
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_figure_that_is_no_number_is_a_divergence(
    rank: Rank, faults: Faults, arguments: dict[str, Any], reports: int, no_number: float, phase: str
) -> None:
    line = faults("figure that is no number")
    line.inject()
    arguments = dict(arguments)
    arguments[arguments.pop("key")] = no_number
    config = config_of(**arguments)
    if arguments.get("val_loss", 0) is None:
        config = config.model_copy(update={"workload": config.workload.model_copy(update={"val_loss": None})})
    told = trained(rank, config, phase)
    assert [report.diverged for report in told] == [False] * (reports - 1) + [True]
    line.survived()


@pytest.mark.parametrize("where", ["__init__", "training_step", "validation_step"])
@pytest.mark.parametrize(
    ("act", "says"),
    [("memory", "^out of memory$"), ("cuda", "^CUDA out of memory$"), ("cpu", "^can't allocate memory: .* bytes$")],
)
def test_no_memory_is_no_mistake(
    rank: Rank, undisturbed: list[Report], faults: Faults, act: str, says: str, where: str
) -> None:
    line = faults("out of memory")
    line.inject()
    with pytest.raises(OutOfMemory, match=says):
        trained(rank, config_of(act=act, where=where, after=0))
    assert losses(trained(rank, config_of())) == losses(undisturbed)
    line.survived()


LEADER = """
import os, sys, time
from study.training.offspring import end_with_this_process
end_with_this_process()
if os.fork() == 0:
    os.fork()  # a child and a grandchild
    os.write(1, b"%d\\n" % os.getpid())
    while True:
        time.sleep(60)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no process can be watched here")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "terminated", "ends"])
def test_what_was_forked_ends_with_its_rank(faults: Faults, number: int | None) -> None:
    line = faults("user module forks")
    line.inject()
    rank = subprocess.Popen([sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert rank.stdout is not None
    forked = [psutil.Process(int(rank.stdout.readline())) for _ in range(2)]
    assert all(process.is_running() for process in forked)
    if number is None:
        rank.communicate(b"")
    else:
        rank.send_signal(number)
    _, alive = psutil.wait_procs(forked, timeout=30)
    for process in alive:
        process.kill()
    assert not alive
    line.survived()
