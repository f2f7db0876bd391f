"""The two Lightning packages: `pytorch_lightning`, and `lightning`, whose classes are others of the same names."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType, new_class
from typing import Any, TypeVar

_MODULES = {
    "pytorch_lightning": ("pytorch_lightning", "lightning_fabric"),
    "lightning": ("lightning.pytorch", "lightning.fabric"),
}
T = TypeVar("T")


@dataclass(frozen=True)
class LightningPackage:
    """One of the two. A trial uses that of its module throughout, since neither knows the classes of the other."""

    name: str  # as in `import lightning as L`
    pytorch: ModuleType  # with Trainer, callbacks, strategies
    fabric: ModuleType


@cache
def lightning_package(name: str = "pytorch_lightning") -> LightningPackage:
    """Import a package, and silence its messages to people who write training scripts: each trial would repeat them."""
    pytorch, fabric = (import_module(module) for module in _MODULES[name])
    for module in (pytorch, fabric):
        logging.getLogger(module.__name__).setLevel(logging.ERROR)
    return LightningPackage(name, pytorch, fabric)


def package_of(found: type, kind: str) -> LightningPackage | None:
    """Return the package whose class `kind`, such as LightningModule, a class is derived from; None if it is of
    neither.
    """
    for name, (module_name, _) in _MODULES.items():
        module = sys.modules.get(module_name)  # imported by who derived a class from it
        if module is not None and issubclass(found, getattr(module, kind)):
            return lightning_package(name)
    return None


@cache
def derived(own: type[T], base: type[Any]) -> type[T]:
    """Return a class of this package's, made a subclass of one of Lightning's: its own methods come first."""
    return new_class(own.__name__, (own, base))
