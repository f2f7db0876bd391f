"""Study files and price lists that are wrong: a plan or one clear line comes of them; no traceback, no cluster."""

from __future__ import annotations

import copy
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from study.analysis.forecast import forecast
from study.commands.shell import planned
from study.plan.errors import PlanError
from study.plan.estimate import Pace, price_plan
from study.plan.load import load_study, shipped_configs, to_yaml
from study.plan.trials import Plan
from tests.faults.conftest import Injections

OWN_MODEL = Path(__file__).parents[2] / "examples" / "own_model"
SHIPPED = {**shipped_configs(), "own_model": OWN_MODEL / "study.yaml"}
MOST_S = 60  # for one file; torch is imported for the first of a user's own


def outcome(path: Path, *overrides: str) -> str:
    """What `study check` says of a file before anything is measured: nothing of a plan, else its one line."""
    began_s = time.monotonic()
    try:
        plan = planned(path, list(overrides), "cluster", None)
    except PlanError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) <= 2000
        assert said.startswith((f"{path}", "--set"))
    else:
        said = ""
        check_usable(plan, path)
    assert time.monotonic() - began_s < MOST_S
    return said


def check_usable(plan: Plan, path: Path) -> None:
    """Its cost can be told, and the study's own copy of the file means the same study."""
    price = price_plan(plan, dict.fromkeys(plan.cells, Pace(1e-3, 1e-2)), ranks=4)
    assert price is not None
    assert 0 < price.device_h < float("inf")
    if plan.search:
        assert 0 < forecast(plan, dict.fromkeys(plan.cells, 1.0)).cost_fraction <= 1
    again = path.with_name("again.yaml")
    again.write_text(to_yaml(plan.config))
    assert load_study(again).config == plan.config


class Mutation(NamedTuple):
    """A study file with one thing changed, and what the line about it must say, if it must be refused."""

    data: Any
    says: str | None


def key_paths(data: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key and list item, at every depth."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from key_paths(value, (*at, key))


def with_holder(data: Any, at: tuple[str | int, ...]) -> tuple[Any, Any]:
    """A copy, and the part of it that holds a key path."""
    whole = holder = copy.deepcopy(data)
    for key in at[:-1]:
        holder = holder[key]
    return whole, holder


def replaced(data: Any, at: tuple[str | int, ...], value: Any) -> Any:
    whole, holder = with_holder(data, at)
    holder[at[-1]] = value
    return whole


def mutations(data: Any) -> Iterator[Mutation]:
    """Every key left out, of another type, of another sign, misspelt."""
    for at in key_paths(data):
        whole, holder = with_holder(data, at)
        value, name = holder.pop(at[-1]), re.escape(".".join(map(str, at)))
        yield Mutation(whole, None)
        for other in ("x", 7, 0.5, True, None, [], {}, [value], {"x": value}, str(value)):
            yield Mutation(replaced(data, at, other), None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield Mutation(replaced(data, at, -value), f": {name}: should be" if value else None)
        if isinstance(at[-1], str) and at[:-1] != ("variants",):
            whole, holder = with_holder(data, at)
            wrong = at[-1] + at[-1][-1]
            # In its old place: what stands first is blamed.
            items = [(wrong if key == at[-1] else key, value) for key, value in holder.items()]
            holder.clear()
            holder.update(items)
            where = re.escape(".".join(map(str, (*at[:-1], wrong))))
            # Among the keys of a variant the first of them says which may vary.
            hint = "cannot vary; allowed: " if at[0] == "variants" and len(at) == 3 else "unknown key; allowed: "
            yield Mutation(whole, rf"{where}:? {hint}.*{at[-1]}")


def check_mutations(name: str, chosen: Callable[[list[Mutation]], list[Mutation]], line: Injections, path: Path) -> int:
    """How many of the mutations of a shipped file were refused."""
    refused = 0
    for mutation in chosen(list(mutations(yaml.safe_load(SHIPPED[name].read_text())))):
        line.inject()
        path.write_text(yaml.safe_dump(mutation.data, sort_keys=False))
        said = outcome(path)
        if mutation.says is not None:
            assert re.search(mutation.says, said), (mutation, said)
        refused += bool(said)
        line.survived()
    return refused


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_with_one_thing_wrong_is_a_plan_or_one_line(
    name: str, tmp_path: Path, faults: Callable[[str], Injections], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(OWN_MODEL))
    chance = random.Random(name)
    refused = check_mutations(
        name, lambda some: chance.sample(some, 25), faults("config mutated"), tmp_path / "mutated.yaml"
    )
    assert refused > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_with_any_one_thing_wrong_is_a_plan_or_one_line(
    name: str, tmp_path: Path, faults: Callable[[str], Injections], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(OWN_MODEL))
    assert check_mutations(name, list, faults("config mutated"), tmp_path / "mutated.yaml") > 100
