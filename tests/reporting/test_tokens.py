"""Figures in tokens beside those in samples, and only where samples are of tokens."""

from __future__ import annotations

import math
from io import StringIO

import pytest
from rich.console import Console

from study.analysis.records import Summary
from study.config.objective import ACCURACY, Objective
from study.reporting.figures.batches import batch_figure
from study.reporting.figures.frontier import frontier_figure
from study.reporting.frames import points_frame
from study.reporting.text.scaling_laws import critical_sentences
from study.reporting.text.tables import points_table
from study.reporting.text.terminal import print_summary
from tests.reporting.summaries import point, summary

# 2 hours for 100 updates of 64 samples of 128 tokens, at 8,000 samples a second.
HOURS, BATCH, UPDATES, TOKENS = 2.0, 64, 100, 128
BILLIONS = BATCH * UPDATES * TOKENS / 1e9


def found(tokens_per_sample: int | None, **changes: object) -> Summary:
    return summary([point(BATCH, HOURS, 0.9, tokens_per_sample=tokens_per_sample)], noise_scale=10.0, **changes)


def texts(found: Summary) -> dict[str, str]:
    """Every text of a summary that speaks of samples."""
    out = StringIO()
    print_summary(found, Console(file=out, width=120))
    figures = [str(figure.to_dict()) for draw in (batch_figure, frontier_figure) if (figure := draw(found)) is not None]
    table = points_table(found)
    return {
        "terminal": out.getvalue(), "figures": " ".join(figures), "table": " ".join((*table.heads, *table.rows[0])),
        "sentences": " ".join(critical_sentences(found)),
    }  # fmt: skip


def test_a_point_costs_what_its_tokens_do() -> None:
    (one,) = found(TOKENS).points
    assert one.batch_tokens == BATCH * TOKENS
    assert one.tokens_per_s == pytest.approx(8000 * TOKENS)
    assert one.cost_per_billion_tokens("billed_device_h") == pytest.approx(HOURS / BILLIONS)
    assert one.cost_per_billion_tokens("usd") is None  # without a price
    table = points_table(found(TOKENS))
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert row["tokens an update"] == "8,192"
    assert row["tokens/s"] == "1,024,000"
    assert row["device-hours per billion tokens"] == "2,441"  # 2 / 0.0008192
    assert not any("billion" in head for head in points_table(found(TOKENS), "samples").heads)


def test_tokens_stand_beside_samples_everywhere() -> None:
    said = texts(found(TOKENS))
    assert "1,024,000" in said["terminal"]
    assert said["figures"].count("8,000 samples/s, 1,024,000 tokens/s") == 2
    assert "10 samples, 1,280 tokens" in said["sentences"]
    assert points_frame(found(TOKENS))["tokens_per_sample"].tolist() == [TOKENS]


def test_a_loss_of_bytes_stands_in_bits_too() -> None:
    loss, text = Objective.model_validate("loss"), {"config": {"workload": {"kind": "text"}}}
    some = [point(BATCH, HOURS, -2 * math.log(2), tokens_per_sample=TOKENS)]
    table = points_table(summary(some, objective=loss, facts=text))
    assert dict(zip(table.heads, table.rows[0], strict=True))["bits a byte"] == "2"
    for objective, facts in ((loss, {}), (ACCURACY, text), (Objective.model_validate("bits_per_byte"), text)):
        assert "bits a byte" not in points_table(summary(some, objective=objective, facts=facts)).heads


def test_samples_of_images_have_no_tokens() -> None:
    assert [name for name, text in texts(found(None)).items() if "token" in text.lower()] == []
