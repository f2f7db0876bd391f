"""The terminal while a study runs, and when it has ended."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console
from summaries import (
    LATER,
    WRITTEN,
    attempt_row,
    end_row,
    lease_row,
    point,
    report_row,
    study_row,
    summary,
    trial,
)

from study.analysis.records import Cost, LimitCut, Point, TrialRecord
from study.config.schema import StudyConfig
from study.ledger.schema import AnyRow, LimitRow
from study.ledger.state import StudyState
from study.planning.trials import Cell, Plan, make_plan
from study.reporting.live.progress import StudyProgress
from study.reporting.text.status import status_lines
from study.reporting.text.terminal import ProgressView, print_summary


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    """Two batch sizes, two rates, two confirm seeds: eight trials of three epochs."""
    return make_plan(config())


def shown(points: Sequence[Point], trials: Sequence[TrialRecord] = (), width: int = 80, **changes: object) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    print_summary(summary(points, trials, **changes), console)
    return console.export_text()


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=60, force_terminal=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def later(row: AnyRow) -> AnyRow:
    return row.model_copy(update={"written": LATER})


def followed(plan: Plan, rows: Sequence[AnyRow]) -> StudyProgress:
    return StudyProgress(plan, StudyState(rows))


def a_trial(trial_id: str, at_s: float, outcome: str, epochs: float = 3.0, accuracy: float = 0.9) -> list[AnyRow]:
    """The rows of a trial of 10 s on one device, set up in none."""
    return [
        attempt_row(trial_id, at_s),
        report_row(trial_id, epochs, accuracy, at_s=at_s + 9),
        end_row(trial_id, at_s + 10, outcome),
        lease_row(trial_id, at_s + 10, 10.0),
    ]


def test_every_point_is_listed_by_world_size_then_batch() -> None:
    points = [point(b, 0.1 + 1 / b, 0.9, world_size=w) for w in (2, 1) for b in (1024, 16, 64)]
    lines = shown(points).splitlines()
    cells = [line.split()[:2] for line in lines if "±" in line]
    assert cells == [[str(b), str(w)] for w in (1, 2) for b in (16, 64, 1024)]
    assert max(map(len, lines)) <= 100


def test_usual_values_fit_eighty_columns_uncut() -> None:
    text = shown([point(1024, 0.01, 0.9, world_size=16, lr=0.0869, samples_per_s=112_194.0), point(64, 0.001, 0.8)])
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_the_widest_values_still_fit() -> None:
    wide = point(1048576, 1e5, 0.12345, 0.9, world_size=1024, lr=0.000123456, samples_per_s=123456789.0)
    lines = shown([wide, point(64, 1e4, 0.1)], width=100).splitlines()
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if "1048576" in line)
    for part in ("1024", "0.000123", "12.35", "90.00", "100,000", "123,456,789", "yes"):
        assert part in row


def test_only_frontier_points_are_marked() -> None:
    rows = [line for line in shown([point(16, 1, 0.9), point(64, 2, 0.8)]).splitlines() if "±" in line]
    assert [line.rstrip().endswith("yes") for line in rows] == [True, False]


def test_costs_of_a_column_share_their_unit_and_spend_is_shown() -> None:
    text = shown([point(16, 0.01, 0.9), point(64, 0.001, 0.8)], [trial(16, [0.9], cost=Cost(3.0, 0, 6.0))])
    assert "device-seconds" in text
    assert "36.00" in text
    assert "3.60" in text
    assert "Spent 3.000 device-hours (6 USD): search 2.000, confirm 1.000; 0.500 of it on censored" in " ".join(
        text.split()
    )


def test_square_brackets_are_not_styles() -> None:
    assert "[red]note[/red]" in shown([], notes=("[red]note[/red]",))


def test_status_counts_outcomes_and_bills(plan: Plan) -> None:
    rows: list[AnyRow] = [study_row()]
    rows += a_trial("search-b16-w1-r0", 0, "completed") + a_trial("search-b16-w1-r1", 10, "stopped", 1.0)
    rows.append(attempt_row("search-b64-w1-r0", 20))
    lines = status_lines(plan, rows)
    assert lines == [
        "search  2/4 finished: 1 completed, 1 stopped, 1 running",
        "confirm 0/4 finished",
        "spent   20.5 device-seconds",  # 10 s each, and half a second of setup
    ]


def test_status_before_the_first_trial(plan: Plan) -> None:
    assert status_lines(plan, [study_row()])[:2] == ["search  0/4 finished", "confirm 0/4 finished"]


def test_a_lost_attempt_is_billed_and_no_longer_running(plan: Plan) -> None:
    progress = followed(plan, [study_row(), attempt_row("search-b16-w1-r0", 1)])
    assert progress.count("search").running == 1
    progress.state.apply(lease_row("search-b16-w1-r0", 5, 4.0, reason="lost"))
    assert progress.count("search").running == 0
    progress.state.apply(attempt_row("search-b16-w1-r0", 6, attempt=2))
    progress.state.apply(lease_row("search-b16-w1-r0", 6, 4.0, attempt=1, reason="lost"))
    assert progress.count("search").running == 1
    assert progress.state.closed_device_h == pytest.approx(8 / 3600)


def test_a_lost_attempt_is_shown_with_its_cause_and_what_follows(plan: Plan) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    name = "search-b16-w1-r0"
    died = {"reason": "lost", "why": "rank 0 on \x1b[1mvm died"}
    with ProgressView(plan, console) as view:
        for row in (study_row(), attempt_row(name, 1)):
            view(later(row))
        view(later(lease_row(name, 5, 4.0, **died)))
        view(later(lease_row(name, 5, 4.0, reason="lost")))  # it died with its driver, or was cut short
        for row in (attempt_row(name, 6, attempt=2), end_row(name, 9, "failed", error="rank 0 died")):
            view(later(row))
        view(later(lease_row(name, 9, 3.0, attempt=2, **died)))
    assert text_of(console).splitlines() == [
        f"{name}: attempt 1 is lost after 4 device-seconds: rank 0 on  [1mvm died; "
        "it is tried again, from its last checkpoint if there is one",
        f"[1/8] {name} failed at 0.0 of 3 epochs: rank 0 died",
        f"{name}: attempt 2 is lost after 3 device-seconds: rank 0 on  [1mvm died; it has no retry left",
    ]


def test_a_resume_forgets_what_ran_when_the_driver_died(plan: Plan) -> None:
    progress = followed(plan, [study_row(), attempt_row("search-b16-w1-r0", 1), study_row(2)])
    assert progress.count("search").running == 0


def test_time_left_waits_for_evidence(plan: Plan) -> None:
    progress = followed(plan, [study_row(), *a_trial("search-b16-w1-r0", 0, "completed")])
    assert progress.left_s() is None


def test_time_left_at_a_steady_pace(plan: Plan) -> None:
    rows = [study_row(), *a_trial("search-b16-w1-r0", 100, "completed"), *a_trial("search-b64-w1-r0", 110, "completed")]
    progress = followed(plan, rows)
    assert progress.left_s() == pytest.approx(6 * 10)  # six trials to come, one at a time
    progress.state.apply(attempt_row("search-b16-w1-r1", 120))
    progress.state.apply(report_row("search-b16-w1-r1", 1.5, 0.5, at_s=120))
    assert progress.left_s() == pytest.approx(5.5 * 10)  # half of it is done


def test_time_left_does_not_repeat_the_setup(plan: Plan) -> None:
    rows: list[AnyRow] = [study_row()]
    for i, name in enumerate(("search-b16-w1-r0", "search-b64-w1-r0")):
        start = 100 + 10 * i
        bill = lease_row(name, start + 10, 10.0 + (90 if i == 0 else 0), setup_s=90.0 if i == 0 else 0.0)
        rows += [attempt_row(name, start), end_row(name, start + 10, "completed"), bill]
    assert followed(plan, rows).left_s() == pytest.approx(6 * 10)


def test_time_left_counts_devices_not_ranks(config: Callable[..., StudyConfig]) -> None:
    """Four ranks share one GPU. Two of four trials took 100 s each, one after the other: 200 s are left, not 800 s."""
    hardware = {"world_size": 4, "gpus_per_rank": 0.25}
    plan = make_plan(config(batch_sizes=[16, 64], search={"lr": [0.1]}, confirm={"seeds": 2}, hardware=hardware))
    rows: list[AnyRow] = [study_row()]
    for i, name in enumerate(("confirm-b16-w4-s1", "confirm-b16-w4-s2")):
        shared = attempt_row(name, 100 * i).model_copy(update={"device": "gpu", "devices_per_rank": 0.25})
        end_s = 100 * (i + 1)
        rows += [shared, end_row(name, end_s, "completed"), lease_row(name, end_s, 100.0)]
    assert followed(plan, rows).left_s() == pytest.approx(200)


def test_a_retry_from_a_checkpoint_does_not_show_the_lost_epochs(plan: Plan) -> None:
    name = "search-b16-w1-r0"
    rows = [study_row(), attempt_row(name, 1), report_row(name, 1.0, 0.5), report_row(name, 2.0, 0.8)]
    progress = followed(plan, rows)
    trial = progress.state.trial(name)
    assert progress.epochs(trial) == (2.0, 3.0)
    progress.state.apply(attempt_row(name, 9, attempt=2).model_copy(update={"from_updates": 10}))
    assert progress.epochs(trial) == (1.0, 3.0)  # of three epochs the second was lost
    assert trial.last is not None
    assert trial.last.val_accuracy == 0.5
    progress.state.apply(attempt_row(name, 12, attempt=3))
    assert progress.epochs(trial) == (0.0, 3.0)


def test_a_trial_whose_batch_grows_has_the_epochs_of_its_budget(config: Callable[..., StudyConfig]) -> None:
    """A half and a quarter of the updates of an epoch of batch 16 are an epoch of batch 32 and of 64."""
    growth = {"milestones": [0.25, 0.5], "factor": 2, "largest_batch": 64}
    schedule = {"kind": "constant", "warmup_fraction": 0.0}
    plan = make_plan(config(batch_sizes=[16], budget={"epochs": 4}, growth=growth, schedule=schedule))
    (spec, *_) = plan.search
    row = attempt_row(spec.trial_id, 1).model_copy(
        update={"total_updates": spec.total_updates, "updates_per_epoch": spec.updates_per_epoch}
    )
    assert spec.total_updates < 3 * spec.updates_per_epoch
    progress = followed(plan, [study_row(), row])
    assert progress.epochs(progress.state.trial(spec.trial_id)) == (0.0, 4.0)


def test_no_time_is_left_when_all_trials_have_ended(plan: Plan) -> None:
    rows: list[AnyRow] = [study_row()]
    names = [f"search-b{b}-w1-r{i}" for b in (16, 64) for i in (0, 1)]
    names += [f"confirm-b{b}-w1-s{i}" for b in (16, 64) for i in (1, 2)]
    for i, name in enumerate(names):
        rows += a_trial(name, 10 * i, "completed")
    assert followed(plan, rows).left_s() is None


def test_without_a_terminal_each_ended_trial_is_one_plain_line(plan: Plan) -> None:
    console = plain_console()
    with ProgressView(plan, console) as view:
        for row in (study_row(), *a_trial("search-b16-w1-r0", 0, "stopped", 1.0, 0.9134)):
            view(later(row))
        view(later(end_row("search-b64-w1-r0", 30, "failed", error="[red]\x1b[31mboom\nbang")))
    text = text_of(console)
    assert "\x1b" not in text
    assert text.splitlines() == [
        "[1/8] search-b16-w1-r0 stopped at 1.0 of 3 epochs, validation accuracy 91.3%",
        "[2/8] search-b64-w1-r0 failed: [red] [31mboom bang",
    ]


def test_trials_of_earlier_drivers_are_counted_but_not_shown_again(plan: Plan) -> None:
    console = plain_console()
    with ProgressView(plan, console) as view:
        for row in (study_row(), *a_trial("search-b16-w1-r0", 0, "completed")):
            view(row)
        view(later(study_row(20)))
        for row in a_trial("search-b16-w1-r1", 20, "completed"):
            view(later(row))
    assert text_of(console).splitlines() == [
        "Resumed: 1 of 8 trials finished",
        "[2/8] search-b16-w1-r1 completed at 3.0 of 3 epochs, validation accuracy 90.0%",
    ]


def test_on_a_terminal_progress_is_shown_in_place(plan: Plan) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with ProgressView(plan, console) as view:
        rows = [study_row(), *a_trial("search-b16-w1-r0", 0, "stopped"), *a_trial("search-b64-w1-r0", 10, "completed")]
        for row in (*rows, attempt_row("search-b16-w1-r1", 20), report_row("search-b16-w1-r1", 1.0, 0.75, at_s=21)):
            view(later(row))
    last = text_of(console)
    assert "2/4 finished" in last
    assert "1 completed, 1 stopped, 1 running" in last
    assert "━" in last
    assert "spent   21.5 device-seconds, about " in last
    assert "1.0/3" in last
    assert "75.0%" in last


def limit_row(at_s: float, written: str = WRITTEN) -> LimitRow:
    return LimitRow(at_s=at_s, written=written, limit="usd", allowed=0.02, spent=0.021)


def test_status_shows_what_is_spent_of_each_limit(config: Callable[..., StudyConfig]) -> None:
    limits = {"device_hours": 0.01, "usd": 0.02, "wall_h": 1}
    plan = make_plan(config(limits=limits, price={"usd_per_device_hour": 2.0}))
    # One device for 18 s, billed, and another open for 9 s with half a second of setup.
    rows = [study_row(), attempt_row("search-b16-w1-r0", 0.5), lease_row("search-b16-w1-r0", 18, 18)]
    rows += [attempt_row("search-b16-w1-r1", 27.5), report_row("search-b16-w1-r1", 1, 0.5, at_s=36)]
    assert "spent   27 of 36 device-seconds, 0.015 of 0.02 USD, 0.01 of 1 hours" in status_lines(plan, rows)
    lines = status_lines(plan, [*rows, limit_row(37)])
    assert lines[-1] == "cut     by limits.usd: running trials end at their next report"
    rows += [limit_row(37), lease_row("search-b16-w1-r1", 40, 13)]
    assert status_lines(plan, rows)[-1] == "cut     by limits.usd: raise it to go on"
    assert not any(line.startswith("cut") for line in status_lines(plan, [*rows, study_row(41)]))


def test_a_passed_limit_is_shown_without_a_terminal(plan: Plan) -> None:
    with ProgressView(plan, console := Console(file=io.StringIO(), width=200, force_terminal=False)) as view:
        view(later(limit_row(1)))
    assert text_of(console).startswith("limits.usd is passed: 0.021 of 0.02 USD. Nothing new starts")


def test_the_summary_says_that_the_study_was_cut() -> None:
    cut = LimitCut("usd", 5.0, 5.01, 5.2, 0, 2, 7, (Cell(16, 1), Cell(64, 2, "+LR")))
    text = " ".join(shown([], cut=cut, planned_trials=12).split())
    assert "Cut by limits.usd: 5.2 of 5 USD spent. Of 12 trials 7 were not run and 2 ended early" in text
    assert "Without a confirmed point because of it: batch 16 on 1 rank, batch 64 (+LR) on 2 ranks." in text
