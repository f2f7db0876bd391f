"""A study on a simulated Tune, some of whose groups die, and what a sink should say of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from study.cluster.sinks.dispatcher import Dispatcher
from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow
from study.planning.trials import Plan, make_plan
from tests.conftest import make_config
from tests.faults.ledger_audit import curves
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

DIES = (1, 6)  # reports before which a group dies; the second trial's has a checkpoint by then


class FollowedLedger(Memory):
    """Tells whoever follows of each row."""

    def __init__(self, follow: Callable[[AnyRow], None]) -> None:
        super().__init__()
        self.follow = follow

    def append(self, *rows: AnyRow, durable: bool = True) -> None:
        super().append(*rows, durable=durable)
        for row in rows:
            self.follow(row)


def study_plan(**tracking: str) -> Plan:
    """Two batch sizes, two rates, three reports a trial."""
    return make_plan(make_config(max_retries=5, recovery={"checkpoint_every_s": 6.0}, tracking=tracking))


def run_fake(plan: Plan, folder: Path) -> list[AnyRow]:
    """The rows of a study that the sinks of its plan have followed to its end."""
    with Dispatcher(plan, folder) as sinks:
        sinks.start()
        return run_followed(plan, sinks.follow)


def run_followed(plan: Plan, follow: Callable[[AnyRow], None]) -> list[AnyRow]:
    """The rows of a study, of each of which somebody is told."""
    ledger = FollowedLedger(follow)
    with without_ray(1):
        assert FakeTune(plan, ledger, FakeStore(), 1, {16: 5.0, 64: 2.0}, dies=DIES).run()
    return ledger.rows


@cache
def fake_rows() -> tuple[AnyRow, ...]:
    """The same without any sink."""
    return tuple(run_followed(study_plan(), lambda row: None))


def unstamped(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Less when they were written by the wall's clock, and what was asked for."""
    return [row.model_copy(update={"written": ""}) for row in rows]


def follow_all(plan: Plan, folder: Path, rows: Sequence[AnyRow]) -> None:
    """As a driver does that finds these rows in its ledger, and has nothing to add."""
    with Dispatcher(plan, folder) as sinks:
        for row in rows:
            sinks.follow(row)
        sinks.start()


def curves_told(rows: Sequence[AnyRow]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """(updates, value) by trial and metric, from the rows alone."""
    names = ("train_loss", "val_loss", "val_accuracy", "samples_per_s", "device_seconds")
    return {
        trial: {name: [(row.updates, getattr(row, name)) for row in curve] for name in names}
        for trial, curve in curves(rows).items()
    }


def facts(rows: Sequence[AnyRow]) -> dict[str, dict[str, Any]]:
    """Of each trial: its first attempt, its outcome and its bills."""
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"billed_device_h": 0.0})
    for row in rows:
        if isinstance(row, AttemptRow):
            found[row.trial_id].setdefault("attempt", row)
        elif isinstance(row, EndRow):
            found[row.trial_id]["outcome"] = row.outcome
        elif isinstance(row, LeaseRow):
            found[row.trial_id]["billed_device_h"] += row.devices * row.billed_s / 3600
    return dict(found)


def told(rows: Sequence[AnyRow]) -> int:
    """How many rows there are that a sink is told of."""
    return sum(isinstance(row, AttemptRow | ReportRow | EndRow | LeaseRow) for row in rows)
