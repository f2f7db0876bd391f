"""What a replay says of a study is what the study does."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np

from study.analysis.contenders import CONTENDERS
from study.analysis.curves import curves_of
from study.analysis.replay import play
from study.analysis.summary import summarize
from study.ledger.rows import DecisionRow, EndRow, ReportRow
from tests.conftest import make_config, run_for_real

# One batch size costs about ten times as much as the other: the clock's noise cannot change its grade.
STUDY = {
    "batch_sizes": [8, 128],
    "search": {"lr": [0.02, 0.1, 0.4], "seeds": 2},
    "budget": {"epochs": 9},
    "confirm": {"seeds": 1},
}


def test_the_simulator_and_a_real_run_take_the_same_decisions(local_ray: None, tmp_path: Path) -> None:
    grid = run_for_real(make_config(**STUDY, scheduler={"kind": "grid"}), tmp_path / "grid")
    live = run_for_real(make_config(**STUDY, scheduler={"kind": "frontier_asha"}), tmp_path / "live")

    order = [spec.trial_id for spec in live.plan.search]
    random.Random(live.plan.config.seed).shuffle(order)  # as a study does: it settles ties
    curves = sorted(curves_of(summarize(grid.rows, grid.plan)), key=lambda curve: order.index(curve.trial_id))
    simulated = play(CONTENDERS["frontier_asha"], curves, np.random.default_rng(0), slots=4)

    outcomes = {row.trial_id: row.outcome for row in live.of(EndRow)}
    told = Counter(row.trial_id for row in live.of(ReportRow))
    pauses = Counter(row.trial_id for row in live.of(DecisionRow) if row.decision == "pause")
    assert {trial: told[trial] for trial in order} == {trial: ran.reports for trial, ran in simulated.trials.items()}
    assert {trial for trial in order if outcomes[trial] == "completed"} == {
        trial for trial, ran in simulated.trials.items() if ran.completed
    }
    assert pauses == Counter(step.trial for step in simulated.decisions if step.kind == "pause")
