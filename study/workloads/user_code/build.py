"""A user's own module and data, by import path, and one-line errors where they do not fit."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import study
from study.config.workloads import Custom
from study.errors import ConfigError, DataError, did_you_mean
from study.safe_text import printable

_NOT_THE_USERS = (str(Path(study.__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
MOST_LETTERS = 300  # of what an exception says


@contextmanager
def user_code(key: str) -> Iterator[None]:
    """Within, whatever the user's code raises becomes a ConfigError that blames `key`; sys.exit too, which would end a
    command without a word. What is a ConfigError or DataError already, and Ctrl-C, pass as they are.
    """
    try:
        yield
    except (ConfigError, DataError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ConfigError(describe(error), key) from error


def describe(error: BaseException) -> str:
    """`IndexError: list index out of range (net.py:41)`: the last line of the user's own that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    first = text_of(error).partition("\n")[0]
    said = printable(first[:MOST_LETTERS]).strip()
    said += " ..." if len(first) > MOST_LETTERS else ""
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' + said if said else ''}{where}"


def text_of(error: BaseException) -> str:
    """Return an exception's text; an empty string where `str` of it raises."""
    try:
        return str(error).strip()
    except Exception:
        return ""


def import_class(path: str, key: str) -> type[Any]:
    """Return the class at `package.module:Class`. Raises ConfigError, naming the config's `key`."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's module raises while it is imported
        raise ConfigError(f"cannot import {module_name}: {describe(error)}", f"workload.{key}") from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise ConfigError(f"{module_name} has no class {name}{did_you_mean(name, vars(module))}", f"workload.{key}")
    return found


def build_module(config: Custom) -> Any:
    """Return a fresh LightningModule. Raises ConfigError."""
    module = _build(config.module, "module", "LightningModule", config.module_args)
    for method in ("training_step", "validation_step"):
        _check_overridden(module, method, "module", "LightningModule")
    if config.optimizer == "module":
        _check_overridden(module, "configure_optimizers", "module", "LightningModule")
    if not module.automatic_optimization:
        _check_by_hand(config)
    elif config.train_loss is not None:
        raise ConfigError(
            "is for a module that optimizes by hand: the loss is what training_step returns", "workload.train_loss"
        )
    return module


def _check_by_hand(config: Custom) -> None:
    """Raise ConfigError for settings that a module with `automatic_optimization = False` would ignore."""
    if config.optimizer != "module":
        raise ConfigError(
            "must be module: the module optimizes by hand (automatic_optimization = False), with its own optimizers; "
            "search.lr then lists factors of their rates",
            "workload.optimizer",
        )
    if config.loss_weight is not None:
        raise ConfigError(
            "the module optimizes by hand, and weights its losses itself; leave it out", "workload.loss_weight"
        )


def build_data(config: Custom, batch_size: int) -> Any:
    """Return a LightningDataModule that yields batches of `batch_size`. Raises ConfigError."""
    arguments = {**config.data_args, "batch_size": batch_size}
    data = _build(config.data, "data", "LightningDataModule", arguments)
    for method in ("train_dataloader", "val_dataloader"):
        _check_overridden(data, method, "data", "LightningDataModule")
    return data


def _build(path: str, key: str, kind: str, arguments: dict[str, Any]) -> Any:
    found = import_class(path, key)
    import pytorch_lightning

    if not issubclass(found, getattr(pytorch_lightning, kind)):
        other = any(base.__name__ == kind for base in found.__mro__)
        remedy = f"; it is of the package lightning: import {kind} from pytorch_lightning" if other else ""
        raise ConfigError(f"{path} is no {kind}{remedy}", f"workload.{key}")
    parameters = inspect.signature(found).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            purpose, known = "", list(parameters)
            if name == "batch_size":
                purpose = " with which a study sets the batch"
                known = [one for one in known if not re.match(r"(eval|val|valid|validation|test|predict)_", one)]
            raise ConfigError(f"{path} does not take {name}{purpose}{did_you_mean(name, known)}", f"workload.{key}")
    missing = [name for name, parameter in parameters.items() if _is_required(parameter) and name not in arguments]
    if missing:
        raise ConfigError(
            f"{path} requires {', '.join(missing)}: give {'it' if len(missing) == 1 else 'them'} here",
            f"workload.{key}_args",
        )
    with user_code(f"workload.{key}"):
        return found(**arguments)


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def _check_overridden(thing: Any, method: str, key: str, kind: str) -> None:
    import pytorch_lightning

    if getattr(type(thing), method) is getattr(getattr(pytorch_lightning, kind), method):
        raise ConfigError(f"{type(thing).__name__} has no {method}", f"workload.{key}")


def train_loader(data: Any) -> Any:
    """Return the training loader of a data module, set up under a Trainer of one rank. Raises ConfigError."""
    from pytorch_lightning import Trainer

    from study.workloads.user_code.loaders import single_loader

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # it would list the machine's devices
    data.trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    try:
        return single_loader(data.train_dataloader())
    except (RuntimeError, ValueError) as error:
        if "process group" not in str(error):
            raise
        raise ConfigError(
            "its train_dataloader needs a process group, which one rank does not have: leave DistributedSampler out "
            "(a study shares the data out), or give it trainer.world_size and trainer.global_rank",
            "workload.data",
        ) from error


def count_samples(config: Custom, batch_size: int) -> int:
    """Return the samples of the training set; builds and sets up the data module. Raises ConfigError."""
    from study.workloads.user_code.loaders import is_stream, samples_of

    data = build_data(config, batch_size)
    with user_code("workload.data"):
        loader = train_loader(data)
        if is_stream(loader):
            raise ConfigError(
                "is required: the training set is a stream, which has no length", "workload.train_samples"
            )
        return samples_of(loader)
