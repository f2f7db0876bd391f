"""Verdicts on claims as people and programs read them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from study.analysis.claims.records import Details, Finding, TableCell, TableRow
from study.analysis.claims.registry import claims_of
from study.analysis.records import Summary
from study.reporting.exports import write_report
from study.reporting.text.claims import claims_record, details_table, finding_line, print_claims, print_verdicts
from study.reporting.text.markdown import render_markdown, study_claims_markdown
from tests.analysis.claims.studies import CONFIGS, make, trials_of
from tests.reporting.summaries import summary


def judged(claim: str = "cost") -> Summary:
    """A study in which the large batch is twice as fast and eight points worse."""
    config = make(CONFIGS[claim])
    trials = trials_of(
        config,
        lambda variant, batch, seed: {
            "device_seconds": (2.0 if batch == 16 else 1.0) * (1 + 0.004 * seed * (batch == 16)),
            "val_accuracy": (0.9 if variant == "SB" else 0.82) + 0.01 * seed * (0.9 if variant == "SB" else 1),
        },
        (1, 2, 3),
    )
    facts = {"config": config.model_dump(mode="json")}
    return summary(trials=trials, claims=claims_of(trials, config), facts=facts, name="a | study")


def printed(study: Summary, show: object = print_claims, width: int = 100) -> str:
    file = io.StringIO()
    show(study, Console(file=file, width=width))  # type: ignore[operator]
    return file.getvalue()


def test_the_terminal_shows_verdict_effect_interval_test_and_rows() -> None:
    text = printed(judged(), width=200)
    assert "cost: supported" in text
    assert "Goyal et al. 2017, arXiv:1706.02677" in text
    assert (
        "batch 16 takes more device time than batch 256: supported; 2.02 times [2, 2.04]; "
        "paired t, p < 0.001, 3 seeds" in text
    )
    assert "Based on 6 trials, confirm--b16-s1 to confirm--b256-s3." in text
    assert "serving: no evidence here; it needs probes.serving" in text
    assert "\x1b" not in text


def test_an_open_claim_says_what_would_settle_it() -> None:
    text = printed(judged("grow_batch"), width=300)
    assert "grow_batch: inconclusive" in text
    assert "To settle it: " in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_view_fits(width: int) -> None:
    for claim in CONFIGS:
        assert max(map(len, printed(judged(claim), width=width).splitlines())) <= width


def test_a_run_with_variants_ends_with_their_columns_and_one_without_with_a_line_a_claim() -> None:
    text = printed(judged("train_longer"), print_verdicts)
    (heads,) = [
        line for line in text.splitlines() if "LB+RA" in line and "SB" in line and "LB+LR" in line and ":" not in line
    ]
    assert heads.split() == ["SB", "LB", "LB+LR", "LB+RA"]
    row = text.splitlines()[text.splitlines().index(heads) + 2]
    assert row.lstrip().startswith("validation accuracy, %")
    assert row.count("±") == 4
    plain = printed(judged("cost"), print_verdicts, width=300).splitlines()
    assert [line.split(":")[0] for line in plain] == ["Claim fixed_lr", "Claim cost"]


def test_json_is_strict_and_keeps_every_claim() -> None:
    text = json.dumps(claims_record([judged(), judged("serving")]), allow_nan=False)
    record = json.loads(text)
    assert [study["name"] for study in record["studies"]] == ["a | study"] * 2
    (cost,) = [claim for claim in record["studies"][0]["claims"] if claim["statement"]["claim"] == "cost"]
    assert cost["verdict"] == "supported"
    (finding,) = cost["findings"]
    assert finding["effect"] == pytest.approx(2.016, abs=0.01)
    assert finding["rows"][0] == "confirm--b16-s1"


def test_the_report_has_a_section_and_none_without_evidence(tmp_path: Path) -> None:
    text = render_markdown(judged())
    assert "## Claims about batch size" in text
    assert "**cost: supported.**" in text
    assert "No evidence in this study for: scaled\\_lr" in text
    assert "## Claims" not in render_markdown(summary())
    write_report(judged(), tmp_path, ["json"])
    assert json.loads((tmp_path / "summary.json").read_text())["claims"]


def test_markdown_for_the_docs_names_study_cost_and_date() -> None:
    lines = study_claims_markdown(judged()).splitlines()
    assert lines[0] == "### a \\| study"
    assert lines[2] == "3 device-hours on cpu, 2026-01-02, study abc123."
    assert any(line.startswith("| training and validation, device-s |") for line in lines)


def finding(**changes: object) -> Finding:
    values = {
        "statement": "a and b",
        "verdict": "inconclusive",
        "effect": 1.234,
        "effect_unit": "points",
        "ci": (-math.inf, 12345.0),
        "margin": 1.0,
        "test": "Welch t",
        "p": 0.0314,
        "n_seeds": (3, 2),
        "rows": (),
        "reason": None,
        "to_settle": None,
    }
    return Finding(**(values | changes))  # type: ignore[arg-type]


def test_a_finding_in_words() -> None:
    assert (
        finding_line(finding())
        == "a and b: inconclusive; +1.23 points [unbounded, +12,345], margin 1; Welch t, p = 0.031, 3 and 2 seeds"
    )
    nothing = finding(effect=None, ci=None, test=None, reason="1 and 1 seeds")
    assert finding_line(nothing) == "a and b: inconclusive; 1 and 1 seeds"


def test_many_settings_stand_below_one_another() -> None:
    cells = tuple(TableCell(100.0 * i, (90.0 * i, 110.0 * i), 3) for i in range(1, 8))
    table = details_table(Details(tuple("abcdefg"), (TableRow("pace", "1/s", cells),)))
    assert table.heads == ("", "pace, 1/s")
    assert table.rows[1] == ("b", "200 ± 20")
    few = details_table(Details(("a", "b"), (TableRow("x", "", (TableCell(1.0, None, 1), TableCell(None, None, 0))),)))
    assert few.heads == ("", "a", "b")
    assert few.rows == (("x", "1 (1 seed)", "–"),)  # noqa: RUF001
