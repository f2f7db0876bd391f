"""What a limit on spending has left undone."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.records import Cut, Point, TrialRecord
from study.analysis.summary.points import cell_of
from study.ledger.state import StudyState
from study.planning.trials import Cell, Plan


def cut_of(
    state: StudyState,
    trials: Sequence[TrialRecord],
    points: Sequence[Point],
    plan: Plan,
    planned: int,
    hopeless: Sequence[Cell],
) -> Cut | None:
    """None where no limit is passed, or every planned trial is over all the same."""
    begun = [trial for trial in trials if trial.outcome is None]
    over = len(trials) - len(begun)
    if state.limit is None or over >= planned:
        return None
    device_h = sum(trial.cost.billed_device_h for trial in trials)
    usd = plan.config.price.usd_per_device_hour
    spent = {"device_hours": device_h, "usd": device_h * (usd or 0.0), "wall_h": state.now_s / 3600, "wait_h": 0.0}
    shown = {cell_of(point) for point in points}
    return Cut(
        limit=state.limit.limit,
        allowed=state.limit.allowed,
        noticed=state.limit.spent,
        spent=max(spent[state.limit.limit], state.limit.spent),
        running=sum((trial.trial_id, trial.attempts) in state.open_leases for trial, _ in state.begun),
        ended_early=len(begun),
        not_run=planned - over - len(begun),
        unconfirmed=tuple(cell for cell in plan.cells if cell not in shown and cell not in hopeless),
    )
