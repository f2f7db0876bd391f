"""What TensorBoard reads of a study, by its own reader, against the study's rows."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.sinks.studies import fake_rows, follow_all, run_fake, study_plan, unstamped
from tests.cluster.sinks.tensorboard_events import assert_told


def test_each_trial_is_a_run_with_its_curve_its_bill_and_its_outcome(tmp_path: Path) -> None:
    rows = run_fake(study_plan(tensorboard="boards"), tmp_path)
    assert unstamped(rows) == unstamped(fake_rows())
    assert_told(tmp_path / "boards", rows)


def test_a_resume_does_not_draw_anything_twice(tmp_path: Path) -> None:
    plan, rows = study_plan(tensorboard="boards"), fake_rows()
    for part in (len(rows) // 3, 2 * len(rows) // 3, len(rows), len(rows)):
        follow_all(plan, tmp_path, rows[:part])
    assert_told(tmp_path / "boards", rows)


def test_the_folder_may_lie_elsewhere(tmp_path: Path) -> None:
    follow_all(study_plan(tensorboard=str(tmp_path / "else" / "where")), tmp_path / "study", fake_rows())
    assert_told(tmp_path / "else" / "where", fake_rows())
    assert not (tmp_path / "study").exists()
