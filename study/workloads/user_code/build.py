"""A user's own module and data, by import path, and one-line errors where they do not fit."""

from __future__ import annotations

import importlib
import inspect
import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import study
from study.config.workloads import Custom
from study.errors import ConfigError, DataError, did_you_mean
from study.safe_text import printable
from study.workloads.user_code.lightning_package import LightningPackage, derived, package_of
from study.workloads.user_code.silent_logger import SilentLogger

_NOT_THE_USERS = (str(Path(study.__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
MOST_LETTERS = 300  # of what an exception says
_LOADERS = ("train_dataloader", "val_dataloader")
_NOT_OF_TRAINING = re.compile(r"(^|\.)(eval|val|valid|validation|test|predict)_")


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


def lightning_of(config: Custom) -> LightningPackage:
    """Return the package that the module is of, which data and callbacks must be of too. Raises ConfigError."""
    return _class_of(config.module, "module", "LightningModule")[1]


def build_module(config: Custom, batch_size: int) -> Any:
    """Return a fresh LightningModule, which is given the batch size if it takes it. Raises ConfigError."""
    found, lightning = _class_of(config.module, "module", "LightningModule")
    own_loaders, base = _has_own_loaders(config), lightning.pytorch.LightningModule
    needed = ["training_step", "validation_step"]
    needed += ["configure_optimizers"] if config.optimizer == "module" else []
    _check_overridden(found, base, needed, "module")
    if own_loaders:
        _check_overridden(found, base, _LOADERS, "module", ", and workload.data names no LightningDataModule")
        if config.data_args:
            raise ConfigError(
                "are for a data module, and the module has the loaders: give module_args", "workload.data_args"
            )
    arguments = _module_arguments(config, found, batch_size)
    module = _build(found, config.module, "module", arguments, config.batch_size_key if own_loaders else None)
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


def build_data(config: Custom, batch_size: int) -> Any | None:
    """Return a LightningDataModule that yields batches of `batch_size`; None if the module has loaders of its own.
    Raises ConfigError.
    """
    if config.data is None or _has_own_loaders(config):
        return None
    found, lightning = _class_beside(config, config.data, "data", "LightningDataModule")
    _check_overridden(found, lightning.pytorch.LightningDataModule, _LOADERS, "data")
    arguments = _with_batch_size(config.data_args, config.batch_size_key, batch_size, "data")
    return _build(found, config.data, "data", arguments, config.batch_size_key)


def build_callbacks(config: Custom) -> list[Any]:
    """Return fresh callbacks, those that the study file names. Raises ConfigError."""
    return [
        _build(_class_beside(config, one.path, "callbacks", "Callback")[0], one.path, "callbacks", one.args)
        for one in config.callbacks
    ]


def _class_of(path: str, key: str, kind: str) -> tuple[type[Any], LightningPackage]:
    """Return a class of the user's, and the package whose `kind` it is derived from. Raises ConfigError."""
    found = import_class(path, key)
    lightning = package_of(found, kind)
    if lightning is None:
        namesake = any(base.__name__ == kind for base in found.__mro__)
        remedy = f"; import {kind} from lightning or pytorch_lightning" if namesake else ""
        raise ConfigError(f"{path} is no {kind}{remedy}", f"workload.{key}")
    return found, lightning


def _class_beside(config: Custom, path: str, key: str, kind: str) -> tuple[type[Any], LightningPackage]:
    """Return what `_class_of` does. Raises ConfigError for a class of another package than the module."""
    found, lightning = _class_of(path, key, kind)
    if lightning != (of_module := lightning_of(config)):
        raise ConfigError(
            f"{path} is of {lightning.name}, and {config.module} of {of_module.name}, which do not work together: "
            "import both from one of them",
            f"workload.{key}",
        )
    return found, lightning


def _has_own_loaders(config: Custom) -> bool:
    """Return whether the study takes its data from the module: no other class is named for them."""
    return config.data is None or import_class(config.data, "data") is import_class(config.module, "module")


def _module_arguments(config: Custom, found: type[Any], batch_size: int) -> dict[str, Any]:
    """Return the arguments of the module, with the batch size where it takes it or has the loaders itself."""
    key, arguments = config.batch_size_key, config.module_args
    section, _, name = key.rpartition(".")
    if _has_own_loaders(config) or (section and isinstance(arguments.get(section.partition(".")[0]), dict)):
        arguments = _with_batch_size(arguments, key, batch_size, "module")
    if name in inspect.signature(found).parameters:
        arguments = {**arguments, name: batch_size}
    return arguments


def _with_batch_size(arguments: dict[str, Any], key: str, batch_size: int, of: str) -> dict[str, Any]:
    """Return the arguments with the batch size at a key such as `batch_size`, or `loader.batch_size` in a section."""
    first, dot, rest = key.partition(".")
    if not dot:
        return {**arguments, first: batch_size}
    section = arguments.get(first, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{first} in workload.{of}_args is not a section", "workload.batch_size_key")
    return {**arguments, first: _with_batch_size(section, rest, batch_size, of)}


def _build(found: type[Any], path: str, key: str, arguments: dict[str, Any], batch_size_key: str | None = None) -> Any:
    """Return an object of a user's class. `batch_size_key` is the key of the argument that the study adds, if any."""
    parameters = inspect.signature(found).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if unknown := [name for name in arguments if name not in parameters and not takes_any]:
        said, known = f"{path} does not take {unknown[0]}", list(parameters)
        if batch_size_key is not None and unknown[0] == batch_size_key.partition(".")[0]:
            said += ", with which a study sets the batch; workload.batch_size_key names another argument"
            known = [one for one in (*parameters, *_dotted(arguments)) if not _NOT_OF_TRAINING.search(one)]
        known = [one for one in known if one not in unknown]
        raise ConfigError(said + did_you_mean(unknown[0], known), f"workload.{key}")
    missing = [name for name, parameter in parameters.items() if _is_required(parameter) and name not in arguments]
    if missing:
        raise ConfigError(
            f"{path} requires {', '.join(missing)}: give {'it' if len(missing) == 1 else 'them'} here",
            f"workload.{key}_args" if key != "callbacks" else "workload.callbacks",
        )
    with user_code(f"workload.{key}"):
        return found(**{name: _sections(value) for name, value in arguments.items()})


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def _dotted(arguments: dict[str, Any], before: str = "") -> Iterator[str]:
    """Yield the keys of sections within arguments, as `section.key`."""
    for key, value in arguments.items():
        if isinstance(value, dict):
            yield from (f"{before}{key}.{inner}" for inner in value)
            yield from _dotted(value, f"{before}{key}.")


class _Section(dict[str, Any]):
    """A section within arguments, which user code reads as `section["key"]` or as `section.key`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


def _sections(value: Any) -> Any:
    """Return a copy of an argument in which each mapping is a `_Section`."""
    if isinstance(value, dict):
        return _Section({key: _sections(one) for key, one in value.items()})
    return [_sections(one) for one in value] if isinstance(value, list) else value


def _check_overridden(found: type[Any], base: type[Any], methods: Sequence[str], key: str, reason: str = "") -> None:
    """Raise ConfigError for a method that a user's class takes from Lightning's `base` as it is."""
    for method in methods:
        if getattr(found, method) is getattr(base, method):
            raise ConfigError(f"{found.__name__} has no {method}{reason}", f"workload.{key}")


def train_loader(config: Custom, batch_size: int) -> Any:
    """Return the training loader of fresh data, set up under a Trainer of one rank. Raises ConfigError."""
    from study.workloads.user_code.loaders import single_loader

    data, lightning = build_data(config, batch_size), lightning_of(config).pytorch
    if data is None:
        data = build_module(config, batch_size)
    data.trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=derived(SilentLogger, lightning.loggers.Logger)(),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
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
    """Return the samples of the training set; builds and sets up the data. Raises ConfigError."""
    from study.workloads.user_code.loaders import is_stream, samples_of

    with user_code("workload.data"):
        loader = train_loader(config, batch_size)
        if is_stream(loader):
            raise ConfigError(
                "is required: the training set is a stream, which has no length", "workload.train_samples"
            )
        return samples_of(loader)
