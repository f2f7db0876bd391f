"""The bill of a lease adds up, whatever happened on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.ledger.billing import CloseReason, OpenLease
from study.ledger.schema import AttemptRow, LeaseRow
from study.ledger.state import StudyState

STAMP = {"written": "2026-01-01T00:00:00.000+00:00"}
seconds = st.floats(0, 1e5)


def lease(opened_s: float = 10.0) -> OpenLease:
    return OpenLease("l", "g", "t", 1, "cpu", 2, ("n",), opened_s=opened_s, known_until_s=opened_s)


@given(setup=seconds, reports=st.lists(st.tuples(seconds, seconds, seconds)), tail=seconds,
       reason=st.sampled_from(["hand_over", "released", "lost"]))  # fmt: skip
def test_phases_add_up_to_the_bill(
    setup: float, reports: list[tuple[float, float, float]], tail: float, reason: CloseReason
) -> None:
    account = lease()
    now = 10.0 + setup
    account.add_setup(now)
    train = validate = waited = 0.0
    for train_s, validate_s, wait_s in reports:
        now += train_s + validate_s + wait_s
        train, validate, waited = train + train_s, validate + validate_s, waited + wait_s
        account.add_report(now, {"train": train, "validate": validate})
    billed, phases = account.bill(now + tail, reason)
    assert billed == pytest.approx(setup + train + validate + waited + tail, abs=1e-6)
    assert sum(phases.values()) == pytest.approx(billed, abs=1e-6)
    assert all(value >= -1e-6 for value in phases.values())
    where = {"hand_over": "idle", "released": "teardown", "lost": "lost"}[reason]
    assert phases[where] >= tail - 1e-6
    assert phases["setup"] == pytest.approx(setup, abs=1e-6)


def attempt(number: int, at_s: float) -> AttemptRow:
    return AttemptRow(
        **STAMP, at_s=at_s, trial_id="t", attempt=number, lease_id=f"t#{number}", group_id="g", device="cpu",
        nodes=("n",), setup_s=2.0, phase="search", batch_size=16, world_size=2, micro_batch=8, accumulation=1,
        norm_batch=None, base_lr=0.1, lr=0.1, seed_index=0, updates_per_epoch=1, total_updates=1,
    )  # fmt: skip


def bill(number: int, at_s: float) -> LeaseRow:
    return LeaseRow(
        **STAMP, at_s=at_s, lease_id=f"t#{number}", group_id="g", trial_id="t", attempt=number, device="cpu",
        devices=2, nodes=("n",), reason="lost", billed_s=1.0, phases_s={},
    )  # fmt: skip


def test_what_a_dead_driver_left_open_is_billed_up_to_its_last_row() -> None:
    # The bill of a lost attempt may come after the retry has begun.
    rows = [attempt(1, 10.0), attempt(2, 30.0), bill(1, 31.0)]
    (left,) = StudyState(rows).open_leases.values()
    assert (left.attempt, left.devices) == (2, 2)
    assert left.bill(40.0, "lost") == (12.0, {"setup": 2.0, "lost": 10.0, "idle": 0.0})
    assert not StudyState([*rows, bill(2, 41.0)]).open_leases


def test_an_attempt_that_died_in_setup_is_billed_as_lost() -> None:
    assert lease().bill(25.0, "lost") == (15.0, {"setup": 0.0, "lost": 15.0, "idle": 0.0})


def test_half_a_gpu_for_an_hour_is_half_a_device_hour() -> None:
    shared = attempt(1, 10.0).model_copy(update={"devices_per_rank": 0.25})
    (left,) = StudyState([shared]).open_leases.values()
    assert left.devices == 0.5  # two ranks of a quarter each
    row = bill(1, 31.0).model_copy(update={"device": "H100", "devices": left.devices, "billed_s": 3600.0})
    assert (row.billed_device_h, row.billed_gpu_h) == (0.5, 0.5)
