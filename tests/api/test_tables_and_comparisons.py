"""`study.analyze`, `study.compare`, and what `study.run` refuses before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import study
from study.analysis.tables.table import read_table
from tests.analysis.ledgers import made_study

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "batches.csv"


class TestAnalyze:
    """Tables from elsewhere, as files and as frames."""

    def test_a_frame_is_read_as_its_file_is(self) -> None:
        from_file = study.analyze(EXAMPLE, group_by="gpu")
        from_frame = study.analyze(pd.read_csv(EXAMPLE), group_by=["gpu"])
        pd.testing.assert_frame_equal(from_file.points, from_frame.points)
        assert {**from_file.to_dict(), "source": ""} == {**from_frame.to_dict(), "source": ""}

    def test_points_are_means_over_seeds(self) -> None:
        frame = pd.read_csv(EXAMPLE)
        points = study.analyze(frame, group_by="gpu").points.set_index(["group", "batch_size"])
        done = frame[frame["reached"]]
        for (group, batch_size), part in done.groupby(["gpu", "batch_size"]):
            point = points.loc[(group, batch_size)]
            assert point["gpu_hours"] == pytest.approx(part["gpu_hours"].mean())
            assert point["accuracy"] == pytest.approx(part["accuracy"].mean())
            assert point["n_seeds"] == len(part)

    def test_a_front_holds_what_nothing_dominates(self) -> None:
        table = study.analyze(EXAMPLE, group_by="gpu")
        for group in ("A", "B"):
            points = table.points[table.points["group"] == group]
            cost, quality = points["gpu_hours"].to_numpy(), points["accuracy"].to_numpy()
            better = (cost[:, None] <= cost) & (quality[:, None] >= quality)
            better &= (cost[:, None] < cost) | (quality[:, None] > quality)
            alone = points[~better.any(axis=0)]
            front = table.frontier(group)
            assert set(front["batch_size"]) == set(alone["batch_size"])
            assert front["gpu_hours"].is_monotonic_increasing
        assert len(table.figure().data) > 0
        assert len(table.figure("critical").data) > 0

    def test_errors_name_arguments(self) -> None:
        frame = pd.DataFrame({"bs": [8, 8], "hours": [2.0, 3.0], "runtime": [70, 80], "val_acc": [0.9, 0.8]})
        with pytest.raises(study.DataError, match=r"^frame: .* name one with cost_column$"):
            study.analyze(frame)
        with pytest.raises(study.DataError, match="strict: "):
            study.analyze(pd.DataFrame({"batch_size": [8, 8], "usd": [1, 1], "val_acc": [95.0, 0.94]}), strict=True)
        with pytest.raises(study.DataError, match="frame: no rows"):
            study.analyze(frame.iloc[:0])
        with pytest.raises(study.ConfigError, match="must be one of A, B"):
            study.analyze(EXAMPLE, group_by="gpu").frontier("C")

    def test_a_table_read_from_a_path_or_a_sheet_keeps_its_name(self) -> None:
        assert read_table(EXAMPLE, group_by="gpu").source == str(EXAMPLE)

    def test_what_users_wrote_is_escaped(self) -> None:
        frame = pd.read_csv(EXAMPLE).replace({"gpu": {"A": "<script>A</script>"}})
        shown = study.analyze(frame, group_by="gpu")._repr_html_()
        assert "<script>" not in shown
        assert "&lt;script&gt;A" in shown


class TestCompare:
    """Studies side by side."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        """Two studies that differ in their optimizer."""
        return made_study(tmp_path / "one"), made_study(tmp_path / "two", seed=1, optimizer={"kind": "lars"})

    def test_folders_and_loaded_studies_give_the_same(self, folders: tuple[Path, Path]) -> None:
        both, loaded = study.compare(*folders), study.compare(study.load(folders[0]), str(folders[1]))
        assert both.to_dict() == loaded.to_dict()
        assert both.changes["key"].tolist() == ["optimizer.kind"]
        assert both.changes.loc[0, "one"] == "sgd"
        assert both.changes.loc[0, "two"] == "lars"

    def test_ratios_are_of_hypervolumes(self, folders: tuple[Path, Path]) -> None:
        both = study.compare(*folders, cost="samples")
        first, second = both.hypervolumes["hypervolume"]
        assert np.isnan(both.hypervolumes.loc[0, "ratio"])
        assert both.hypervolumes.loc[1, "ratio"] == pytest.approx(second / first)
        points = pd.concat([study.load(folder).points for folder in folders])
        assert both.points["compared_samples"].tolist() == points["samples"].tolist()
        assert "Hypervolume of one" in str(both)
        assert len(both.figure().data) > 0
        assert both._repr_html_().count("<table>") == 2

    def test_one_study_is_nothing_to_compare(self, folders: tuple[Path, Path]) -> None:
        with pytest.raises(study.ConfigError, match="two studies or more"):
            study.compare(folders[0])
        with pytest.raises(study.ConfigError, match="did you mean wall_h"):
            study.compare(*folders, cost="wal_h")

    def test_it_writes_what_the_command_writes(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        both = study.compare(*folders)
        data, page = both.write_report(tmp_path / "both")
        assert json.loads(data.read_text()) == json.loads(json.dumps(both.to_dict()))
        assert page.stat().st_size > 10_000


SMALL: dict[str, Any] = {
    "name": "small",
    "batch_sizes": [16],
    "search": {"lr": [0.1]},
    "budget": {"epochs": 1},
    "confirm": {"seeds": 1},
}


@pytest.mark.parametrize(
    ("config", "arguments", "says"),
    [
        (SMALL | {"batch_size": [16]}, {}, "^config: batch_size: unknown key; .*did you mean batch_sizes"),
        (SMALL | {"budget": {"epochs": {1, 2}}}, {}, "^config: must hold plain values"),
        (SMALL, {"overrides": {"confirm.seeds": 0}}, "^overrides: confirm.seeds: .* greater than or equal to 1"),
        (SMALL, {"overrides": {"confirm.seeds": object()}}, "^confirm.seeds: must be a plain value; got object"),
        (SMALL, {"cpus": 1, "overrides": {"hardware.world_size": 8}}, "hardware.world_size"),
        ("quikstart", {}, "did you mean quickstart"),
    ],
)
def test_run_refuses_what_the_command_refuses(
    tmp_path: Path, config: Any, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(study.ConfigError, match=says):
        study.run(config, tmp_path / "out", progress=False, **arguments)
    assert not (tmp_path / "out").exists()


def test_run_refuses_a_folder_that_holds_a_study(frozen: Callable[[str], Path]) -> None:
    with pytest.raises(study.LedgerError, match="holds a study already"):
        study.run(SMALL, frozen("quickstart"), progress=False)


def test_overrides_may_hold_any_character(tmp_path: Path) -> None:
    with pytest.raises(study.ConfigError, match=r"budget\.epochs"):
        study.run("quickstart", tmp_path, overrides={"price.source": "a \U0001f600 list", "budget.epochs": 0})


def test_a_script_without_a_main_guard_is_one_clear_error(tmp_path: Path) -> None:
    """Spawned ranks import the script once more, and with it its call of `study.run`."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, study\n"
        "if __name__ == '__main__':\n"
        "    rank = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    rank.start()\n"
        "    rank.join()\n"
        "else:\n"
        "    study.run('quickstart', 'out')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(study.__file__).parents[1])}
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "ConfigError: a script that calls study.run must do so under `if __name__ == '__main__':`" in ran.stderr
    assert not (tmp_path / "out").exists()
