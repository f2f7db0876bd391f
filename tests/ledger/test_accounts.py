"""The bill of a lease adds up, whatever happened on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.ledger.accounts import OpenLease, Reason

seconds = st.floats(0, 1e5)


def lease(opened_s: float = 10.0) -> OpenLease:
    return OpenLease("l", "g", "t", 1, "cpu", 2, ("n",), opened_s=opened_s, heard_s=opened_s)


@given(setup=seconds, reports=st.lists(st.tuples(seconds, seconds, seconds)), tail=seconds,
       reason=st.sampled_from(["hand_over", "released", "lost"]))  # fmt: skip
def test_phases_add_up_to_the_bill(
    setup: float, reports: list[tuple[float, float, float]], tail: float, reason: Reason
) -> None:
    account = lease()
    now = 10.0 + setup
    account.started(now)
    train = validate = waited = 0.0
    for train_s, validate_s, wait_s in reports:
        now += train_s + validate_s + wait_s
        train, validate, waited = train + train_s, validate + validate_s, waited + wait_s
        account.heard(now, {"train": train, "validate": validate})
    billed, phases = account.bill(now + tail, reason)
    assert billed == pytest.approx(setup + train + validate + waited + tail, abs=1e-6)
    assert sum(phases.values()) == pytest.approx(billed, abs=1e-6)
    assert all(value >= -1e-6 for value in phases.values())
    where = {"hand_over": "idle", "released": "teardown", "lost": "lost"}[reason]
    assert phases[where] >= tail - 1e-6
    assert phases["setup"] == pytest.approx(setup, abs=1e-6)


def test_an_attempt_that_died_in_setup_is_billed_as_lost() -> None:
    assert lease().bill(25.0, "lost") == (15.0, {"setup": 0.0, "lost": 15.0, "idle": 0.0})
