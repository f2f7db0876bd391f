"""Trials that run out of memory in a study on a real Ray, with a module that raises torch's error."""

from pathlib import Path

import pytest

from study.analysis.summary.summarize import summarize
from study.ledger.schema import AttemptRow, EndRow, LeaseRow
from tests.conftest import make_config, run_for_real

pytestmark = pytest.mark.slow
ERROR = "OutOfMemory: CUDA out of memory"


@pytest.mark.parametrize(("world_size", "groups"), [(1, 1), (2, 1)])
def test_a_trial_that_does_not_fit_is_infeasible_and_the_next_one_trains(
    local_ray: None, tmp_path: Path, world_size: int, groups: int
) -> None:
    # With two ranks, one of them fails alone while the other waits for it in a collective.
    arguments = {"most": 8} | ({"only_rank": 1} if world_size == 2 else {})
    config = make_config(
        batch_sizes=[32, 8], search={"lr": [0.1]}, confirm={"seeds": 2}, hardware={"world_size": world_size},
        workload={
            "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData",
            "train_samples": 64, "val_accuracy": "acc", "val_loss": "loss", "module_args": arguments,
        },
    )  # fmt: skip
    run = run_for_real(config.model_copy(update={"max_retries": 0}), tmp_path)
    ends = {row.trial_id: (row.outcome, row.attempts, row.error) for row in run.of(EndRow)}
    outcomes = [ends[f"confirm-b{batch}-w{world_size}-s{seed}"] for batch in (32, 8) for seed in (1, 2)]
    assert outcomes == [("infeasible", 1, ERROR)] * 2 + [("completed", 1, None)] * 2
    leases = run.of(LeaseRow)
    assert len(leases) == len(run.of(AttemptRow)) == 4
    assert all(lease.billed_s > 0 for lease in leases)
    summary = summarize(run.rows, run.plan)
    assert "2 trial(s) infeasible (out of memory); their cost is counted, they are on no frontier." in summary.notes
    assert [point.batch_size for point in summary.points] == [8]
    assert 0 < summary.spend.censored_device_h < summary.spend.total_device_h
