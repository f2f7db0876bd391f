"""A study file, with what `--set` changed in it, to a validated StudyConfig or one clear line."""

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

from study.config import yaml_reader as yamlfile
from study.config.price_list import priced
from study.config.schema import AshaConfig, FrontierAshaConfig, GridConfig, LogUniform, StudyConfig, merged
from study.config.workloads import Contrastive, Custom, Digits, ImageFolder, Teacher
from study.config.yaml_reader import Path_
from study.errors import ConfigError, DataError, did_you_mean
from study.safe_text import cut

# Names that pydantic puts into an error's location for the alternatives of a union.
_TAGS: dict[str, type[BaseModel] | None] = {
    "digits": Digits,
    "contrastive": Contrastive,
    "teacher": Teacher,
    **dict.fromkeys(("cifar10", "cifar100", "mnist", "fashion_mnist", "datasets"), ImageFolder),
    "custom": Custom,
    "range": LogUniform,
    "frontier_asha": FrontierAshaConfig,
    "asha": AshaConfig,
    "mo_asha": AshaConfig,
    "grid": GridConfig,
    "list": None,
    "one": None,
    "several": None,
    "auto": None,
    "samples": None,
}

_MOST_TOLD = 100  # letters of a value


def shipped_configs() -> dict[str, Path]:
    """The study files that come with the package, by bare name."""
    package = Path(__file__).resolve().parents[1]
    # An installed wheel carries them inside the package, a checkout beside it.
    folders = (package / "tune_configs", package.parent / "tune_configs")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """The file meant by a path, a path without `.yaml`, or the bare name of a shipped config."""
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
    """A validated study file that still knows where each key stands."""

    config: StudyConfig
    path: Path
    lines: Mapping[Path_, int] | None  # None of a study that no file holds
    overridden: Sequence[Path_]

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

    `overrides` are `key.path=value` with values as they would stand in the file. Raises ConfigError.
    """
    data, lines = yamlfile.read(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: a study file is a mapping of keys; `study init` writes one")
    return _checked(data, path, lines, overrides)


def _checked(
    data: dict[str, Any], path: Path, lines: Mapping[Path_, int] | None, overrides: Sequence[str]
) -> StudyFile:
    overridden = [_override(data, text) for text in overrides]
    config = _validate(data, lambda at: _place(at, lines, overridden, path))
    file = StudyFile(config, path, lines, overridden)
    with file.naming_places():
        return replace(file, config=config.model_copy(update={"price": priced(config.price, path.parent)}))


def study_from(config: Mapping[str, Any], overrides: Sequence[str] = (), folder: Path = Path()) -> StudyFile:
    """Validate a study that is written as a mapping with the keys of a study file; its price list is in `folder`.

    `overrides` are as in `load_study`. Raises ConfigError: `config: key: what is allowed`.
    """
    path = folder / "config"
    try:
        data: dict[str, Any] = json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"config: must hold plain values: {error}") from None
    return _checked(data, path, None, overrides)


def _override(data: dict[str, Any], text: str) -> Path_:
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    written = equals and all(re.fullmatch(r"[A-Za-z_]\w*", part) and len(part) <= yamlfile.MAX_KEY for part in path)
    if not written or len(path) > yamlfile.MAX_DEPTH:
        raise ConfigError(f"--set {cut(text, 100)}: write it as key.path=value, e.g. search.samples=4")
    *parents, last = path
    target = data
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {cut(text, 100)}: {parent} is not a section")
    target[last] = yamlfile.scalar(value, path)
    return path


def _place(at: Path_, lines: Mapping[Path_, int] | None, overridden: Iterable[Path_], path: Path) -> str:
    written = lines or {}
    for key in overridden:
        if at[: len(key)] == key or (at not in written and key[: len(at)] == at):
            return "--set"
    if lines is None:
        return path.name
    while at not in lines and at:
        at = at[:-1]
    return f"{path}:{lines.get(at, 1)}"


def _validate(data: dict[str, Any], place: Callable[[Path_], str]) -> StudyConfig:
    config = _model(data, lambda at: (place(at), at))
    base = {key: value for key, value in data.items() if key != "variants"}
    for variant in config.variants:
        # What is wrong with a variant stands where it changes something.
        at_variant: Path_ = ("variants", variant)

        def name(at: Path_, under: Path_ = at_variant) -> tuple[str, Path_]:
            return place((*under, *at)), (*under, *at)

        _model(merged(base, data["variants"][variant]), name)
    return config


def _model(data: dict[str, Any], name: Callable[[Path_], tuple[str, Path_]]) -> StudyConfig:
    """The config that `data` means; `name` tells place and full key path of one of its keys."""
    try:
        return StudyConfig.model_validate_json(json.dumps(data))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is also a missing one; the misspelling is what to tell.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        at = _location(first, data)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        where, full = name(at)
        key = ".".join(str(part) for part in full)
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{_message(first, at)}{more}") from None


def _location(error: ErrorDetails, data: Any) -> Path_:
    """The error's key path in the file: pydantic's location less the names it has for alternatives and keys."""
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


def _message(error: ErrorDetails, at: Path_) -> str:
    kind, context = error["type"], error.get("ctx", {})
    got = _got(error["input"])
    if kind == "extra_forbidden":
        known = _fields_of(error["loc"])
        return f"unknown key; allowed: {', '.join(known)}{did_you_mean(str(at[-1]), known)}"
    if kind == "missing":
        return "is required"
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = str(context.get("expected") or context.get("expected_tags", "")).replace("'", "")
        word = context.get("tag", error["input"])
        known = re.split(r", | or ", allowed)
        told = word if isinstance(word, str) and len(word) <= _MOST_TOLD else _got(word)
        return f"must be one of {', '.join(known)}; got {told}{did_you_mean(str(word), known)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch" and error["loc"][-1] == "[key]":
        return f"a variant's name is up to 40 letters, digits or any of + - . _, the first none of - . _; got {got}"
    if kind == "string_pattern_mismatch":
        return f"must be written package.module:Class; got {got}"
    if kind == "too_short":
        return f"must list at least {context['min_length']}"
    return f"{error['msg'].removeprefix('Input ')}; got {got}"


def _got(value: Any) -> str:
    """A value as an error tells it: of a long one, what it is."""
    if isinstance(value, dict | list):
        return "a section" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_TOLD else f"a text of {len(value):,} letters"


def _fields_of(loc: Sequence[str | int]) -> list[str]:
    """The keys allowed in the section that holds the key at `loc`."""
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
    """The config as a file that `load_study` reads back to an equal one."""
    plain = config.model_dump(mode="json", exclude_none=True)
    return yamlfile.dump(plain)


def config_hash(config: StudyConfig) -> str:
    """Return a hash that is equal for configs with an equal `studied` part, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(studied(config), sort_keys=True).encode()).hexdigest()


def studied(config: StudyConfig) -> dict[str, Any]:
    """Return the part of a config that results depend on, which a resume must not change."""
    return config.model_dump(mode="json", exclude={"limits", "recovery", "tracking"})
