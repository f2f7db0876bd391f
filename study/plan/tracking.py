"""The part of a study file that says who else is told what the ledger says."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from study.plan.errors import masked
from study.plan.section import Section


class Tracking(Section):
    """Who else is told. It is no part of what is studied: a study may go on under another one."""

    mlflow: str | None = Field(
        None, min_length=1, description="address of an MLflow server; each trial is a run there (extra: tracking)"
    )
    tensorboard: str | None = Field(
        None,
        min_length=1,
        description="a folder for TensorBoard, a run for each trial; within the study's own, or any absolute path",
    )

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, uri: str | None) -> str | None:
        if uri is not None and masked(uri) != uri:
            raise ValueError(
                "must not hold what authorizes: MLflow takes it from MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return uri

    @field_validator("tensorboard")
    @classmethod
    def _stays_within(cls, folder: str | None) -> str | None:
        if folder is not None and ".." in Path(folder).parts:
            raise ValueError("must not climb out with ..; an absolute path may lie anywhere")
        return folder
