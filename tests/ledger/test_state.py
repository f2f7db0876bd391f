"""One state for all readers: on every prefix of every frozen ledger they agree, with each other and with the rows."""

from __future__ import annotations

import lzma
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from study.analysis.summary.trials import trial_records
from study.api.plans import recorded
from study.cluster.metrics.definitions import OUTCOMES
from study.cluster.metrics.readings import MetricReadings
from study.cluster.sinks.events import TrialEvent
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow
from study.ledger.state import StudyState
from study.ledger.store import read
from study.planning.trials import Phase
from study.reporting.live.progress import StudyProgress
from study.tuning.progress import Progress

FROZEN = sorted(path.parent for path in (Path(__file__).parents[1] / "frozen").glob("*/config.yaml"))
PHASES: tuple[Phase, ...] = get_args(Phase)
Curves = dict[str, list[tuple[int, float, float]]]  # (updates, epochs, validation accuracy) by trial


def spent_device_h(rows: Sequence[AnyRow]) -> float:
    """Device-hours by the definition: closed leases as billed, and open ones from their opening to the last row."""
    closed = {(row.trial_id, row.attempt) for row in rows if row.kind == "lease"}
    billed_s = sum(row.devices * row.billed_s for row in rows if row.kind == "lease")
    open_s = sum(
        row.world_size * row.devices_per_rank * (rows[-1].at_s - row.at_s + row.setup_s)
        for row in rows
        if row.kind == "attempt" and (row.trial_id, row.attempt) not in closed
    )
    return (billed_s + open_s) / 3600


def kept_curves(rows: Sequence[AnyRow]) -> Curves:
    """The reports that count, by the definition, from the last row back: those that no later attempt left behind, up to
    the row with which a study began again after a mistake.
    """
    kept: Curves = defaultdict(list)
    from_updates: dict[str, int] = {}  # the least that any later attempt of the trial goes on from
    for i in reversed(range(len(rows))):
        row = rows[i]
        if row.kind == "attempt":
            from_updates[row.trial_id] = min(row.from_updates, from_updates.get(row.trial_id, row.from_updates))
        elif row.kind == "report" and row.updates <= from_updates.get(row.trial_id, row.updates):
            kept[row.trial_id].insert(0, (row.updates, row.epochs, row.val_accuracy))
        elif row.kind == "mistake" and any(later.kind == "study" for later in rows[i:]):
            break
    return dict(kept)


class Readers:
    """Every reader of rows, fed row by row as a driver feeds them; the summary's keeps whole curves."""

    def __init__(self, folder: Path) -> None:
        self.plan = recorded(folder)
        self.rows: list[AnyRow] = []
        self.scheduling = Progress(self.plan)
        self.summary, shown = StudyState(), StudyState(whole_curves=False)
        self.progress = StudyProgress(self.plan, shown)
        self.metrics = MetricReadings(self.plan, lambda: 0.0)
        self.sinks = StudyState(whole_curves=False)

    def follow(self, row: AnyRow) -> None:
        self.rows.append(row)
        for reader in (self.scheduling, self.metrics):
            reader.follow(row)
        for state in (self.summary, self.progress.state, self.sinks):
            state.apply(row)

    def check(self) -> None:
        readings = {(reading.name, *reading.tags.values()): reading.value for reading in self.metrics.read()}
        records = trial_records(self.summary, None)
        self._check_states(readings, Counter((record.phase, record.outcome) for record in records if record.outcome))
        self._check_spend(readings, sum(record.cost.billed_device_h for record in records))
        self._check_curves({record.trial_id: record.curve for record in records if record.curve})
        decisions = Counter(row.decision for row in self.rows if row.kind == "decision")
        assert {name: readings["study_decisions", name] for name in decisions} == decisions

    def _check_states(self, readings: dict[tuple[str, ...], float], outcomes: Counter[tuple[str, str]]) -> None:
        for phase in PHASES:
            count = self.progress.count(phase)
            assert count.running == readings["study_trials", phase, "running"]
            for outcome in OUTCOMES:
                n = outcomes[phase, outcome]
                assert Counter(count.outcomes)[outcome] == readings["study_trials", phase, outcome] == n
        statuses = [
            {trial_id: trial.status for trial_id, trial in state.trials.items()}
            for state in (self.summary, self.progress.state, self.sinks, self.scheduling.state)
        ]
        assert all(found == statuses[0] for found in statuses)
        assert len(self.scheduling.state.ended) == sum(outcomes.values())

    def _check_spend(self, readings: dict[tuple[str, ...], float], billed_device_h: float) -> None:
        now_s = self.rows[-1].at_s
        expected = spent_device_h(self.rows)
        hours = sum(value for (name, *_), value in readings.items() if name == "study_device_hours")
        assert hours == pytest.approx(expected, abs=1e-12)
        closed = {(row.trial_id, row.attempt) for row in self.rows if row.kind == "lease"}
        still_open = {(row.trial_id, row.attempt) for row in self.rows if row.kind == "attempt"} - closed
        for state in (self.summary, self.progress.state, self.sinks, self.scheduling.state):
            assert state.device_h(now_s) == pytest.approx(expected, abs=1e-12)
            assert state.open_leases.keys() == still_open
            assert state.closed_device_h == pytest.approx(billed_device_h, abs=1e-12)
        devices = sum(lease.devices for lease in self.summary.open_leases.values())
        assert readings["study_devices_leased",] == devices

    def _check_curves(self, found: dict[str, tuple[object, ...]]) -> None:
        expected = kept_curves(self.rows)
        points = {name: [(at.updates, at.epochs, at.val_accuracy) for at in curve] for name, curve in found.items()}
        assert points == expected
        for trial_id, curve in expected.items():
            for state in (self.scheduling.state, self.progress.state, self.sinks):
                trial = state.trials[trial_id]
                shown = [(at.updates, at.epochs, at.val_accuracy) for at in trial.curve]
                assert shown == (curve if trial.end is None else curve[-1:])
            epochs = self.progress.epochs(self.progress.state.trials[trial_id])
            assert epochs is not None
            assert epochs[0] == curve[-1][1]
        event = TrialEvent.of(self.rows[-1], self.sinks)
        if event is not None and event.row.trial_id in expected:
            assert event.updates == max(expected[event.row.trial_id][-1][0], event.attempt.from_updates)


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.name)
def test_at_every_row_of_a_real_ledger_all_readers_agree(frozen: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((frozen / "config.yaml").read_bytes())
    StudyPaths(tmp_path).ledger.write_bytes(lzma.decompress((frozen / f"{StudyPaths.LEDGER}.xz").read_bytes()))
    readers = Readers(tmp_path)
    for row in read(tmp_path).rows:
        readers.follow(row)
        readers.check()
    assert len(readers.rows) > 20
