"""Training that goes wrong: what a rank makes of it, and what becomes of the other trials of a study."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from pydantic import ValidationError

from study.cluster.target import LOCAL
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.ledger.schema import EndRow, LeaseRow
from study.ledger.store import read
from study.planning.capacity import Node
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.topology import RankTopology
from study.training.messages import Mistake, OutOfMemory, RankReport
from study.training.preflight import micro_batch as microbatch
from study.training.preflight.dry_run import dry_run
from study.training.preflight.pace import measure_paces
from study.training.rank import Rank
from study.tuning import micro_batch_cache as fitting
from study.tuning.micro_batch_cache import Fitted, fitted
from tests.conftest import make_config
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
Faults = Callable[[str], Injections]


def workload(**module_args: Any) -> dict[str, Any]:
    return {
        "kind": "custom", "module": "tests.misbehaving:Misbehaving", "data": "tests.misbehaving:MisbehavingData",
        "train_samples": 64, "val_accuracy": "acc", "val_loss": "loss", "module_args": module_args,
    }  # fmt: skip


def config_of(**module_args: Any) -> StudyConfig:
    return make_config(workload=workload(**module_args), batch_sizes=[16], budget={"epochs": 3})


def trained(rank: Rank, config: StudyConfig, phase: str = "confirm") -> list[RankReport]:
    """As an actor does it: all reports up to the last, or to one that diverged."""
    plan = make_plan(config)
    rank.config = config
    spec: TrialSpec = plan.search[0] if phase == "search" else plan.confirm_trials(plan.cells[0], 0.1)[0]
    try:
        translate_errors(lambda: rank.begin(spec))
        reports = [translate_errors(rank.advance)]
        while not (reports[-1].final or reports[-1].diverged):
            reports.append(translate_errors(rank.advance))
        return reports
    finally:
        rank.halt()


@pytest.fixture(scope="module")
def rank() -> Rank:
    """One for all: whatever a trial did to it, the next one must find it in order."""
    return Rank(ALONE, config_of())


@pytest.fixture(scope="module")
def undisturbed(rank: Rank) -> list[RankReport]:
    return trained(rank, config_of())


def losses(reports: list[RankReport]) -> list[tuple[float, float | None, float]]:
    return [(report.train_loss, report.val_loss, report.val_accuracy) for report in reports]


@pytest.mark.parametrize("where", ["__init__", "configure_optimizers", "training_step", "validation_step"])
@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("raise", r"ArithmeticError: the module broke \(misbehaving\.py:\d+\)$"),
        ("unpicklable", r"Unpicklable: .*it holds a lambda.* \(misbehaving\.py:\d+\)$"),
        ("mute", r"Mute \(misbehaving\.py:\d+\)$"),
        ("megabyte", r"ArithmeticError: .{,300} \.\.\. \(misbehaving\.py:\d+\)$"),
        ("base", r"Foreign.* \(misbehaving\.py:\d+\)$"),
        ("sys.exit", r"SystemExit.* \(misbehaving\.py:\d+\)$"),
        ("interrupt", r"KeyboardInterrupt.* \(misbehaving\.py:\d+\)$"),
        ("generator", r"GeneratorExit.* \(misbehaving\.py:\d+\)$"),
    ],
)
def test_whatever_a_module_raises_is_one_line_and_the_rank_goes_on(
    rank: Rank, undisturbed: list[RankReport], faults: Faults, act: str, says: str, where: str
) -> None:
    line = faults("user module raises or exits")
    line.inject()
    optimizer = {"optimizer": "module"} if where == "configure_optimizers" else {}
    config = make_config(workload=workload(act=act, where=where, after=0) | optimizer, batch_sizes=[16])
    with pytest.raises((Mistake, ConfigError), match=says) as raised:
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
    rank: Rank, undisturbed: list[RankReport], faults: Faults, act: str, says: str, where: str
) -> None:
    line = faults("out of memory")
    line.inject()
    with pytest.raises(OutOfMemory, match=says):
        trained(rank, config_of(act=act, where=where, after=0))
    assert losses(trained(rank, config_of())) == losses(undisturbed)
    line.survived()


@pytest.mark.parametrize("val", ["none", 0, 1], ids=["set", "stream", "stream read twice"])
def test_without_a_validation_sample_there_is_no_accuracy(rank: Rank, faults: Faults, val: str | int) -> None:
    line = faults("empty validation split")
    line.inject()
    config = make_config(workload=workload() | {"data_args": {"val": val}}, batch_sizes=[16])
    with pytest.raises(ConfigError, match=r"^workload\.data: its validation set is empty$"):
        trained(rank, config)
    if val != 1:  # what is tried is validated once
        with pytest.raises(ConfigError, match=r"^workload\.data: its validation set is empty$"):
            dry_run(make_plan(config))
    line.survived()


@pytest.mark.parametrize(
    "changes",
    [{"workload": {"kind": "digits", "val_samples": 0}}, {"workload": {"kind": "digits", "val_samples": -1}}],
    ids=["none", "fewer"],
)
def test_an_embedded_workload_validates_on_something(faults: Faults, changes: dict[str, Any]) -> None:
    line = faults("empty validation split")
    line.inject()
    with pytest.raises(ValidationError, match="val_samples"):
        make_config(**changes)
    line.survived()


NORMED = {
    "module": "tests.user_code:Normed",
    "data": "tests.user_code:Data",
    "train_samples": 64,
    "val_accuracy": "val_acc",
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_sizes": [1]}, r"^batch_sizes: a rank has a micro batch of 1, on which batch norm cannot train$"),
        ({"batch_sizes": [8], "ghost_batch": 1}, r"^ghost_batch: is 1, on which batch norm cannot train$"),
    ],
    ids=["micro batch", "ghost batch"],
)
def test_one_sample_has_no_variance(rank: Rank, faults: Faults, changes: dict[str, Any], says: str) -> None:
    line = faults("batch norm over one sample")
    line.inject()
    config = make_config(workload=NORMED, **changes)
    with pytest.raises(ConfigError, match=says):
        dry_run(make_plan(config))
    with pytest.raises(Mistake, match=r"^ValueError: Expected more than 1 value per channel .* \(user_code\.py:\d+\)$"):
        trained(rank, config)
    line.survived()


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_sizes": [1]},  # the pixels of one image have a variance
        {"batch_sizes": [8], "ghost_batch": 1},
        {"batch_sizes": [19]},  # 77 are four batches and a sample, which is left out
    ],
    ids=["micro batch", "ghost batch", "last batch"],
)
def test_one_image_is_enough(faults: Faults, changes: dict[str, Any]) -> None:
    line = faults("batch norm over one sample")
    line.inject()
    digits = {"kind": "digits", "model": "convnet", "width": 4, "val_samples": 20, "test_samples": 1700}
    config = make_config(workload=digits, **changes)
    assert make_plan(config).train_samples == 77
    reports = trained(Rank(ALONE, config), config)
    assert not any(report.diverged for report in reports)
    line.survived()


@dataclass
class Gpu:
    """Holds so many samples; what is larger does not fit."""

    samples: int
    tried: list[int] = field(default_factory=list)

    def train(self, rank: Rank, spec: TrialSpec) -> bool:
        self.tried.append(spec.batch.micro_batch)
        return spec.batch.micro_batch <= self.samples


@pytest.mark.parametrize("holds", [1, 3, 16, 40, 64])
def test_auto_backs_off_to_what_fits_and_says_so(faults: Faults, monkeypatch: pytest.MonkeyPatch, holds: int) -> None:
    line = faults("micro batch auto on too small a GPU")
    line.inject()
    config = make_config(hardware={"gpus_per_rank": 1, "micro_batch": "auto"}, batch_sizes=[64])
    plan, gpu, said = make_plan(config), Gpu(holds), list[str]()
    monkeypatch.setattr(microbatch, "_trains", gpu.train)
    size, tried = microbatch.largest_micro_batch(plan, ALONE)
    assert size == max(divisor for divisor in (1, 2, 4, 8, 16, 32, 64) if divisor <= holds)
    assert tried == len(set(gpu.tried))
    monkeypatch.setattr(fitting, "connected", lambda address, cpus: nullcontext((Node(1, 1),)))
    monkeypatch.setattr(fitting.ray, "remote", lambda **leased: lambda task: SimpleNamespace(remote=lambda plan: None))
    monkeypatch.setattr(fitting.ray, "get", lambda answer: Fitted("a small GPU", size, tried))
    fits = fitted(plan, LOCAL, None, said.append)
    assert said == [f"Micro batch: at most {size} samples, which fit on a small GPU ({tried} sizes tried)."]
    assert {(spec.batch.micro_batch, spec.batch.global_batch) for spec in fits.search} == {(size, 64)}
    line.survived()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("raise", r"^workload: ArithmeticError: the module broke \(misbehaving\.py:\d+\)$"),
        ("sys.exit", r"^workload: RuntimeError: .*SystemExit \(misbehaving\.py:\d+\)$"),
        ("os._exit", "^workload: A process in the process pool was terminated abruptly"),
    ],
)
def test_a_pilot_does_not_wait_for_the_rank_that_went_wrong(
    faults: Faults, capfd: pytest.CaptureFixture[str], act: str, says: str
) -> None:
    line = faults("user module goes wrong in a pilot")
    line.inject()
    config = make_config(workload=workload(act=act, only_rank=1), batch_sizes=[16], hardware={"world_size": 2})
    with pytest.raises(ConfigError, match=says):  # long before rank 0, in a collective, gives up
        measure_paces(make_plan(config), cores=2)
    assert capfd.readouterr() == ("", "")
    line.survived()


@pytest.mark.thorough
def test_what_a_module_prints_in_a_pilot_is_not_for_the_terminal(
    faults: Faults, capfd: pytest.CaptureFixture[str]
) -> None:
    line = faults("user module prints megabytes")
    line.inject()
    plan = make_plan(make_config(workload=workload(act="print", after=20), batch_sizes=[16]))
    assert len(measure_paces(plan, cores=1).measured) == 1
    assert capfd.readouterr() == ("", "")
    line.survived()


LEADER = """
import os, sys, time
from study.training.distributed.process_guard import end_with_this_process
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


BAD: dict[str, tuple[dict[str, Any], str, int, str]] = {
    # What the module is told, how its trial ends, in how many attempts, and why.
    "raises": ({"act": "raise"}, "failed", 1, r"ArithmeticError: the module broke \(misbehaving\.py:\d+\)"),
    "holds": ({"act": "unpicklable"}, "failed", 1, r"Unpicklable: .* \(misbehaving\.py:\d+\)"),
    "talks": ({"act": "megabyte"}, "failed", 1, r"ArithmeticError: .{,300} \.\.\. \(misbehaving\.py:\d+\)"),
    "leaves": ({"act": "sys.exit"}, "failed", 1, r"RuntimeError: .*SystemExit \(misbehaving\.py:\d+\)"),
    "leaves-early": (
        {"act": "sys.exit", "where": "__init__"},
        "failed",
        1,
        r".*SystemExit: 3 \(misbehaving\.py:\d+\)",
    ),
    "vanishes": ({"act": "os._exit"}, "failed", 2, r"rank 0 on .* died"),
    "diverges": ({"loss": "nan", "after": 5}, "diverged", 1, "train_loss is nan"),
    "misjudges": ({"val_acc": "nan"}, "diverged", 1, "val_accuracy is nan"),
    "swells": ({"act": "memory"}, "infeasible", 1, "OutOfMemory: out of memory"),
}
ODD: dict[str, dict[str, Any]] = {
    "good": {},
    "prints": {"act": "print"},
    "forks": {"act": "fork"},
    "late": {"act": "raise", "where": "on_train_end", "after": 0},  # when the next trial has the group
}
# On one rank of two, while the other waits for it.
BAD_RANK: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "raises": (
        {"act": "raise", "only_rank": 1},
        "failed",
        1,
        r"ArithmeticError: the module broke \(misbehaving\.py:\d+\)",
    ),
    "swells": ({"act": "cuda", "only_rank": 1}, "infeasible", 1, "OutOfMemory: CUDA out of memory"),
    "vanishes": ({"act": "os._exit", "only_rank": 1}, "failed", 2, r"rank 1 on .* died"),
}
ODD_RANK: dict[str, dict[str, Any]] = {"good": {}, "forks": {"act": "fork", "only_rank": 1}}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Of a study that was run in a folder, or of what its modules forked."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended since it was listed
            if process.environ().get("STUDY_TEST_FOLDER") == str(folder):
                found.append(process)
    return found


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("world_size", "bad", "odd"), [(1, BAD, ODD), (2, BAD_RANK, ODD_RANK)], ids=["alone", "two"])
def test_a_study_of_bad_modules_ends_with_the_frontier_of_the_good_ones(
    tmp_path: Path, faults: Faults, world_size: int, bad: dict[str, Any], odd: dict[str, Any]
) -> None:
    line, times = faults("user module misbehaves in a study"), len(bad) + len(odd) - 1
    line.inject(times)
    told = {name: case[0] for name, case in bad.items()} | odd
    study = {
        "name": "bad", "batch_sizes": [16], "search": {"lr": [0.1]}, "confirm": {"seeds": 1}, "budget": {"epochs": 3},
        "max_retries": 1, "workload": workload(), "hardware": {"world_size": world_size},
        "variants": {name: {"workload": workload(**arguments)} for name, arguments in told.items()},
    }  # fmt: skip
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    done = subprocess.run(
        [sys.executable, "-m", "study", "run", "bad", "--out", "s", "--cpus", "2", "--no-try"],
        cwd=tmp_path, capture_output=True, text=True, timeout=800,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "STUDY_TEST_FOLDER": str(tmp_path)},
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    _, alive = psutil.wait_procs(processes_of(tmp_path), timeout=30)
    assert not alive
    assert len(printed) < 20_000
    assert "Traceback" not in printed
    assert "printed by the module" not in printed

    rows = read(tmp_path / "s").rows
    ends = {row.trial_id.split("-b16")[0].removeprefix("confirm-"): row for row in rows if isinstance(row, EndRow)}
    assert ends.keys() == told.keys()
    for name, (_, outcome, attempts, says) in bad.items():
        assert (ends[name].outcome, ends[name].attempts) == (outcome, attempts), name
        assert re.fullmatch(says, ends[name].error or ""), ends[name]
        assert f"{ends[name].trial_id} {outcome}" in printed
        assert f": {ends[name].error}\n" in printed
    for name in odd:
        assert (ends[name].outcome, ends[name].error) == ("completed", None), name
        assert ends[name].final == ends["good"].final
    assert (tmp_path / "s" / "ledger.jsonl").stat().st_size < 100_000
    billed = {row.trial_id for row in rows if isinstance(row, LeaseRow) and row.billed_s > 0}
    assert billed == {row.trial_id for row in ends.values()}
    points = json.loads((tmp_path / "s" / "report" / "summary.json").read_text())["points"]
    assert {point["variant"] for point in points} == odd.keys()
    line.survived(audit(rows), times=times)
