"""The part of a study file that says how faults are met."""

from __future__ import annotations

from pydantic import Field

from study.plan.section import PositiveInt, Section


class Recovery(Section):
    """How faults are met. It is no part of what is studied: a study may go on under another one."""

    checkpoint_every_s: float = Field(
        60.0,
        ge=0,
        le=1e9,
        description="seconds between the checkpoints of a trial, taken at its reports; 0: at every report",
    )
    checkpoints: PositiveInt = Field(2, description="how many of its newest are kept of each trial that is not over")
    silent_s: float = Field(
        60.0,
        ge=1,
        le=1e9,
        description="seconds after which a rank that does not answer is lost: a stopped process or machine",
    )
    stuck_s: float = Field(
        1800.0,
        ge=1,
        le=1e9,
        description="seconds after which a group is lost that answers, but sets up and trains nothing",
    )
