"""Several ranks: the run is the same whatever their number."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from study.planning.batch_split import BatchPlan
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.messages import RankReport
from tests.conftest import make_config, wait_for

# 48 divides by 1, 2, 3 and 4 ranks; the tiny config validates on 21 samples.
BATCH = 48


def spec(world_size: int, accumulation: int = 1) -> TrialSpec:
    plan = make_plan(make_config(batch_sizes=[BATCH], budget={"epochs": 2}))
    batch = BatchPlan(BATCH, world_size, BATCH // world_size // accumulation, accumulation)
    made = plan.confirm_trials(plan.cells[0], 0.2)[0]
    return replace(made, stages=(replace(made.stages[0], batch=batch),))


@pytest.fixture(scope="module")
def told() -> Iterator[dict[tuple[int, int], list[RankReport]]]:
    """Rank 0's reports by world size and accumulation."""
    told = {}
    for world_size in (1, 2, 3, 4):
        with LocalGroup(make_config(batch_sizes=[BATCH]), world_size) as group:
            for accumulation in (1, 2, 4):
                told[world_size, accumulation] = group.run(spec(world_size, accumulation))
    return told


def test_loss_curves_do_not_depend_on_ranks_or_accumulation(told: dict[tuple[int, int], list[RankReport]]) -> None:
    expected = told[1, 1]
    assert len(expected) == 2
    for split, reports in told.items():
        for report, alone in zip(reports, expected, strict=True):
            assert report.train_loss == pytest.approx(alone.train_loss, abs=1e-5), split
            assert report.val_loss == pytest.approx(alone.val_loss, abs=1e-5), split


def test_accuracy_over_21_samples_is_identical_for_every_number_of_ranks(
    told: dict[tuple[int, int], list[RankReport]],
) -> None:
    final = [told[world_size, 1][-1] for world_size in (1, 2, 3, 4)]
    assert len({report.val_accuracy for report in final}) == 1
    assert len({report.test_accuracy for report in final}) == 1
    # Padding would count some of the 21 twice.
    assert final[0].val_accuracy * 21 == pytest.approx(round(final[0].val_accuracy * 21))
    assert len({report.train_accuracy for report in final}) == 1


@pytest.mark.slow
def test_ranks_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "kill_me.py"
    script.write_text(
        "from study.training.distributed.local_group import LocalGroup\n"
        "from tests.conftest import make_config, wait_for\n"
        "if __name__ == '__main__':\n"
        "    group = LocalGroup(make_config(), 1)\n"
        "    print(*group._pids, flush=True)\n"
        "    input()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        (rank,) = map(int, process.stdout.readline().split())
        os.kill(rank, 0)
        process.kill()
    wait_for(lambda: not Path(f"/proc/{rank}").exists())
