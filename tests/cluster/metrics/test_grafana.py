"""The files for Grafana and Prometheus: up to date, sound, and speaking of metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from study.cli.app import app
from study.cluster.metrics.definitions import METRICS
from study.cluster.metrics.grafana import files

FOLDER = Path(__file__).parents[3] / "dashboards"
BOARD = json.loads(files()["grafana/study.json"])
RULES = yaml.safe_load(files()["alerts.yml"])["groups"][0]["rules"]
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
METRIC_TAGS = {f"ray_{metric.name}": set(metric.tags) for metric in METRICS}


def test_the_files_in_the_repository_are_what_the_command_writes(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["dashboards", "build", "--out", str(tmp_path)])
    assert result.exit_code == 0
    made = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert made == files()
    kept = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
    assert kept == made, "run `study dashboards build`"


def test_every_metric_is_shown_and_every_one_shown_exists() -> None:
    used = set(re.findall(r"ray_\w+", " ".join(re.sub("ray_io_cluster", "", query) for query in QUERIES)))
    assert used == set(METRIC_TAGS)
    alerted = set(re.findall(r"ray_\w+", " ".join(rule["expr"] for rule in RULES)))
    assert alerted <= set(METRIC_TAGS)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_filtered_and_groups_by_tags_that_the_metric_has(query: str) -> None:
    for name, selector in re.findall(r"(ray_study_\w+)\{([^}]*)\}", query):
        assert selector.startswith('SessionName=~"$SessionName",ray_io_cluster=~"$Cluster",study=~"$study"')
        own = set(re.findall(r"(\w+)=~?", selector)) - {"SessionName", "ray_io_cluster", "study"}
        grouped = set(re.search(rf"by \(([^)]*)\) \((?:last_over_time\()?{name}", query).group(1).split(", "))
        assert own | grouped <= METRIC_TAGS[name] | {"study"}
        assert "study" in grouped
    assert len(re.findall(r"ray_study_\w+", query)) == len(re.findall(r"ray_study_\w+\{", query))


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            kept = set(re.search(r"by \(([^)]*)\)", target["expr"]).group(1).split(", "))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == kept, panel["title"]


def test_panels_do_not_overlap_and_stay_within_the_grid() -> None:
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_dashboard_speaks_as_rays_own_do() -> None:
    import ray.dashboard.modules.metrics.dashboards as theirs

    own = json.loads((Path(theirs.__file__).parent / "default_grafana_dashboard_base.json").read_text())
    assert BOARD["schemaVersion"] == own["schemaVersion"]
    names = {variable["name"]: variable for variable in own["templating"]["list"]}
    for variable in BOARD["templating"]["list"]:
        if variable["name"] != "study":
            assert variable["type"] == names[variable["name"]]["type"]
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {
        "datasource", "SessionName", "Cluster", "study",
    }  # fmt: skip


def test_provisioning_names_what_there_is() -> None:
    source = yaml.safe_load(files()["grafana/provisioning/datasources/prometheus.yml"])["datasources"][0]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (ours, rays) = yaml.safe_load(files()["grafana/provisioning/dashboards/study.yml"])["providers"]
    assert ours["options"]["path"] != rays["options"]["path"]


def test_promtool_accepts_configuration_and_rules(promtool: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "d")
    told = subprocess.run(
        [promtool, "check", "config", tmp_path / "d" / "prometheus.yml"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{len(RULES)} rules found" in told.stdout


def series(name: str, values: str, **tags: str) -> dict[str, str]:
    """One series, once a minute, as promtool takes it."""
    labels = ",".join(f'{key}="{value}"' for key, value in ({"study": "s", "WorkerId": "w"} | tags).items())
    return {"series": f"ray_{name}{{{labels}}}", "values": values}


def trials(**states: str) -> list[dict[str, str]]:
    return [series("study_trials", values, kind="search", state=state) for state, values in states.items()]


def limit(values: str) -> list[dict[str, str]]:
    return [series("study_limit_used_ratio", values, limit="usd")]


def signs(heartbeat: str, ended: str, worker: str = "w") -> list[dict[str, str]]:
    return [
        series("study_heartbeat_timestamp_seconds", heartbeat, WorkerId=worker),
        series("study_ended_timestamp_seconds", ended, WorkerId=worker),
    ]


def silence(quiet: str, longest: str | None) -> list[dict[str, str]]:
    return [series("study_quiet_seconds", quiet)] + (
        [] if longest is None else [series("study_longest_interval_seconds", longest)]
    )


# alert, series, minute, whether it fires; rules are held against these by promtool itself
CASES: list[tuple[str, list[dict[str, str]], int, bool]] = [
    # quiet for 5 min where 30 s were the most, for a minute
    ("StudyGroupStuck", silence("0+60x10", "30x10"), 5, True),
    ("StudyGroupStuck", silence("0+60x10", "30x10"), 2, False),  # 120 s is enough, but not yet for a minute
    ("StudyGroupStuck", silence("50x10", "1x10"), 8, False),  # short reports, short silence
    ("StudyGroupStuck", silence("900x10", "600x10"), 8, False),  # long reports
    ("StudyGroupStuck", silence("600x10", None), 8, False),  # nothing to compare with: half an hour
    ("StudyGroupStuck", silence("1900x10", None), 8, True),
    ("StudyGroupStuck", silence("0x10", "30x10"), 8, False),  # nothing runs
    ("StudyWaits", [series("study_lacking_ranks", "0 0 2x10")], 8, True),
    ("StudyWaits", [series("study_lacking_ranks", "0 0 2x10")], 5, False),  # a machine may be on its way
    ("StudyWaits", [series("study_lacking_ranks", "0x10")], 8, False),
    ("StudyNearLimit", limit("0.5 0.89 0.9 0.95"), 3, True),
    ("StudyNearLimit", limit("0.5 0.89"), 1, False),
    ("StudyNearLimit", limit("1.0x3"), 3, False),  # past it, which is another alert
    ("StudyPastLimit", limit("0.95 1.0"), 1, True),
    ("StudyPastLimit", limit("0.999x3"), 3, False),
    ("StudyTrialsFail", trials(failed="3x5", completed="10x5", stopped="10x5"), 3, True),
    ("StudyTrialsFail", trials(failed="2x5", completed="1x5"), 3, False),  # too few to tell
    ("StudyTrialsFail", trials(failed="3x5", completed="40x5"), 3, False),
    ("StudyTrialsFail", trials(failed="0x5", diverged="30x5", completed="10x5"), 3, False),  # no failure
    ("StudyDriverGone", signs("0+60x3 _x10", "0x3 _x10"), 6, True),  # the driver died in minute 3
    ("StudyDriverGone", signs("0+60x20", "0x20"), 10, False),  # it runs
    ("StudyDriverGone", signs("0+60x3 _x10", "0x2 180 _x10"), 6, False),  # it ended in order
    (
        "StudyDriverGone",  # the first driver died, the second ended in order
        signs("0+60x3 _x10", "0x3 _x10", "a") + signs("_x4 300 360 _x10", "_x4 0 360 _x10", "b"),
        10,
        False,
    ),
    (
        "StudyDriverGone",  # the first driver was interrupted, the second died
        signs("0+60x3 _x10", "0x2 180 _x10", "a") + signs("_x4 300 360 _x10", "_x4 0 0 _x10", "b"),
        10,
        True,
    ),
]  # fmt: skip


def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(files()["alerts.yml"])
    without_text: list[dict[str, Any]] = yaml.safe_load(files()["alerts.yml"])["groups"]
    labels = {}
    for rule in without_text[0]["rules"]:
        labels[rule["alert"]] = rule.pop("annotations") and rule["labels"]  # what it says is not under test
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": without_text}))
    assert {case[0] for case in CASES} == set(labels)
    tests = []
    for name, given, minute, fires in CASES:
        more = {"limit": "usd"} if "Limit" in name else {}
        expected = [{"exp_labels": {"study": "s"} | more | labels[name]}] if fires else []
        check = {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected}
        tests.append({"interval": "1m", "input_series": given, "alert_rule_test": [check]})
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "30s", "tests": tests})
    )
    told = subprocess.run([promtool, "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
