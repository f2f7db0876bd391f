"""Figures show the records: nothing dominated on the staircase, nothing censored filled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from summaries import point, summary, trial

from study.analysis.records import Cost, Critical
from study.analysis.statistics.critical import StepsToTarget, fit_critical_batch
from study.analysis.statistics.stepmodel import StepTime, fit_step_model
from study.ledger.schema import PHASES
from study.reporting.figures.batches import batch_figure, cost_figure
from study.reporting.figures.frontier import MOST_CENSORED, frontier_figure
from study.reporting.figures.registry import FIGURES
from study.reporting.figures.scaling_laws import critical_figure, model_figure
from study.reporting.figures.search_figures import MOST_CURVES, curves_figure, rates_figure, stopping_figure
from study.reporting.figures.style import evenly, series_styles

POINTS = [
    point(16, 3.0, 0.97),
    point(64, 1.0, 0.96),
    point(128, 1.5, 0.95),
    point(256, 0.4, 0.80, 0.5),
    point(64, 1.2, 0.95, world_size=4),
]


def named(figure: Any, text: str) -> list[Any]:
    """The traces whose name contains the text."""
    return [trace for trace in figure.data if text in (trace.name or "")]


def test_the_staircase_is_the_frontier_from_low_to_high_cost() -> None:
    (stairs,) = [trace for trace in frontier_figure(summary(POINTS)).data if trace.name == "frontier"]
    assert stairs.line.shape == "hv"  # at a cost, the best accuracy that it buys
    assert list(stairs.x) == [0.4, 1.0, 3.0]
    assert list(stairs.y) == [0.80, 0.96, 0.97]
    assert all(np.diff(stairs.x) > 0)
    assert all(np.diff(stairs.y) > 0)


def test_every_point_is_drawn_once_and_dominated_ones_are_fainter() -> None:
    figure = frontier_figure(summary(POINTS))
    on, off = named(figure, "on the frontier"), named(figure, "dominated")
    drawn = sorted((x, y) for trace in (*on, *off) for x, y in zip(trace.x, trace.y, strict=True))
    assert drawn == sorted((p.cost.billed_device_h, p.quality) for p in POINTS)
    assert all(trace.opacity == 1 for trace in on)
    assert all(trace.opacity < 1 for trace in off)
    assert all("open" not in trace.marker.symbol for trace in (*on, *off))


def test_a_world_size_has_one_colour_and_symbol() -> None:
    figure = frontier_figure(summary([*POINTS, point(512, 0.1, 0.7, world_size=4)]))
    looks = {size: {(t.marker.color, t.marker.symbol) for t in named(figure, f"{size} ranks")} for size in (2, 4)}
    assert len(looks[2]) == len(looks[4]) == 1
    assert looks[2] != looks[4]


def test_error_bars_reach_the_interval_but_no_impossible_accuracy() -> None:
    figure = frontier_figure(summary(POINTS))
    bars = {
        (x, y): (y - down, y + up)
        for trace in named(figure, "ranks")
        for x, y, up, down in zip(trace.x, trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True)
    }
    assert bars[(1.0, 0.96)] == pytest.approx((0.95, 0.97))
    assert bars[(0.4, 0.80)] == pytest.approx((0.30, 1.0))


def test_censored_trials_are_hollow_at_their_own_cost_and_last_accuracy() -> None:
    stopped = trial(16, [0.5, 0.9], "stopped", cost=Cost(0.7, 0.0, None))
    diverged = trial(64, [0.1, math.nan], "diverged")
    silent = trial(128, [], "failed")
    done = trial(256, [0.95])
    figure = frontier_figure(summary(POINTS, [stopped, diverged, silent, done]))
    (hollow,) = named(figure, "stopped")
    assert "open" in hollow.marker.symbol
    assert (list(hollow.x), list(hollow.y)) == ([0.7], [0.9])
    assert hollow.marker.size < named(figure, "on the frontier")[0].marker.size


def test_costs_on_the_axis_are_in_the_unit_of_its_title() -> None:
    figure = frontier_figure(summary([point(16, 0.002, 0.9), point(64, 0.001, 0.8)]))
    assert figure.layout.xaxis.title.text == "device-seconds per trial (billed)"
    (stairs,) = [trace for trace in figure.data if trace.name == "frontier"]
    assert list(stairs.x) == pytest.approx([3.6, 7.2])
    low, high = (10**edge for edge in figure.layout.xaxis.range)
    assert low < 3.6 < 7.2 < high
    assert figure.layout.xaxis.type == "log"


def test_a_price_of_nothing_needs_a_linear_axis() -> None:
    figure = frontier_figure(summary([point(16, 1, 0.9, cost=Cost(1, 0, 0.0))], cost_axis="usd"))
    assert figure.layout.xaxis.type is None
    assert figure.layout.xaxis.title.text == "USD per trial"


def test_hover_shows_everything() -> None:
    figure = frontier_figure(summary([point(16, 1.0, 0.9, lr=0.0125, n_censored=2, updates=4321)]))
    (text,) = named(figure, "on the frontier")[0].hovertext
    for part in (
        "Batch 16",
        "2 × 8 × 1",  # noqa: RUF001
        "0.0125",
        "4,321",
        "3 seeds, 2 censored",
        "90.00 ± 1.00",
        "89.80%",
        "1 device-hours",
    ):
        assert part in text


def test_a_name_is_letters_not_markup() -> None:
    title = frontier_figure(summary(POINTS, name="<b>a</b> & b")).layout.title.text
    assert "&lt;b&gt;a&lt;/b&gt; &amp; b" in title


def test_a_figure_with_nothing_to_show_is_none() -> None:
    assert [name for name, draw in FIGURES.items() if draw(summary()) is not None] == []


def test_bars_add_up_to_the_device_hours_of_all_phases() -> None:
    phases = dict.fromkeys(PHASES, 0.0) | {"setup": 60.0, "train": 1800.0, "lost": 360.0}
    trials = [
        trial(16, [0.9], phases_s=phases),
        trial(16, [0.9], phases_s=phases, seed_index=1),
        trial(16, [0.9], phases_s=phases, phase="confirm"),
        trial(16, [0.9], phases_s=phases, phase="confirm", world_size=4),
    ]
    figure = cost_figure(summary(trials=trials))
    assert {trace.name for trace in figure.data} == {"setup", "train", "lost"}
    total = {bar: sum(trace.x[i] for trace in figure.data) for i, bar in enumerate(figure.data[0].y)}
    assert total == pytest.approx(
        {
            "B=16, 2 ranks, search": 2 * 2 * 2220 / 3600,
            "B=16, 2 ranks, confirm": 2 * 2220 / 3600,
            "B=16, 4 ranks, confirm": 4 * 2220 / 3600,
        }
    )


def test_ranks_that_share_a_gpu_take_their_share_in_the_cost_figure() -> None:
    whole, half = (cost_figure(summary(trials=[trial(16, [0.5], devices_per_rank=n)])) for n in (1.0, 0.5))
    # 2 ranks x (300 + 600) s
    assert sum(bar.x[0] for bar in whole.data) == pytest.approx(0.5)
    assert sum(bar.x[0] for bar in half.data) == pytest.approx(0.25)


def test_panels_over_batch_size_share_their_axis_and_have_a_line_for_each_world_size() -> None:
    figure = batch_figure(summary(POINTS))
    shown = [point for point in POINTS if point.world_size == 2]
    panels = [trace for trace in figure.data if trace.name == "2 ranks"]
    assert [trace.name for trace in figure.data] == 3 * ["2 ranks"] + 3 * ["4 ranks"]
    assert [list(trace.x) for trace in panels] == 3 * [[16, 64, 128, 256]]
    assert list(panels[0].y) == [point.quality for point in shown]
    assert list(panels[1].y) == [point.samples_per_s for point in shown]
    assert list(panels[2].y) == [point.updates for point in shown]
    assert list(figure.layout.xaxis3.tickvals) == [16, 64, 128, 256]


def test_search_curves_are_fainter_than_confirm_curves_of_the_same_colour() -> None:
    figure = curves_figure(summary(trials=[trial(16, [0.5, 0.9]), trial(16, [0.6, 0.8], phase="confirm")]))
    search, confirm = (trace for trace in figure.data if trace.x[0] is not None)
    assert search.line.color == confirm.line.color
    assert search.opacity < confirm.opacity
    assert list(confirm.y) == [0.6, 0.8]
    assert list(confirm.x) == [1.0, 2.0]


def test_rates_are_hollow_exactly_where_censored() -> None:
    trials = [
        trial(16, [0.5], "stopped", lr=0.3, seed_index=1),
        trial(16, [0.5, 0.9], lr=0.1, seed_index=2),
        trial(16, [0.1], "diverged", lr=1.0, seed_index=3),
        trial(16, [0.95], phase="confirm", lr=0.1),
        trial(16, [0.2], None, lr=3.0, seed_index=4),
    ]
    (trace,) = rates_figure(summary(trials=trials)).data
    assert list(trace.y) == [0.3, 0.1, 1.0]
    assert list(trace.marker.color) == [0.5, 0.9, 0.1]
    assert ["open" in symbol for symbol in trace.marker.symbol] == [True, False, True]


def test_every_cost_axis_has_a_frontier_of_its_own() -> None:
    cheap_but_long = point(16, 0.5, 0.9, cost=Cost(0.5, 0.0, None, 3.0))
    figures = {
        axis: frontier_figure(summary([cheap_but_long, point(64, 1.0, 0.95, cost=Cost(1.0, 0.0, None, 1.0))]), axis)
        for axis in ("billed_device_h", "wall_h")
    }
    on = {axis: [list(trace.x) for trace in named(figure, "on the frontier")] for axis, figure in figures.items()}
    assert on == {"billed_device_h": [[0.5, 1.0]], "wall_h": [[1.0]]}
    assert figures["wall_h"].layout.xaxis.title.text == "hours per trial (wall-clock)"


def test_cost_intervals_and_membership_are_shown() -> None:
    figure = frontier_figure(summary([point(16, 1.0, 0.9), point(64, 2.0, 0.8)]))
    (on,), (off,) = named(figure, "on the frontier"), named(figure, "dominated")
    assert list(on.error_x.array) == pytest.approx([0.1])
    assert (on.text[0], off.text[0]) == ("B=16<br>90%", "B=64<br>20%")
    assert "on the frontier with probability 90%" in on.hovertext[0]


def test_many_censored_trials_are_thinned_and_it_is_said() -> None:
    trials = [trial(16, [0.9 + i * 1e-6], "stopped", seed_index=i) for i in range(2 * MOST_CENSORED)]
    (hollow,) = named(frontier_figure(summary(POINTS, trials)), "stopped")
    assert len(hollow.x) == MOST_CENSORED
    assert f"({MOST_CENSORED:,} of {2 * MOST_CENSORED:,} shown)" in hollow.name


def test_of_many_curves_the_best_and_the_worst_of_each_batch_size_are_drawn() -> None:
    trials = [trial(b, [0.1, b / 1000 + i / 1000], seed_index=i) for b in (16, 64) for i in range(MOST_CURVES)]
    ends = [trace.y[-1] for trace in curves_figure(summary(trials=trials)).data if trace.x[0] is not None]
    assert len(ends) == MOST_CURVES
    for b in (16, 64):
        assert {b / 1000, b / 1000 + (MOST_CURVES - 1) / 1000} <= set(ends)


def test_variants_have_lines_of_their_own() -> None:
    points = [point(b, 1.0, 0.9, variant=variant) for variant in ("adam", "lamb") for b in (16, 64)]
    trials = [trial(16, [0.5, 0.9], variant=variant) for variant in ("adam", "lamb")]
    study = summary(points, trials)
    assert {trace.name for trace in batch_figure(study).data} == {"adam, 2 ranks", "lamb, 2 ranks"}
    assert len(rates_figure(study).data) == 2
    assert list(stopping_figure(study).data[0].y) == ["B=16, adam, 2 ranks", "B=16, lamb, 2 ranks"]
    assert list(cost_figure(study).data[0].y) == ["B=16, adam, 2 ranks, search", "B=16, lamb, 2 ranks, search"]
    assert {trace.name for trace in curves_figure(study).data if trace.name} >= {"adam, 2 ranks", "lamb, 2 ranks"}


def test_twelve_series_look_different() -> None:
    assert len(set(series_styles([point(16, 1, 0.9, world_size=w) for w in range(12)]).values())) == 12


def test_evenly_keeps_the_ends() -> None:
    assert list(evenly(range(10), 4)) == [0, 3, 6, 9]
    assert list(evenly(range(3), 4)) == [0, 1, 2]


def test_trained_and_cut_add_up_to_the_grid_and_an_audit_counts_to_its_stop() -> None:
    done, stopped = trial(16, [0.5] * 10), trial(16, [0.4] * 2, "stopped", seed_index=1)
    audited = trial(16, [0.4] * 10, seed_index=2, audited_from=50)
    trained, cut = stopping_figure(summary(trials=[done, stopped, audited])).data
    assert list(trained.x) == pytest.approx([(1 + 0.2 + 0.5) / 3])
    assert trained.x[0] + cut.x[0] == pytest.approx(1)
    assert "2 completed, 1 stopped" in trained.hovertext[0]


def test_runs_that_never_met_the_target_are_hollow_bounds_beside_the_law() -> None:
    runs = tuple(StepsToTarget(b, 50 * (1 + 100 / b)) for b in (16, 32, 64, 128, 256))
    runs += (StepsToTarget(512, 40, reached=False),)
    critical = Critical("", 0.9, "asked for", runs, fit_critical_batch(runs))
    figure = critical_figure(summary(critical=critical, noise_scale=90))
    (bounds,) = named(figure, "not reached")
    assert ("open" in bounds.marker.symbol, list(bounds.x)) == (True, [512])
    (law,) = named(figure, "fitted law")
    assert law.y[0] == pytest.approx(50 * (1 + 100 / 16), rel=0.01)
    assert [line.x0 for line in figure.layout.shapes if line.type == "line"] == pytest.approx([100, 90], rel=0.01)


def test_what_the_throughput_model_extrapolates_is_dotted_and_called_so() -> None:
    steps = tuple(StepTime(w, m, 1, 0.01 + 1e-4 * m + 0.002 * (w > 1)) for w in (1, 2, 4) for m in (8, 32, 128))
    figure = model_figure(summary(step_times=steps, throughput_model=fit_step_model(steps)))
    looks = {trace.name: trace.line.dash for trace in figure.data if trace.mode == "lines"}
    assert looks["2 ranks, fitted"] == "solid"
    assert looks["8 ranks, extrapolated"] == "dot"
    assert "8 ranks, fitted" not in looks
    (fitted,) = named(figure, "2 ranks, fitted")
    places = [x for x, y in zip(fitted.x, fitted.y, strict=True) if y is not None]
    assert (min(places), max(places)) == (8, 128)
