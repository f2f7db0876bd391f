"""What is said of noise, in words, agrees with the interval shown beside it and with the claims on the same page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.analysis.recommend import Candidate, recommend
from study.analysis.records import Constraints, Summary
from study.analysis.statistics.hypotheses import contrast
from study.analysis.statistics.samples import Sample
from study.analysis.summary.summarize import summarize
from study.config.objective import ACCURACY
from study.config.schema import StudyConfig
from study.ledger.schema import EndRow, ReportRow
from study.planning.trials import make_plan
from study.reporting.html.report_page import render_body
from study.reporting.text.claims import finding_line
from study.reporting.text.markdown import render_markdown
from study.reporting.text.quality import noise_words
from study.reporting.text.recommendation import recommendation_lines
from study.reporting.text.scaling_laws import critical_sentences
from study.reporting.text.verdict import verdict
from tests.analysis.ledgers import CONFIG, made_rows

SHOWN = re.compile(r"95% interval ([-+][\d.,e-]+) to ([-+][\d.,e-]+) points \((paired|Welch) t, .* seeds\): (.*)")
# Differences of 12, 20 and 28 points: paired t gives 20 +- 4.30 x 8 / sqrt 3 = 19.87.
ACCURACIES = {16: (0.95, 0.80, 0.60), 256: (0.83, 0.60, 0.32)}


def study(accuracies: dict[int, tuple[float, ...]], lost: tuple[str, ...] = (), **changes: Any) -> Summary:
    """A study of two batch sizes whose confirm trials end at these accuracies, seed by seed; `lost` ones failed."""
    plan = make_plan(StudyConfig.model_validate(CONFIG | {"batch_sizes": list(accuracies)} | changes, strict=False))
    rows = []
    for row in made_rows(plan):
        if isinstance(row, EndRow | ReportRow):
            batch_size, seed = (int(n) for n in re.findall(r"\d+", row.trial_id)[::2])
            value = accuracies[batch_size][seed - 1]
            if row.trial_id in lost:
                if isinstance(row, ReportRow):
                    continue
                row = row.model_copy(update={"outcome": "failed", "final": None})
            else:
                name = "final" if isinstance(row, EndRow) else "val_accuracy"
                row = row.model_copy(update={name: value})
        rows.append(row)
    return summarize(rows, plan)


def test_verdict_recommendation_and_claim_show_one_interval() -> None:
    found = study(ACCURACIES)
    shown = "95% interval +0.127 to +39.9 points (paired t, 3 seeds): more than noise"
    assert sum(shown in line for line in verdict(found)) == 1
    claimed = [finding_line(finding) for claim in found.claims for finding in claim.findings]
    assert any("+20 points [+0.127, +39.9]" in line for line in claimed)
    assert found.recommendation is not None
    (runner_up,) = (
        line for line in recommendation_lines(found, found.recommendation, Constraints()) if "Runner" in line
    )
    assert "-20.00 points of accuracy, 95% interval -39.9 to -0.127 points (paired t, 3 seeds): more than" in runner_up
    for text in (render_body(found), render_markdown(found).replace("\\", "")):
        assert shown in text.replace("&#43;", "+")
        assert "overlap" not in text
        assert "not distinguishable" not in text


def test_a_seed_that_one_side_lost_is_left_out_of_the_difference_and_that_is_said() -> None:
    found = study(ACCURACIES, lost=("confirm-b256-w1-s3",))
    (step,) = (line for line in verdict(found) if line.startswith("Batch 256 to batch 16"))
    assert "16.0 points more on the seeds that both have for" in step  # the mean of 12 and 20
    assert "(paired t, 2 seeds): not distinguishable from noise." in step


def test_a_trial_without_a_report_bounds_nothing_and_is_named() -> None:
    whole, lacking = study(ACCURACIES), study(ACCURACIES, lost=("confirm-b256-w1-s3",))
    assert whole.critical is not None
    assert lacking.critical is not None
    assert (whole.critical.n_unreported, lacking.critical.n_unreported) == (0, 1)
    assert lacking.critical.fit.n_runs == whole.critical.fit.n_runs - 1
    says = "1 further trial(s) ended without a report: they bound nothing and are left out."
    assert says in critical_sentences(lacking)
    assert says not in critical_sentences(whole)


accuracies = st.integers(0, 1000).map(lambda n: n / 1000)
three = st.tuples(accuracies, accuracies, accuracies)


@given(three, three, st.booleans())
def test_noise_is_said_exactly_where_the_interval_shown_holds_0(a: Any, b: Any, paired: bool) -> None:
    seeds = (1, 2, 3) if paired else ()
    words = noise_words(ACCURACY, contrast(Sample("a", a, a, seeds), Sample("b", b, b, seeds)))
    shown = SHOWN.fullmatch(words)
    if shown is None:
        assert words == "with seeds all alike: without a spread there is no test"
        return
    low, high = float(shown[1]), float(shown[2])
    assert (shown[4] == "not distinguishable from noise") == (low <= 0 <= high)
    assert shown[4] in ("not distinguishable from noise", "more than noise")


def test_the_cheapest_that_is_no_worse_is_found_by_pairs() -> None:
    """Seeds differ by far more than the margin, and every seed loses half a point: only pairs can show that."""
    best, cheap = (0.90, 0.80, 0.70), (0.895, 0.7951, 0.6949)
    seeds = (1, 2, 3)
    menu = [Candidate(Sample("best", (9.0,) * 3, best, seeds)), Candidate(Sample("cheap", (1.0,) * 3, cheap, seeds))]
    found = recommend(menu, Constraints(), margin=0.01)
    assert found.cheapest_not_worse is not None
    assert found.cheapest_not_worse.label == "cheap"
    assert found.not_worse_by is not None
    assert found.not_worse_by.effect == pytest.approx(-0.005)
    assert found.not_worse_by.ci is not None
    assert -0.01 < found.not_worse_by.ci[0] <= found.not_worse_by.ci[1] < 0
    assert found.runner_up is not None
    assert found.runner_up.quality_ci == found.not_worse_by.ci
    assert found.runner_up.quality_contrast.test == "paired t"
