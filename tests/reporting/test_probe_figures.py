"""What is said of noise, in words, agrees with the interval shown beside it and with the claims on the same page."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.recommend import Candidate, recommend
from study.analysis.records import Constraints, Summary
from study.analysis.statistics.hypotheses import contrasts
from study.analysis.statistics.samples import Sample
from study.analysis.summary.points import point_samples
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
from study.reporting.text.verdict import steps_table
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
    table = steps_table(found)
    assert table is not None
    assert [row[2:] for row in table.rows] == [("+0.127 to +39.9 points", table.rows[0][3], "more than noise")]
    claimed = [finding_line(finding) for claim in found.claims for finding in claim.findings]
    assert any("+20 points [+0.127, +39.9]" in line for line in claimed)
    assert found.recommendation is not None
    (runner_up,) = (
        line for line in recommendation_lines(found, found.recommendation, Constraints()) if "Runner" in line
    )
    assert "-20.00 points of accuracy, 95% interval -39.9 to -0.127 points (paired t, 3 seeds): more than" in runner_up
    for text in (render_body(found), render_markdown(found).replace("\\", "")):
        assert "+0.127 to +39.9 points" in text.replace("&#43;", "+")
        assert "overlap" not in text
        assert "not distinguishable" not in text


def test_a_seed_that_one_side_lost_is_left_out_of_the_difference_and_that_is_said() -> None:
    table = steps_table(study(ACCURACIES, lost=("confirm-b256-w1-s3",)))
    assert table is not None
    (step,) = table.rows
    assert step[1] == "+16.00 points"  # the mean of 12 and 20
    assert step[-1] == "not distinguishable from noise, on the seeds that both have"


SPREADS = st.sampled_from([0.001, 0.004, 0.02])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), SPREADS, st.sampled_from([0.0, 0.01, 0.03]), st.integers(2, 4))
def test_no_two_statements_of_a_page_disagree(seed: int, spread: float, apart: float, seeds: int) -> None:
    """Of a study of four batch sizes: decision, key figures, table of probabilities, steps and runner-up."""
    rng = np.random.default_rng(seed)
    batches = (16, 32, 64, 128)
    found = study(
        {
            batch: tuple(np.clip(0.9 - apart * place + spread * rng.standard_normal(seeds), 0, 1))
            for place, batch in enumerate(batches)
        },
        confirm={"seeds": seeds},
    )
    page, advice = html.unescape(render_body(found)), found.recommendation
    assert advice is not None
    assert advice.choice is not None
    headline = re.search(r'<p class="headline">(.*?)</p>', page)
    assert headline is not None
    assert headline[1].startswith(f"Choose {advice.choice.label}: ")
    stated = re.findall(r"probability (above 0\.99|below 0\.01|0\.\d\d)", headline[1])
    marked = re.findall(r'<tr class="marked"><td>(batch \d+ on 1 rank)</td><td>[^<]*</td><td>([^<]*)</td>', page)
    assert marked == [(advice.choice.label, stated[0])]
    sure = [one.label for one in advice.standings if one.probability >= advice.confidence]
    assert advice.sure == bool(sure)
    assert not sure or advice.choice.label == sure[0]  # the cheapest of them
    assert ("Undecided: " in page) == (advice.to_settle is not None)
    samples = point_samples(found.points, found.trials, found.cost_axis)
    assert samples is not None
    labels = [sample.label for sample in samples]
    best = labels.index(advice.best.label)
    for one in advice.standings:
        (gap,) = contrasts(samples, [(labels.index(one.label), best)])
        if gap.ci is not None and gap.ci[1] < -advice.margin:  # worse than the best by more than the margin, surely
            assert one.probability < 0.5
    steps = re.findall(r"<td>([-+][\d.e-]+) to ([-+][\d.e-]+) points</td><td>[^<]*</td><td>([^<]*)</td>", page)
    assert len(steps) == (0 if steps_table(found) is None else len(steps_table(found).rows))  # type: ignore[union-attr]
    for low, high, answer in steps:
        assert (answer == "more than noise") == (not float(low) <= 0 <= float(high))


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
    (found,) = contrasts([Sample("a", a, a, seeds), Sample("b", b, b, seeds)], [(0, 1)])
    words = noise_words(ACCURACY, found)
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
    assert found.choice is not None
    assert (found.choice.label, found.sure) == ("cheap", True)
    assert found.runner_up is not None
    assert found.runner_up.quality.effect == pytest.approx(0.005)
    assert found.runner_up.quality.test == "paired t"
    apart = [
        replace(one, sample=replace(one.sample, seeds=(n, n + 1, n + 2))) for n, one in zip((1, 9), menu, strict=True)
    ]
    assert not recommend(apart, Constraints(), margin=0.01).sure
