"""How often a verdict is wrong: 1,000 simulated studies in which a claim is false, and as many in which it is true."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from study.analysis.claims.registry import CLAIMS
from study.analysis.claims.settings import settings_of
from tests.analysis.claims.studies import CONFIGS, make, trials_of
from tests.analysis.claims.worlds import WORLDS, Chance

STUDIES = 1000


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("claim", list(WORLDS))
def test_a_false_claim_is_seldom_supported_and_a_true_one_seldom_contradicted(claim: str, seeds: int) -> None:
    false, true = (verdicts(claim, is_true, seeds) for is_true in (False, True))
    print(
        f"{claim}, {seeds} seeds: type I {false['supported'] / STUDIES:.3f}; "
        f"power {true['supported'] / STUDIES:.3f}, contradicted though true {true['contradicted'] / STUDIES:.3f}"
    )
    assert false["supported"] < 0.05 * STUDIES
    assert true["contradicted"] < 0.05 * STUDIES


def verdicts(claim: str, true: bool, seeds: int) -> Counter[str]:
    """How many simulated studies came to each verdict."""
    config = make(CONFIGS[claim])
    rng = np.random.default_rng([seeds, true])
    counts: Counter[str] = Counter()
    for _ in range(STUDIES):
        trials = trials_of(config, WORLDS[claim](Chance(rng), true), range(1, seeds + 1))
        counts[CLAIMS[claim](settings_of(trials, config)).verdict] += 1
    return counts
