"""The part of a study that a limit on spending left undone."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.records import LimitCut, Point, TrialRecord
from study.ledger.state import StudyState
from study.planning.trials import Cell, Plan


def limit_cut(
    state: StudyState,
    trials: Sequence[TrialRecord],
    points: Sequence[Point],
    plan: Plan,
    planned: int,
    hopeless: Sequence[Cell],
) -> LimitCut | None:
    """Return the limit that cut the study; None if no limit is passed, or every planned trial has finished.

    `hopeless` are cells whose search trials all failed; `planned` counts the trials of the plan without their confirm
    trials.
    """
    begun = [trial for trial in trials if trial.outcome is None]
    finished = len(trials) - len(begun)
    if state.limit is None or finished >= planned:
        return None
    device_h = sum(trial.cost.billed_device_h for trial in trials)
    usd = plan.config.price.usd_per_device_hour
    spent = {"device_hours": device_h, "usd": device_h * (usd or 0.0), "wall_h": state.now_s / 3600, "wait_h": 0.0}
    shown = {point.cell for point in points}
    return LimitCut(
        limit=state.limit.limit,
        allowed=state.limit.allowed,
        noticed=state.limit.spent,
        spent=max(spent[state.limit.limit], state.limit.spent),
        running=sum((trial.trial_id, trial.attempts) in state.open_leases for trial, _ in state.begun),
        ended_early=len(begun),
        not_run=planned - finished - len(begun),
        unconfirmed=tuple(cell for cell in plan.cells if cell not in shown and cell not in hopeless),
    )
