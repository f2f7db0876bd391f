"""Fronts and critical batches of tables: signs, groups, seeds, and the shipped example."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from study.analysis.tables.fronts import TableAnalysis, analyze_table
from study.analysis.tables.table import read_table
from study.reporting.text.table_analysis import print_analysis

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "batches.csv"


def analysed(folder: Path, rows: list[dict[str, Any]], **options: Any) -> TableAnalysis:
    path = folder / "t.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return analyze_table(read_table(path, **options), "group_by" in options)


def rows(seeds: int = 3, gpu: str = "a", times: float = 1.0) -> list[dict[str, Any]]:
    """Cost falls and the error rises with the batch; seeds differ by a little."""
    return [
        {
            "gpu": gpu,
            "batch_size": batch,
            "seed": seed,
            "usd": times * (100 / batch + 0.01 * seed),
            "error": 0.001 * batch + 0.0001 * seed,
            "steps_to_target": 100 * (1 + 64 / batch) * (1 + 0.01 * seed),
        }
        for batch in (8, 16, 32, 64, 128)
        for seed in range(seeds)
    ]


def test_values_keep_the_tables_own_sign(tmp_path: Path) -> None:
    found = analysed(tmp_path, rows()).whole
    assert [place.quality for place in found.points] == pytest.approx(
        [0.001 * b + 0.0001 for b in (8, 16, 32, 64, 128)]
    )
    assert all(place.quality_ci and place.quality_ci[0] < place.quality < place.quality_ci[1] for place in found.points)
    assert all(place.on_front and place.p_on_front is not None for place in found.points)
    assert [place.batch_size for place in found.frontier] == [128, 64, 32, 16, 8]


def test_objectives_may_be_the_other_way_round(tmp_path: Path) -> None:
    turned = [row | {"speed": -row["usd"]} for row in rows()]
    found = analysed(tmp_path, turned, maximize=["speed"], minimize=["error"]).whole
    assert [place.on_front for place in found.points] == [True] * 5
    assert found.points[0].cost == pytest.approx(0.001 * 8 + 0.0001)
    assert found.points[0].quality == pytest.approx(-12.51)


def test_groups_have_fronts_of_their_own_and_one_together(tmp_path: Path) -> None:
    both = rows() + rows(gpu="b", times=0.5)
    found = analysed(tmp_path, both, group_by="gpu")
    assert set(found.groups) == {"a", "b"}
    assert all(place.on_front for group in found.groups.values() for place in group.points)
    # Together half the price wins everywhere.
    assert {place.group for place in found.whole.frontier} == {"b"}
    assert found.whole.critical_batch is None
    for group in found.groups.values():
        assert group.critical_batch is not None
        assert group.critical_batch.b_crit == pytest.approx(64, rel=0.05)


def test_censored_rows_bound_the_law_and_stand_on_no_front(tmp_path: Path) -> None:
    gave_up = [row | {"reached": not (row["batch_size"] == 8 and row["seed"] == 2)} for row in rows()]
    found = analysed(tmp_path, gave_up).whole
    assert found.points[0].n_censored == 1
    assert found.critical_batch is not None
    assert found.critical_batch.n_censored == 1
    assert {place.p_on_front for place in found.points} == {None}  # two seeds are left of one
    assert any("under 3 seeds" in note for note in found.notes)
    assert any("Censored rows: 1;" in note for note in found.notes)


def test_steps_alone_are_enough(tmp_path: Path) -> None:
    steps = [{key: row[key] for key in ("batch_size", "seed", "steps_to_target")} for row in rows()]
    found = analysed(tmp_path, steps).whole
    assert (found.points, found.hypervolume) == ((), None)
    assert found.critical_batch is not None


def test_thousands_of_configurations_are_shown_without_draws(tmp_path: Path) -> None:
    many = [
        {
            "batch_size": batch,
            "seed": seed,
            "usd": 1.0 + batch + 0.1 * seed,
            "accuracy": (batch**0.5 + 0.01 * seed) / 100,
        }
        for batch in range(1, 1001)
        for seed in range(3)
    ]
    found = analysed(tmp_path, many).whole
    assert len(found.frontier) == 1000
    assert {place.p_on_front for place in found.points} == {None}
    assert any("more than" in note for note in found.notes)


def test_the_shipped_example_is_what_its_note_says() -> None:
    found = analyze_table(read_table(EXAMPLE, group_by="gpu"), grouped=True)
    for group in found.groups.values():
        fit = group.critical_batch
        assert fit is not None
        assert fit.b_crit_ci is not None
        assert fit.b_crit_ci[0] < 400 < fit.b_crit_ci[1]
        assert not fit.misfit


def test_a_narrow_terminal_cuts_no_figure(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{batch},{i},1024.{i},0.94{i}1" for batch in (8, 16) for i in range(1, 4)]
    path.write_text(
        "\n".join(["config.data.batch_size,config.seed,summary._wandb.runtime,summary.val/accuracy", *rows])
    )
    shown = io.StringIO()
    print_analysis(analyze_table(read_table(path), False), Console(file=shown, width=80))
    assert "…" not in shown.getvalue()
    assert shown.getvalue().count("0.9421 ± 0.0025") == 2  # 4.303 * 0.001 / sqrt(3)
