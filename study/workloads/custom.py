"""Your own module and data, by import path."""

from __future__ import annotations

import importlib
from typing import Any

from study.plan.errors import PlanError, did_you_mean
from study.plan.workload import Custom


def import_class(path: str, key: str) -> type[Any]:
    """The class at `package.module:Class`. Raises PlanError, naming the config's `key`."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise PlanError(f"cannot import {module_name}: {type(error).__name__}: {error}", f"workload.{key}") from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise PlanError(f"{module_name} has no class {name}{did_you_mean(name, vars(module))}", f"workload.{key}")
    return found


def build_module(config: Custom) -> Any:
    """A fresh LightningModule."""
    return _build(config.module, "module", config.module_args)


def build_data(config: Custom, batch_size: int) -> Any:
    """A LightningDataModule that deals batches of `batch_size`."""
    return _build(config.data, "data", {**config.data_args, "batch_size": batch_size})


def _build(path: str, key: str, arguments: dict[str, Any]) -> Any:
    try:
        return import_class(path, key)(**arguments)
    except TypeError as error:
        raise PlanError(f"{path} does not take these arguments: {error}", f"workload.{key}") from error
