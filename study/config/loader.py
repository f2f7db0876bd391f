"""Read a study file with the changes of `--set` into a validated StudyConfig, or report one clear line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from study.config import yaml_reader
from study.config.price_list import priced
from study.config.schema import AshaConfig, FrontierAshaConfig, GridConfig, LogUniform, RidgeConfig, StudyConfig, merged
from study.config.workloads import Contrastive, Custom, Digits, ImageFolder, Teacher, Text
from study.config.yaml_reader import KeyPath
from study.errors import ConfigError, DataError, did_you_mean
from study.safe_text import cut

# Names that pydantic puts into an error's location for the alternatives of a union.
_TAGS: dict[str, type[BaseModel] | None] = {
    "digits": Digits,
    "contrastive": Contrastive,
    "teacher": Teacher,
    **dict.fromkeys(("cifar10", "cifar100", "mnist", "fashion_mnist", "datasets"), ImageFolder),
    "text": Text,
    "custom": Custom,
    "range": LogUniform,
    "frontier_asha": FrontierAshaConfig,
    "ridge": RidgeConfig,
    "asha": AshaConfig,
    "mo_asha": AshaConfig,
    "grid": GridConfig,
    "list": None,
    "one": None,
    "several": None,
    "auto": None,
    "samples": None,
}

# What other trainers call a key.
_CALLED_ELSEWHERE = {"gradient_clip_val": "clip_norm", "max_grad_norm": "clip_norm", "epsilon": "eps"}

_MOST_SHOWN = 100  # letters of a value in a message


def shipped_configs() -> dict[str, Path]:
    """Return the study files that come with the package, by bare name."""
    package = Path(__file__).resolve().parents[1]
    # An installed wheel carries them inside the package, a checkout beside it.
    folders = (package / "tune_configs", package.parent / "tune_configs")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file of a path, of a path without `.yaml`, or of the bare name of a shipped config.

    Raises ConfigError if there is none.
    """
    shipped = shipped_configs()
    stem = Path(name).stem
    try:
        for path in (Path(name), Path(f"{name}.yaml")):
            if path.is_file():
                return path
        if stem in shipped and Path(name).parent.name in ("", "tune_configs"):
            return shipped[stem]
        what = "is not a file" if Path(name).exists() else "no such file"
    except OSError as error:
        what = str(error.strerror)
    raise ConfigError(
        f"{cut(name, 200)}: {what}, nor a shipped config{did_you_mean(stem, shipped)}; shipped: {', '.join(shipped)}"
    )


@dataclass(frozen=True)
class StudyFile:
    """A validated study file with the line of each key."""

    config: StudyConfig
    path: Path
    lines: Mapping[KeyPath, int] | None  # from 1; None for a study without a file
    overridden: Sequence[KeyPath]  # by `--set`

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """Within, put file and line in front of a ConfigError or DataError that blames a key."""
        try:
            yield
        except (ConfigError, DataError) as error:
            if not error.key:
                raise
            place = _place(tuple(error.key.split(".")), self.lines, self.overridden, self.path)
            raise type(error)(f"{place}: {error}") from error.__cause__


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Read, override and validate a study file.

    `overrides` are `key.path=value` with values written as in the file. Raises ConfigError.
    """
    data, lines = yaml_reader.read(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: a study file is a mapping of keys; `study init` writes one")
    return _checked(data, path, lines, overrides)


def _checked(
    data: dict[str, Any], path: Path, lines: Mapping[KeyPath, int] | None, overrides: Sequence[str]
) -> StudyFile:
    overridden = [_override(data, text) for text in overrides]
    config = _validate(data, lambda at: _place(at, lines, overridden, path))
    file = StudyFile(config, path, lines, overridden)
    with file.naming_places():
        return replace(file, config=config.model_copy(update={"price": priced(config.price, path.parent)}))


def study_from(config: Mapping[str, Any], overrides: Sequence[str] = (), folder: Path = Path()) -> StudyFile:
    """Validate a study given as a mapping with the keys of a study file; its price list is in `folder`.

    `overrides` are as in `load_study`. Raises ConfigError: `config: key: what is allowed`.
    """
    path = folder / "config"
    try:
        data: dict[str, Any] = json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"config: must hold plain values: {error}") from None
    return _checked(data, path, None, overrides)


def _override(data: dict[str, Any], text: str) -> KeyPath:
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    written = equals and all(re.fullmatch(r"[A-Za-z_]\w*", part) and len(part) <= yaml_reader.MAX_KEY for part in path)
    if not written or len(path) > yaml_reader.MAX_DEPTH:
        raise ConfigError(f"--set {cut(text, 100)}: write it as key.path=value, e.g. search.samples=4")
    *parents, last = path
    target = data
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {cut(text, 100)}: {parent} is not a section")
    target[last] = yaml_reader.scalar(value, path)
    return path


def _place(at: KeyPath, lines: Mapping[KeyPath, int] | None, overridden: Iterable[KeyPath], path: Path) -> str:
    written = lines or {}
    for key in overridden:
        if at[: len(key)] == key or (at not in written and key[: len(at)] == at):
            return "--set"
    if lines is None:
        return path.name
    while at not in lines and at:
        at = at[:-1]
    return f"{path}:{lines.get(at, 1)}"


def _validate(data: dict[str, Any], place: Callable[[KeyPath], str]) -> StudyConfig:
    config = _model(data, lambda at: (place(at), at))
    base = {key: value for key, value in data.items() if key != "variants"}
    for variant in config.variants:
        # An error of a variant is reported at the line where the variant changes something.
        at_variant: KeyPath = ("variants", variant)

        def name(at: KeyPath, under: KeyPath = at_variant) -> tuple[str, KeyPath]:
            return place((*under, *at)), (*under, *at)

        _model(merged(base, data["variants"][variant]), name)
    return config


def _model(data: dict[str, Any], name: Callable[[KeyPath], tuple[str, KeyPath]]) -> StudyConfig:
    """Return the config that `data` means; `name` returns place and full key path of one of its keys, for errors."""
    try:
        return StudyConfig.model_validate_json(json.dumps(data))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is also a missing one; report the misspelling.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        at = _location(first, data)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        where, full = name(at)
        key = ".".join(str(part) for part in full)
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{_message(first, at)}{more}") from None


def _location(error: ErrorDetails, data: Any) -> KeyPath:
    """Return an error's key path in the file: pydantic's location without its names of alternatives and keys."""
    at: list[str | int] = []
    here: Any = data
    for part in error["loc"]:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            if part in _TAGS or part == "[key]":
                continue
            here = None
        at.append(part)
    return tuple(at)


def _message(error: ErrorDetails, at: KeyPath) -> str:
    kind, context = error["type"], error.get("ctx", {})
    got = _got(error["input"])
    if kind == "extra_forbidden":
        known = _fields_of(error["loc"])
        key = str(at[-1])
        return f"unknown key; allowed: {', '.join(known)}{did_you_mean(_CALLED_ELSEWHERE.get(key, key), known)}"
    if kind == "missing":
        return "is required"
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = str(context.get("expected") or context.get("expected_tags", "")).replace("'", "")
        word = context.get("tag", error["input"])
        known = re.split(r", | or ", allowed)
        shown = word if isinstance(word, str) and len(word) <= _MOST_SHOWN else _got(word)
        return f"must be one of {', '.join(known)}; got {shown}{did_you_mean(str(word), known)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch" and error["loc"][-1] == "[key]":
        return f"a variant's name is up to 40 letters, digits or any of + - . _, the first none of - . _; got {got}"
    if kind == "string_pattern_mismatch":
        module, dot, name = str(error["input"]).rpartition(".")
        meant = f" (did you mean {module}:{name}?)" if dot and ":" not in module and name[:1].isupper() else ""
        return f"must be written package.module:Class; got {got}{meant}"
    if kind == "too_short":
        return f"must list at least {context['min_length']}"
    return f"{error['msg'].removeprefix('Input ')}; got {got}"


def _got(value: Any) -> str:
    """Return a value for a message; a long one only by its type and length."""
    if isinstance(value, dict | list):
        return "a section" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"a text of {len(value):,} letters"


def _fields_of(loc: Sequence[str | int]) -> list[str]:
    """Return the keys allowed in the section that holds the key at `loc`."""
    model: Any = StudyConfig
    for part in loc[:-1]:
        if isinstance(part, str) and _TAGS.get(part) is not None:
            model = _TAGS[part]
        elif isinstance(part, str) and model is not None and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            sections = (one for one in (annotation, *get_args(annotation)) if isinstance(one, type))
            model = next((one for one in sections if issubclass(one, BaseModel)), None)  # it may also be None
    return list(model.model_fields) if model else []


def to_yaml(config: StudyConfig) -> str:
    """Return the config as YAML that `load_study` reads back to an equal config."""
    plain = config.model_dump(mode="json", exclude_none=True)
    return yaml_reader.dump(plain)


def config_hash(config: StudyConfig) -> str:
    """Return a hash that is equal for configs with an equal `studied` part, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(studied(config), sort_keys=True).encode()).hexdigest()


def studied(config: StudyConfig) -> dict[str, Any]:
    """Return the part of a config that results depend on, which a resume must not change."""
    return config.model_dump(mode="json", exclude={"limits", "recovery", "tracking"})
