"""A study whose trials all fail with the same mistake: when it ends, what it says, and how it goes on."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.summary.summarize import summarize
from study.cluster.metrics.readings import MetricReadings
from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, LimitRow, MistakeRow, ReportRow, StudyRow
from study.ledger.state import StudyState
from study.planning.trials import Cell, Plan, TrialSpec, make_plan
from study.reporting.text.status import status_lines
from study.reporting.text.verdict import mistake_sentence, nothing_completed, verdict
from study.tuning.progress import Progress
from study.tuning.same_mistake import without_what_varies
from tests.conftest import make_config
from tests.faults.ledger_audit import Audit, audit
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

Fails = Callable[[TrialSpec, int], str | None]
SIZES = [16, 32, 64]
SCHEDULERS: dict[str, dict[str, Any]] = {
    "grid": {"kind": "grid"},
    "frontier_asha": {"kind": "frontier_asha", "audit": 0.4},
    "asha": {"kind": "asha", "grace": 1, "eta": 2},
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IndexError: index 10 is out of bounds (net.py:41)", "IndexError: index 7 is out of bounds (net.py:41)"),
        ("RuntimeError: shapes (16x64 and 63x10) (net.py:28)", "RuntimeError: shapes (32x64 and 63x10) (net.py:28)"),
        ("OSError: no file /tmp/tmp4k/a b.bin: gone", "OSError: no file /tmp/tmpz_/c: gone"),
        ("TypeError: <Net object at 0x7f3a> (net.py:3)", "TypeError: <Net object at 0x55d0> (net.py:3)"),
        ("ValueError: got [1, 2, 3] (net.py:3)", "ValueError: got [4, 5] (net.py:3)"),
        ("workload.val_accuracy: logs no acc", "workload.val_accuracy: logs no acc"),
    ],
)
def test_mistakes_are_the_same_whatever_numbers_and_paths_are_in_them(one: str, other: str) -> None:
    if "a b.bin" in one:  # a path with a blank in it is two words: not seen to be the same
        assert without_what_varies(one) != without_what_varies(other)
    else:
        assert without_what_varies(one) == without_what_varies(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IndexError: index 10 is out of bounds (net.py:41)", "IndexError: index 10 is out of bounds (net.py:42)"),
        ("IndexError: index 10 is out of bounds (net.py:41)", "IndexError: index 10 is out of bounds (data.py:41)"),
        ("IndexError: it broke (net.py:41)", "KeyError: it broke (net.py:41)"),
        ("ValueError: too many labels (net.py:41)", "ValueError: too few labels (net.py:41)"),
    ],
)
def test_mistakes_differ_by_place_kind_or_words(one: str, other: str) -> None:
    assert without_what_varies(one) != without_what_varies(other)


def study_plan(scheduler: str = "grid", **changes: Any) -> Plan:
    """Three batch sizes, four rates, nine reports a trial, no retries."""
    base: dict[str, Any] = {
        "batch_sizes": SIZES,
        "search": {"lr": [0.2, 0.1, 0.05, 0.01]},
        "budget": {"epochs": 9},
        "max_retries": 0,
        "scheduler": SCHEDULERS[scheduler],
    }
    return make_plan(make_config(**base | changes))


def run(
    plan: Plan, fails: Fails, ledger: Memory | None = None, slots: int = 1, dies: Sequence[int] = ()
) -> tuple[list[AnyRow], FakeTune]:
    ledger = ledger or Memory()
    with without_ray(slots):
        tune = FakeTune(plan, ledger, FakeStore(), slots, dict.fromkeys(SIZES, 4.0), fails=fails, dies=dies)
        tune.run()
    return ledger.rows, tune


def of(kind: type[Any], rows: Sequence[AnyRow]) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def always(spec: TrialSpec, updates: int) -> str:
    return f"IndexError: index {spec.batch.global_batch} is out of bounds (net.py:41)"


def never(spec: TrialSpec, updates: int) -> None:
    return None


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("sizes", "most"), [([16], 2), ([16, 32], 2), (SIZES, 3)])
@pytest.mark.parametrize("at", [1, 5])  # the report on the way to which it fails
def test_one_trial_of_every_batch_size_runs_and_no_more(scheduler: str, sizes: list[int], most: int, at: int) -> None:
    plan = study_plan(scheduler, batch_sizes=sizes)
    rows, _ = run(plan, lambda spec, updates: always(spec, updates) if updates >= spec.report_at[at - 1] else None)
    (mistake,) = of(MistakeRow, rows)
    assert mistake.error == of(EndRow, rows)[0].error
    failed = [row for row in of(EndRow, rows) if row.outcome == "failed"]
    assert all(row.mistake for row in failed)
    assert {row.outcome for row in of(EndRow, rows)} <= {"failed", "stopped"}
    assert mistake.failed == len(failed)
    assert not of(AttemptRow, rows[rows.index(mistake) :])
    assert audit(rows) == Audit(0.0, 0)
    if scheduler == "grid" or at == 1:  # others pause trials before they come to the mistake, or stop them
        assert [row.attempts for row in failed] == [1] * most
        assert len({row.trial_id for row in of(AttemptRow, rows)}) == most


@pytest.mark.parametrize("slots", [2, 5])
def test_at_most_one_trial_per_slot_fails_in_addition(slots: int) -> None:
    rows, _ = run(study_plan(), always, slots=slots)
    assert len(of(MistakeRow, rows)) == 1
    assert len(of(EndRow, rows)) <= len(SIZES) + slots


def test_confirm_trials_without_a_search_count_as_well() -> None:
    plan = study_plan(search={"lr": [0.1]}, confirm={"seeds": 3})
    assert not plan.search
    rows, _ = run(plan, always)
    assert [row.trial_id for row in of(EndRow, rows)] == [f"confirm-b{size}-w1-s1" for size in SIZES]
    assert len(of(MistakeRow, rows)) == 1


def test_a_study_of_a_single_trial_can_be_tried_again() -> None:
    plan = study_plan(batch_sizes=[16], search={"lr": [0.1]}, confirm={"seeds": 1})
    ledger = Memory()
    run(plan, always, ledger)
    assert len(of(MistakeRow, ledger.rows)) == 1
    _, tune = run(plan, never, ledger)
    assert tune.progress.finished
    assert [row.outcome for row in of(EndRow, ledger.rows)] == ["failed", "completed"]


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (lambda spec, updates: always(spec, updates) if spec.cell.batch_size < 64 else None, "a cell is sound"),
        (lambda spec, updates: f"E: {'abc'[spec.cell.batch_size // 32]} broke (net.py:1)", "three mistakes"),
        (lambda spec, updates: always(spec, updates) if spec.base_lr > 0.05 else None, "low rates are sound"),
    ],
)
def test_a_study_with_another_event_goes_on_to_its_end(fails: Fails, why: str) -> None:
    for slots in (1, 4):
        rows, tune = run(study_plan(), fails, slots=slots)
        unlucky = why == "low rates are sound" and of(MistakeRow, rows)  # the first of every batch size was a high one
        assert unlucky or tune.progress.finished, why
        if not unlucky:
            assert len(of(EndRow, rows)) >= len(tune.plan.search)


def test_a_lost_process_is_not_a_mistake() -> None:
    rows, tune = run(study_plan(), never, dies=range(1000))
    assert tune.progress.finished
    assert {(row.outcome, row.mistake) for row in of(EndRow, rows)} == {("failed", False)}


def test_a_trial_that_gets_further_than_the_failed_ones_refutes_the_mistake() -> None:
    """It runs when the last batch size fails: nothing starts until it has reported, and then the study goes on."""
    plan = study_plan(batch_sizes=[16, 32], search={"lr": [0.2, 0.1]})
    order = [spec.trial_id for spec in Progress(plan)._order]
    firsts = {next(name for name in order if f"-b{size}-" in name) for size in (16, 32)}
    rows, tune = run(plan, lambda spec, updates: always(spec, updates) if spec.trial_id in firsts else None, slots=2)
    assert tune.progress.finished
    assert not of(MistakeRow, rows)
    assert {row.trial_id for row in of(EndRow, rows) if row.outcome == "failed"} == firsts


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_corrected_study_begins_again_and_its_bills_add_up(scheduler: str) -> None:
    plan, ledger = study_plan(scheduler), Memory()
    _, first = run(plan, lambda spec, updates: always(spec, updates) if updates >= spec.report_at[2] else None, ledger)
    n_first, tried = len(ledger.rows), {row.trial_id for row in of(EndRow, ledger.rows) if row.mistake}
    assert len(of(MistakeRow, ledger.rows)) == 1
    rows, second = run(plan, never, ledger)
    assert second.progress.finished
    assert len(of(MistakeRow, rows)) == 1
    again = rows[n_first:]
    # Those that had failed come last among the batch size's own, and everything begins at its beginning.
    attempts = of(AttemptRow, again)
    assert tried
    assert attempts[0].trial_id not in tried
    begun: set[str] = set()
    for row in attempts:
        assert row.from_updates == 0 or row.trial_id in begun
        begun.add(row.trial_id)
    assert tried <= {row.trial_id for row in of(EndRow, again)}
    assert audit(rows) == Audit(0.0, 0)
    billed_s = sum(row.devices * row.billed_s for row in of(LeaseRow, rows))
    assert billed_s == pytest.approx(first.leased_s + second.leased_s, abs=2 * len(first.groups + second.groups))

    summary = summarize(rows, plan)
    assert summary.spend.total_device_h == pytest.approx(billed_s / 3600)
    assert sum(trial.cost.billed_device_h for trial in summary.trials) == pytest.approx(billed_s / 3600)
    assert summary.mistaken is None
    assert nothing_completed(summary) is None
    whole, _ = run(plan, never)
    assert {row.trial_id for row in of(EndRow, again) if row.outcome == "completed"} >= {
        row.trial_id for row in of(EndRow, whole) if row.trial_id.startswith("confirm")
    }
    assert {trial.outcome for trial in summary.trials} <= {"completed", "stopped"}


def test_all_readers_of_the_rows_agree() -> None:
    plan, ledger = study_plan(), Memory()
    run(plan, always, ledger)
    at_first = list(ledger.rows)
    run(plan, never, ledger)
    for rows, failed, completed in ((at_first, 3, 0), (ledger.rows, 0, 18)):
        summary, state, metrics = summarize(rows, plan), StudyState(rows), MetricReadings(plan)
        for row in rows:
            metrics.follow(row)
        values = {(reading.name, *reading.tags.values()): reading.value for reading in metrics.read()}
        for n, outcome in ((failed, "failed"), (completed, "completed")):
            assert sum(trial.outcome == outcome for trial in summary.trials) == n
            assert sum(trial.status == outcome for trial in state.ended.values()) == n
            assert sum(values["study_trials", phase, outcome] for phase in ("search", "confirm")) == n
        hours = dict.fromkeys(("search", "confirm", "censored"), 0.0)
        for (name, *tags), value in values.items():
            if name == "study_device_hours":
                hours[tags[0]] += value
        assert sum(hours.values()) == pytest.approx(summary.spend.total_device_h)
        assert hours["censored"] == pytest.approx(summary.spend.censored_device_h, abs=1e-9)
        assert (hours["censored"] > 0) == (failed > 0)
    summary = summarize(at_first, plan)
    error = "IndexError: index # is out of bounds (net.py:41)"
    sentence = mistake_sentence(summary) or ""
    assert without_what_varies(f"{summary.mistaken.error if summary.mistaken else ''}") == error
    assert sentence.endswith("(net.py:41). 3 trials failed with it, 15 were not run.")
    assert verdict(summary)[0] == sentence
    assert status_lines(plan, at_first)[-1].startswith("ended   by the same mistake in every batch size: IndexError: ")
    assert not any(line.startswith("ended") for line in status_lines(plan, ledger.rows))


def test_a_study_in_which_nothing_completed_reports_the_outcomes_of_its_trials() -> None:
    plan = study_plan(batch_sizes=[16, 32], search={"lr": [0.2, 0.1]})

    def fails(spec: TrialSpec, updates: int) -> str:
        return "KeyError: 'a' (net.py:1)" if spec.cell.batch_size == 16 else "IndexError (net.py:2)"

    rows, tune = run(plan, fails)
    assert tune.progress.finished
    assert not of(MistakeRow, rows)
    said = nothing_completed(summarize(rows, plan))
    assert said in (
        "No trial completed: 4 failed (KeyError: 'a' (net.py:1), and others).",
        "No trial completed: 4 failed (IndexError (net.py:2), and others).",
    )


def test_a_limit_that_is_passed_as_well_does_not_hide_the_mistake() -> None:
    plan, ledger = study_plan(), Memory()
    run(plan, always, ledger)
    limited = study_plan(limits={"device_hours": 1e-3})
    rows, tune = run(limited, never, ledger)
    assert isinstance(rows[-1], LimitRow)
    assert not tune.progress.finished
    _, tune = run(plan, never, ledger)
    assert tune.progress.finished
    assert {trial.status for trial in tune.progress.state.ended.values()} == {"completed"}


# Whatever fails in whatever order, and whenever drivers die.

MISTAKES = ("IndexError: index 3 is out of bounds (net.py:41)", "KeyError: 'b' (net.py:7)")


def same_mistake_by_definition(rows: Sequence[AnyRow], plan: Plan) -> bool:
    """Apply the definition to all rows at once, for studies of one world size that fit into memory."""
    began, mistake = 0, False
    for i, row in enumerate(rows):
        if isinstance(row, MistakeRow):
            mistake = True
        elif isinstance(row, StudyRow):
            began, mistake = (i if mistake else began), False
    rows = rows[began:]
    cells, reported, ends = {}, defaultdict[str, list[int]](list), {}
    for row in rows:
        if isinstance(row, AttemptRow):
            cells[row.trial_id] = Cell(row.batch_size, row.world_size)
        elif isinstance(row, ReportRow):
            reported[row.trial_id].append(row.updates)
        elif isinstance(row, EndRow):
            ends[row.trial_id] = row
    failed = {name: end for name, end in ends.items() if end.mistake}
    if any(end.outcome == "completed" for end in ends.values()):
        return False
    if len(failed) < 2 or len({end.error for end in failed.values()}) != 1:
        return False
    for cell in plan.cells:
        of_failed = [max(reported[name], default=0) for name in failed if cells[name] == cell]
        of_all = [max(reported[name], default=0) for name in cells if cells[name] == cell]
        if not of_failed or max(of_all) > max(of_failed):
            return False
    return True


class DriverKilled(Exception):
    """Simulates the death of a driver."""


class KillingLedger(Memory):
    """Kills its driver after a number of rows."""

    left = 10**9

    def append(self, *rows: AnyRow, durable: bool = True) -> None:
        for row in rows:
            if self.left == 0:
                raise DriverKilled
            self.left -= 1
            super().append(row, durable=durable)


@settings(max_examples=15, deadline=None)
@given(
    scheduler=st.sampled_from(list(SCHEDULERS)),
    slots=st.integers(1, 4),
    kinds=st.lists(st.sampled_from([0] * 20 + [1, None]), min_size=12, max_size=12),
    ats=st.one_of(st.integers(0, 8).map(lambda at: [at] * 12), st.lists(st.integers(0, 8), min_size=12, max_size=12)),
    kills=st.lists(st.integers(1, 40), max_size=4),
    dies=st.lists(st.integers(0, 60), max_size=2),
    mends=st.booleans(),
)
def test_any_rows_give_the_same_result_live_and_after_a_resume(
    scheduler: str,
    slots: int,
    kinds: list[int | None],
    ats: list[int],
    kills: list[int],
    dies: list[int],
    mends: bool,
) -> None:
    plan, ledger, store = study_plan(scheduler, confirm={"seeds": 1}), KillingLedger(), FakeStore()
    fate = {
        spec.trial_id: (MISTAKES[kind], spec.report_at[at])
        for spec, kind, at in zip(plan.search, kinds, ats, strict=True)
        if kind is not None
    }

    def fails(spec: TrialSpec, updates: int) -> str | None:
        error, at = fate.get(spec.trial_id, (None, 0))
        return error if updates >= at else None

    for left in (*kills, 10**9, 10**9):
        ledger.left = left
        ended = bool(of(MistakeRow, ledger.rows))
        with without_ray(slots):
            tune = FakeTune(plan, ledger, store, slots, dict.fromkeys(SIZES, 4.0), dies=dies, fails=fails)
            try:
                tune.run()
            except DriverKilled:
                continue
        if mends and not ended:
            fate.clear()
    rows = ledger.rows
    live = Progress(plan)
    for n, row in enumerate(rows, 1):
        live.follow(row)
        if n % 9 and not isinstance(row, EndRow | MistakeRow | StudyRow):
            continue
        resumed = Progress(plan, rows[:n])
        holds = same_mistake_by_definition(rows[:n], plan)
        assert (live.same_mistake is not None) == (resumed.same_mistake is not None) == holds
        assert live.same_mistake == resumed.same_mistake
        assert live.state.mistake == resumed.state.mistake
        assert live.state.ended == resumed.state.ended
        assert {
            trial.trial_id for trial in summarize(rows[:n], plan).trials if trial.outcome
        } == live.state.ended.keys()
        if isinstance(row, MistakeRow):
            assert holds
    for i, row in enumerate(rows):
        if isinstance(row, MistakeRow):
            after = next((j for j in range(i, len(rows)) if isinstance(rows[j], StudyRow)), len(rows))
            assert not of(AttemptRow, rows[i:after])
            assert not of(EndRow, rows[i:after])
    assert tune.progress.finished or tune.progress.state.mistake is not None
    assert audit(rows) == Audit(0.0, 0)
    assert not store.held or tune.progress.state.mistake is not None
