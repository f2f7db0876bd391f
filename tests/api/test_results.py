"""`study.load`: frames against the ledger by closed form, the frontier, recommendations, and what cannot be loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import study
from study.api.plans import recorded
from study.ledger.paths import StudyPaths
from study.ledger.schema import PHASES, AttemptRow, LeaseRow, ReportRow
from study.ledger.store import read
from study.reporting.live.page import LivePage
from tests.analysis.ledgers import made_study
from tests.api.conftest import NAMES

Frozen = Callable[[str], Path]
# Columns that hold no quantity, or one without a unit: names, counts, fractions, losses, rates, flags.
NO_UNIT = re.compile(
    r"(trial|lease|group)_id|phase|variant|outcome|error|reason|why|device|attempts?|devices(_per_rank)?|seed_index"
    r"|batch_size|world_size|micro_batch|accumulation|norm_batch|n_\w+|cold_starts|audited_from|on_frontier|p_on_front"
    r"|lr|\w*accuracy(_ci_low|_ci_high)?|\w*loss|\w*updates|\w*samples|\w*epochs|skipped_batches|cost_ci_(low|high)"
    r"|probe_[\w.-]+|tokens_per_sample"
)
UNIT = re.compile(r"\w*(_s|_h|usd|_j|_bytes|_per_s|_seconds)(_ci_low|_ci_high)?")


@pytest.mark.parametrize("name", NAMES)
def test_bill_adds_up_to_the_lease_rows(frozen: Frozen, name: str) -> None:
    folder = frozen(name)
    leases = [row for row in read(folder).rows if isinstance(row, LeaseRow)]
    results = study.load(folder)
    bill = results.bill
    assert len(bill) == len(leases)
    by_hand = sum(lease.devices * lease.billed_s / 3600 for lease in leases)
    assert bill["billed_device_h"].sum() == pytest.approx(by_hand, rel=1e-12)
    assert results.summary.spend.total_device_h == pytest.approx(by_hand, rel=1e-12)
    phases = bill[[f"{phase}_s" for phase in PHASES]].sum(axis=1)
    np.testing.assert_allclose(phases, bill["billed_s"], rtol=1e-9, atol=1e-9)
    for trial_id, part in bill.groupby("trial_id"):
        trial = results.trials.set_index("trial_id").loc[trial_id]
        assert trial["billed_device_h"] == pytest.approx(part["billed_device_h"].sum())
        assert trial["train_s"] == pytest.approx(part["train_s"].sum())


@pytest.mark.parametrize("name", NAMES)
def test_points_are_means_of_the_completed_confirm_trials(frozen: Frozen, name: str) -> None:
    results = study.load(frozen(name))
    trials = results.trials
    done = trials[(trials["phase"] == "confirm") & (trials["outcome"] == "completed")]
    groups = done.groupby(["variant", "world_size", "batch_size"])
    assert len(results.points) == groups.ngroups
    for _, point in results.points.iterrows():
        part = groups.get_group((point["variant"], point["world_size"], point["batch_size"]))
        assert point["n_seeds"] == len(part)
        means = {"final_val_accuracy": "val_accuracy", "best_val_accuracy": "best_val_accuracy"}
        same = ("billed_device_h", "wall_h", "samples", "samples_per_s", "compared_billed_device_h")
        for of_trial, of_point in (means | {column: column for column in same}).items():
            assert point[of_point] == pytest.approx(part[of_trial].mean()), of_point


@pytest.mark.parametrize("name", NAMES)
def test_curves_hold_the_last_attempt_and_what_it_went_on_from(frozen: Frozen, name: str) -> None:
    folder = frozen(name)
    kept: dict[str, list[ReportRow]] = {}
    for row in read(folder).rows:
        if isinstance(row, AttemptRow):
            kept[row.trial_id] = [r for r in kept.get(row.trial_id, []) if r.updates <= row.from_updates]
        elif isinstance(row, ReportRow):
            kept[row.trial_id].append(row)
    curves = study.load(folder).curves
    by_hand = [(trial_id, r.updates, r.val_accuracy) for trial_id, reports in kept.items() for r in reports]
    if name != "mistaken":  # its trials begin again, so earlier reports are of no trial
        assert len(curves) == len(by_hand)
    found = set(zip(curves["trial_id"], curves["updates"], curves["val_accuracy"], strict=True))
    assert found <= set(by_hand)


@pytest.mark.parametrize("name", NAMES)
def test_columns_carry_units_and_numbers_are_numbers(frozen: Frozen, name: str) -> None:
    results = study.load(frozen(name))
    text = {"trial_id", "phase", "variant", "outcome", "error", "lease_id", "group_id", "device", "reason", "why"}
    for frame in (results.points, results.trials, results.curves, results.bill, results.frontier()):
        for column in frame.columns:
            assert UNIT.fullmatch(column) or NO_UNIT.fullmatch(column), column
            assert column in text or pd.api.types.is_numeric_dtype(frame[column]), column


@pytest.mark.parametrize("name", NAMES)
def test_the_frontier_is_the_summarys_on_each_axis(frozen: Frozen, name: str) -> None:
    results = study.load(frozen(name))
    summary = results.summary
    for axis, front in summary.frontiers.items():
        frame = results.frontier(axis)
        members = sorted((point for point in front.points if point.on_front), key=lambda point: point.cost)
        assert frame[f"compared_{axis}"].tolist() == [point.cost for point in members]
        assert frame["val_accuracy"].tolist() == pytest.approx([point.quality for point in members])
    assert results.frontier()["batch_size"].tolist() == [point.batch_size for point in summary.frontier]


def test_claims_are_a_row_each(frozen: Frozen) -> None:
    results = study.load(frozen("quickstart"))
    claims = results.claims().set_index("claim")
    for claim in results.summary.claims:
        assert claims.loc[claim.claim, "verdict"] == claim.verdict
    decided = claims.loc["cost"]
    assert decided["effect_ci_low"] <= decided["effect"] <= decided["effect_ci_high"]


def test_recommend_meets_its_limits(frozen: Frozen) -> None:
    results = study.load(frozen("quickstart"))
    points = results.points
    best = results.recommend()
    assert best.configuration is not None
    assert best.configuration["val_accuracy"] >= points["val_accuracy"].max() - 0.01
    floor = float(points["val_accuracy"].median())
    cheap = results.recommend(min_accuracy=floor)
    assert cheap.configuration is not None
    sure = [one.label for one in cheap.record.standings if one.probability >= 0.9]
    assert cheap.record.choice is not None
    assert cheap.record.choice.label == sure[0]  # standings are cheapest first
    assert "Choose batch" in str(cheap)
    assert json.loads(json.dumps(cheap.to_dict()))["aim"] == "reaches"
    bolder = results.recommend(min_accuracy=floor, confidence=0.51)
    assert bolder.configuration is not None
    assert bolder.configuration["compared_billed_device_h"] <= cheap.configuration["compared_billed_device_h"]
    nothing = results.recommend(min_accuracy=0.9999, gpus=1)
    assert nothing.configuration is None


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"min_accuracy": 95}, "^min_accuracy: must be a fraction between 0 and 1; got 95 .did you mean 0.95"),
        ({"max_usd": 1}, "^max_usd: the study has no price; give usd_per_device_hour"),
        ({"max_latency_ms": 5}, "^max_latency_ms: nothing is known of latencies"),
        ({"gpus": 0}, "^gpus: must be a number above 0"),
    ],
)
def test_a_limit_that_cannot_be_held_names_its_argument(frozen: Frozen, limits: dict[str, float], says: str) -> None:
    results = study.load(frozen("cut") if "max_usd" not in limits else frozen("quickstart"))
    with pytest.raises(study.StudyError, match=says):
        results.recommend(**limits)  # type: ignore[arg-type]


def test_another_price_changes_dollars_alone(tmp_path: Path) -> None:
    folder = made_study(tmp_path / "s")
    before, after = study.load(folder), study.load(folder, usd_per_device_hour=6.0)
    pd.testing.assert_series_equal(after.bill["usd"], 3 * before.bill["usd"])
    pd.testing.assert_series_equal(after.bill["billed_device_h"], before.bill["billed_device_h"])
    with pytest.raises(study.ConfigError, match=r"^usd_per_device_hour: must be from 0"):
        study.load(folder, usd_per_device_hour=-1)


def test_names_that_do_not_exist_get_a_suggestion(frozen: Frozen) -> None:
    results = study.load(frozen("quickstart"))
    with pytest.raises(study.ConfigError, match="did you mean wall_h"):
        results.frontier("wal_h")
    with pytest.raises(study.ConfigError, match="did you mean frontier"):
        results.figure("fronteer")
    with pytest.raises(study.ConfigError, match="did you mean html"):
        results.write_report(["htm"])
    with pytest.raises(AttributeError):
        study.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_ledger_that_is_damaged_in_the_middle_says_what_its_figures_lack(
    frozen: Frozen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A torn last line is a row that is still being written, and is no damage."""
    folder = shutil.copytree(frozen("quickstart"), tmp_path / "damaged")
    ledger = StudyPaths(folder).ledger
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines) + lines[-1][:20])
    assert not [note for note in study.load(folder).summary.notes if "damaged" in note]
    middle = len(lines) // 2
    ledger.write_bytes(b"".join([*lines[:middle], lines[middle].replace(b":", b";", 1), *lines[middle + 1 :]]))
    first = study.load(folder).summary.notes[0]
    assert f"damaged from line {middle + 1} on" in first
    assert first in caplog.text
    with LivePage(folder, recorded(folder)) as page:
        assert f"damaged from line {middle + 1} on" in page.latest(at_once=True)[1]


def test_figures_are_plotly_figures(frozen: Frozen) -> None:
    results = study.load(frozen("quickstart"))
    assert len(results.figure().data) > 0
    assert len(results.figure("rates").data) > 0


def test_a_summary_for_notebooks_escapes_what_users_wrote(tmp_path: Path) -> None:
    folder = made_study(tmp_path / "s", name="<script>alert(1)</script> & <b>me</b>")
    shown = study.load(folder)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;me&lt;/b&gt;" in shown
    assert shown.count("<table>") == 1


class TestUnfinished:
    """Studies that still run, were cut, or have nothing to show."""

    @pytest.fixture
    def begun(self, frozen: Frozen, tmp_path: Path) -> Path:
        """A study with its first two rows alone."""
        return self.prefix(frozen("quickstart"), tmp_path / "begun", 2)

    @staticmethod
    def prefix(source: Path, folder: Path, n_rows: int) -> Path:
        folder.mkdir()
        shutil.copy(source / "config.yaml", folder)
        lines = StudyPaths(source).ledger.read_bytes().splitlines(keepends=True)
        StudyPaths(folder).ledger.write_bytes(b"".join(lines[:n_rows]))
        return folder

    def test_without_points_frames_are_empty_with_their_columns(self, begun: Path, frozen: Frozen) -> None:
        results, whole = study.load(begun), study.load(frozen("quickstart"))
        for name in ("points", "bill"):
            assert list(getattr(results, name).columns) == list(getattr(whole, name).columns)
            assert getattr(results, name).empty
        assert results.frontier().empty
        assert "Nothing is confirmed yet" in results._repr_html_()
        assert results.claims()["verdict"].isin(["no_evidence", "inconclusive"]).all()
        with pytest.raises(study.DataError, match="no confirm trial has completed"):
            results.recommend()
        with pytest.raises(study.DataError, match="nothing to show in the figure 'frontier'"):
            results.figure()
        with pytest.raises(study.ConfigError, match="must be one of billed_device_h"):
            results.frontier("usd")

    def test_halfway_through_all_frames_work(self, frozen: Frozen, tmp_path: Path) -> None:
        source = frozen("quickstart")
        n_rows = len(StudyPaths(source).ledger.read_bytes().splitlines())
        results = study.load(self.prefix(source, tmp_path / "half", n_rows * 3 // 4))
        assert 0 < results.trials["outcome"].isna().sum() < len(results.trials)
        assert len(results.curves) > 0
        assert len(results.bill) > 0
        assert any("Not finished" in note for note in results.summary.notes)

    def test_a_study_that_was_cut_says_so(self, frozen: Frozen) -> None:
        results = study.load(frozen("cut"))
        assert results.summary.cut is not None
        assert f"Cut by limits.{results.summary.cut.limit}" in results._repr_html_()

    @pytest.mark.parametrize("content", [b"", b"garbage\n", b'{"kind":'])
    def test_a_ledger_without_its_first_row_is_one_clear_error(self, begun: Path, content: bytes) -> None:
        StudyPaths(begun).ledger.write_bytes(content)
        with pytest.raises(study.LedgerError, match="does not begin with the row of a study"):
            study.load(begun)

    def test_no_study_here(self, tmp_path: Path, begun: Path) -> None:
        with pytest.raises(study.LedgerError, match="no study here"):
            study.load(tmp_path / "nothing")
        StudyPaths(begun).ledger.unlink()
        with pytest.raises(study.LedgerError, match="no study here"):
            study.load(begun)
