"""How far a study is, in lines of text; `study status` prints them without importing Rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from study.ledger.schema import AnyRow, Outcome
from study.ledger.state import StudyState
from study.planning.trials import Phase, Plan
from study.reporting.live.progress import PhaseCount, StudyProgress
from study.reporting.text.formatting import cost_unit, of_limit
from study.safe_text import printable

PHASE_NAMES: tuple[Phase, ...] = get_args(Phase)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def status_lines(plan: Plan, rows: Iterable[AnyRow]) -> list[str]:
    """Return how far a study is: a line for each phase, one for its spend, and one for what holds it up."""
    progress = StudyProgress(plan, StudyState(rows))
    lines = []
    for phase in phases(progress):
        count = progress.count(phase)
        found = outcomes_of(count)
        lines.append(f"{phase:<8}{count.finished}/{count.planned} finished" + (f": {found}" if found else ""))
    return [*lines, f"{'spent':<8}{spent(progress)}", *(f"{name:<8}{why}" for name, why in held_up(progress))]


def phases(progress: StudyProgress) -> list[Phase]:
    """Return the phases that have trials."""
    counts = ((phase, progress.count(phase)) for phase in PHASE_NAMES)
    return [phase for phase, count in counts if count.planned or count.finished]


def outcomes_of(count: PhaseCount) -> str:
    parts = [f"{count.outcomes[outcome]} {outcome}" for outcome in OUTCOMES if outcome in count.outcomes]
    return ", ".join([*parts, *([f"{count.running} running"] if count.running else [])])


def spent(progress: StudyProgress) -> str:
    """Return device-time, open leases included, and what is spent of each limit."""
    limits, device_h = progress.limits, progress.state.device_h(progress.state.now_s)
    parts = [of_limit(name, *figures) for name, figures in limits.items()]
    return ", ".join(parts if "device_hours" in limits else [cost_unit([device_h]).show(device_h), *parts])


def held_up(progress: StudyProgress) -> Iterator[tuple[str, str]]:
    """Yield why nothing new starts: (state, cause)."""
    state = progress.state
    if state.waiting is not None:
        yield "waiting", state.waiting.why
    if state.limit is not None and len(state.ended) < progress.planned:
        then = "running trials end at their next report" if any(state.running) else "raise it to go on"
        yield "cut", f"by limits.{state.limit.limit}: {then}"
    if state.mistake is not None:
        yield "ended", f"by the same mistake in every batch size: {printable(state.mistake.error)}"
