"""Study files and price lists that are wrong: a plan or one clear line comes of them; no traceback, no cluster."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings

from study.analysis.early_stopping import forecast
from study.api.plans import recorded, repriced
from study.cli.common import planned
from study.config import yaml_reader as yamlfile
from study.config.loader import find_config, load_study, shipped_configs, to_yaml
from study.config.price_list import read_prices
from study.errors import ConfigError, DataError
from study.ledger.paths import StudyPaths
from study.planning.cost_estimate import Pace, estimate_plan
from study.planning.trials import Plan, make_plan
from tests.faults.conftest import Injections
from tests.faults.generated_studies import study_files

OWN_MODEL = Path(__file__).parents[2] / "examples" / "own_model"
SHIPPED = {**shipped_configs(), "own_model": OWN_MODEL / "study.yaml"}
MOST_S = 60  # for one file; torch is imported for the first of a user's own
MOST_KIB = 1 << 20  # likewise


@pytest.fixture(autouse=True, scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example's classes can be imported, from a copy: they write their data beside themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shutil.copytree(OWN_MODEL, tmp_path_factory.mktemp("own") / "model"))
        yield


def outcome(path: Path, *overrides: str) -> str:
    """What `study check` says of a file before anything is measured: nothing of a plan, else its one line."""
    began_s = time.monotonic()
    try:
        plan = planned(path, list(overrides), "cluster", None)
    except (ConfigError, DataError) as error:
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
    price = estimate_plan(plan, dict.fromkeys(plan.cells, Pace(1e-3, 1e-2)), ranks=4)
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
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Whatever else a key may hold beside a number, it is none of these.
        for other in ("x", True, {"x": value}, str(value), 10**30):
            yield Mutation(replaced(data, at, other), f": {name}" if is_number else None)
        for other in (7, 0.5, None, [], {}, [value]):
            yield Mutation(replaced(data, at, other), None)
        if is_number:
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
    name: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    chance = random.Random(name)
    refused = check_mutations(
        name, lambda some: chance.sample(some, 25), faults("config mutated"), tmp_path / "mutated.yaml"
    )
    assert refused > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_with_any_one_thing_wrong_is_a_plan_or_one_line(
    name: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    assert check_mutations(name, list, faults("config mutated"), tmp_path / "mutated.yaml") > 100


GOOD = """\
name: x
batch_sizes: [16, 64]
search: {lr: [0.1, 0.2]}
budget: {epochs: 3}
"""
CUSTOM = "workload: {module: net:Net, data: digits:Digits, train_samples: 1000, module_args: {a: %s}}\n"
LAUGHS = "\n".join(f"{b}: [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

# What is in the file, and what is said of it: nothing of a plan.
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "laughs": (f"a: &a [lol]\n{LAUGHS}\n", "aliases (*a) are not allowed"),
    "laughs with anchors": (re.sub(r"(\w): \[", r"\1: &\1 [", f"a: [lol]\n{LAUGHS}"), "aliases (*a) are not allowed"),
    "an alias of itself": ("name: &a [*a]", "aliases (*a) are not allowed"),
    "merge of an alias": (GOOD.replace("search: ", "search: &s ") + "confirm: {<<: *s}", "aliases (*s) are not"),
    "merge key": (GOOD + "confirm: {<<: {seeds: 2}}", "confirm.<<: unknown key; allowed: seeds"),
    "ten megabytes of comment": (GOOD + "# so it goes\n" * 800_000, "larger than 1,000,000 bytes"),
    # The first megabyte of it is a plan, without the limit at its end.
    "few letters of many bytes": (
        GOOD + f"# {'é' * 600_000}\nlimits: {{wall_h: 1}}\n", "larger than 1,000,000 bytes"
    ),
    "ten megabytes of name": (GOOD.replace("x", "x" * 10_000_000), "larger than 1,000,000 bytes"),
    "a long name": (GOOD.replace("x", "x" * 900_000), "name: String should have at most 80 characters; got a text of"),
    "a long word": (GOOD + f"report: {{cost: {'us' * 100_000}}}", "report.cost: must be one of billed_device_h, "),
    "a long key": (GOOD + f"confirm: {{{'k' * 1000}: 1}}", "confirm: a key of 1,000 letters; at most 100"),
    "many keys": (GOOD + "variants:\n" + "".join(f"  v{i}: {{}}\n" for i in range(40_000)), "more than 50,000 keys"),
    "many variants": (GOOD + "variants:\n" + "".join(f"  v{i}: {{}}\n" for i in range(101)), "at most 100 items"),
    "many rates": (GOOD.replace("0.1", ", ".join(map(str, range(1, 6000)))), "12,006 trials are more than the 10,000"),
    "deep lists": (GOOD + "variants: " + "[" * 100_000, "nested more than 20 deep"),
    "deep sections": (GOOD + "variants: " + "{a: " * 100_000, "nested more than 20 deep"),
    "deep by indents": (GOOD + "".join(" " * i + "a:\n" for i in range(1000)), "nested more than 20 deep"),
    "deep keys": ("? " * 100_000, "a key must be a word"),
    "a list as a key": ("[1, 2]: 3", "a key must be a word"),
    "given twice": (GOOD + "name: y", "name: given twice"),
    "given twice, once in quotes": (GOOD + "'name': y", "name: given twice"),
    "given twice, deep down": (GOOD + "confirm: {seeds: 1, seeds: 1}", "confirm.seeds: given twice"),
    "nan": (GOOD.replace("0.1", ".nan"), "search.lr.0: should be a finite number"),
    "infinity": (GOOD + "limits: {wall_h: .inf}", "limits.wall_h: should be a finite number"),
    "minus infinity": (GOOD + "limits: {wall_h: -.INF}", "limits.wall_h: should be a finite number"),
    "past infinity": (GOOD.replace("0.1", "1e999"), "search.lr.0: should be a finite number"),
    "nan of one's own": (GOOD + CUSTOM % ".nan", "workload.module_args.a: should be a finite number"),
    "nan of a variant": (GOOD + "variants: {a: {search: {lr: [.nan]}}}", "variants.a.search.lr.0: should be a finite"),
    "many digits": (GOOD + f"seed: {'9' * 5000}", "seed: a number of more than 100 digits"),
    "not UTF-8": (GOOD.encode() + b"# \xff", "not UTF-8 text"),
    "UTF-16": (GOOD.encode("utf-16"), "not UTF-8 text"),
    "NUL": (GOOD.replace("x", "x\x00"), "not YAML: "),
    "NUL in disguise": (GOOD.replace("x", '"x\\0"'), "name: a control code, U+0000, is not allowed"),
    "terminal codes": (GOOD.replace("x", '"\\e[2J"'), "name: a control code, U+001B, is not allowed"),
    "terminal codes in a key": (GOOD + '"\\e[2J": 1', "a control code, U+001B, is not allowed"),
    "half a letter": (GOOD.replace("x", '"\\ud800"'), "name: a control code, U+D800, is not allowed"),
    "no letter": (GOOD.replace("x", '"\\UFFFFFFFF"'), "not YAML: an escape that is no letter"),
    "tabs": (GOOD.replace("lr", "\n\tlr"), "not YAML: "),
    "tab indents": (GOOD + "confirm:\n\tseeds: 2", "not YAML: "),
    "two documents": (GOOD + "---\n" + GOOD, "a second document; a study is one"),
    "an object": ("!!python/object/apply:os.system [exit]", "tags (tag:yaml.org,2002:python/object/apply:os.system)"),
    "an object deep down": (GOOD + "seed: !!python/name:os.system", "seed: tags (tag:yaml.org,2002:python/name:os.sy"),
    "bytes": (GOOD.replace("x", "!!binary eA=="), "name: tags (tag:yaml.org,2002:binary) are not allowed"),
    "a tag of one's own": (GOOD.replace("x", "!mine x"), "name: tags (!mine) are not allowed"),
    "an empty file": ("", "a study file is a mapping of keys"),
    "a comment": ("# nothing\n", "a study file is a mapping of keys"),
    "a word": ("word", "a study file is a mapping of keys"),
    "a list": ("- name", "a study file is a mapping of keys"),
    "a secret": (GOOD + "price: {gpu_type: 'https://me:hunter2@host/?token=hunter2'}", "no on_demand price of https://***@"),
    "a billion seeds": (GOOD + "confirm: {seeds: 1000000000}", "trials are more than the 10,000 of a study"),
    "a billion rates": (GOOD.replace("[0.1, 0.2]", "{low: 1, high: 2}, samples: 1000000000"), "trials are more than"),
    "a billion reports": (
        GOOD.replace("epochs: 3", "updates: 1000000000, report_every_updates: 1"),
        "budget: 1,000,000,000 reports are more than the 2,000,000 of a study",
    ),
    "a giant batch": (GOOD.replace("64", "1000000000"), "batch_sizes: 1000000000 is above the 1197 training samples"),
    "a giant data set": (
        GOOD + "workload: {kind: teacher, train_samples: 1000000000}", "numbers that a synthetic data set may hold"
    ),
    "a giant of one's own": (
        GOOD.replace("64", "999999937") + CUSTOM.replace("1000", "1000000000") % 1 + "hardware: {micro_batch: 1}", ""
    ),
    "a giant network": (GOOD + "workload: {kind: digits, width: 1000000000}", "workload.width: should be less than"),
    "a date": (GOOD.replace("x", "2026-01-01"), ""),
    "words that were booleans": (GOOD.replace("x", "no"), ""),
    "numbers as a name": (GOOD.replace("x", "'1e3'"), ""),
    "letters of the world": (GOOD.replace("x", "学习 étude 🎓\u2028"), ""),
    "byte order mark": ("\ufeff" + GOOD, ""),
    "ends of lines": (GOOD.replace("\n", "\r\n"), ""),
    "an anchor alone": (GOOD.replace("x", "&a x"), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_refused_in_one_line(kind: str, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    text, says = HOSTILE[kind]
    line = faults("YAML hostile")
    line.inject()
    path = tmp_path / "hostile.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = outcome(path)
    assert says in said
    assert bool(said) == bool(says)
    assert "hunter2" not in said
    line.survived()


SETS = {
    "laughs": ("search.lr=[&a 1, *a]", "--set: search.lr.1: aliases (*a) are not allowed"),
    "deep value": ("search.lr=" + "[" * 1000, "--set: nested more than 20 deep"),
    "deep key": (".".join("k" * 1000) + "=1", "write it as key.path=value"),
    "ten megabytes": ("name=" + "x" * 10_000_000, "--set: larger than 1,000,000 bytes"),
    "a long value": ("name=" + "x" * 100_000, "--set: name: String should have at most 80 characters; got a text of"),
    "a long key": ("k" * 100_000 + "=1", "write it as key.path=value"),
    "twice": ("confirm={seeds: 1, seeds: 2}", "--set: confirm.seeds: given twice"),
    "nan": ("search.lr=[.nan]", "--set: search.lr.0: should be a finite number"),
    "many digits": ("seed=" + "9" * 5000, "--set: seed: a number of more than 100 digits"),
    "NUL": ("name=a\0", "--set: not YAML: "),
    "terminal codes": ('name="\\e"', "--set: name: a control code, U+001B, is not allowed"),
    "terminal codes in a key": ("na\x1bme=1", "--set na\\x1bme=1: write it as key.path=value"),
    "not UTF-8": ("name=\udcff", "--set: not YAML: "),
    "two documents": ("name=a\n---\nb", "--set: name: a second document"),
    "an object": ("name=!!python/name:os.system", "--set: name: tags (tag:yaml.org,2002:python/name:os.system)"),
    "no section": ("name.first=x", "--set name.first=x: name is not a section"),
    "nothing": ("", "--set : write it as key.path=value"),
    "no value": ("name=", "--set: name: should be a valid string; got null"),
    "a billion seeds": ("search.seeds=1000000000", "search: 4,000,000,006 trials are more than the 10,000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_a_hostile_set_is_refused_in_one_line(kind: str, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    override, says = SETS[kind]
    line = faults("YAML hostile")
    line.inject()
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    said = outcome(path, override)
    assert says in said
    line.survived()


@pytest.fixture(params=["folder", "pipe", "device", "loop", "memory", "long"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of something that cannot be read as a file is, or not to its end."""
    path = tmp_path / "it"
    if request.param == "folder":
        path.mkdir()
    if request.param == "pipe":
        os.mkfifo(path)
    if request.param == "loop":
        path.symlink_to(path)
    # Linux has a file that may be opened and not be read.
    return {"device": "/dev/zero", "memory": "/proc/self/mem", "long": "x" * 1000}.get(request.param, str(path))


def test_what_is_no_file_is_no_study_file_and_not_waited_for(no_file: str, faults: Callable[[str], Injections]) -> None:
    line = faults("YAML hostile")
    line.inject()
    with pytest.raises(ConfigError) as caught:
        planned(find_config(no_file), None, "cluster", None)
    assert str(caught.value).startswith(no_file[:199])
    line.survived()


def test_what_is_no_file_is_no_price_list_and_not_waited_for(
    no_file: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("YAML hostile")
    line.inject()
    path = tmp_path / "study.yaml"
    path.write_text(GOOD + f"price: {{gpu_type: H100-SXM-80GB, file: '{no_file}'}}")
    with pytest.raises(ConfigError) as caught:
        planned(path, None, "cluster", None)
    assert no_file in str(caught.value)
    line.survived()


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_price_that_is_none_is_refused_on_the_command_line(usd: float, faults: Callable[[str], Injections]) -> None:
    line = faults("config or price file damaged")
    line.inject()
    plan = make_plan(load_study(SHIPPED["quickstart"]).config)
    with pytest.raises(ConfigError, match=r"^--usd-per-device-hour: must be from 0 to 1,000,000; got "):
        repriced(plan, usd, None)
    line.survived()


WATCH = """\
import atexit, json, os, sys
@atexit.register
def tell():
    ray = sys.modules.get("ray")
    told = {"torch": "torch" in sys.modules, "ray": ray is not None and ray.is_initialized()}
    with open(os.environ["TELL"], "w") as file:
        json.dump(told, file)
"""


def check_refused_by_command(arguments: list[str], path: Path, folder: Path) -> None:
    """In a process of its own: exit code 2, one line, and neither torch nor a cluster has been needed for it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCH)
    (folder / "ray").mkdir()
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    environment = {"PYTHONPATH": paths, "TELL": str(folder / "told.json"), "RAY_TMPDIR": str(folder / "ray")}
    done = subprocess.run(
        [sys.executable, "-m", "study", *arguments[:1], str(path), *arguments[1:]],
        cwd=folder, capture_output=True, text=True, env=os.environ | environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"study: {path}")
    assert said.isprintable()
    assert json.loads((folder / "told.json").read_text()) == {"torch": False, "ray": False}
    assert not list((folder / "ray").iterdir())
    assert not (folder / "out").exists()


def commands(refused: list[str], tmp_path: Path, line: Injections) -> None:
    """`study check` and `study run` of each, two at a time."""

    def refuse(i: int) -> None:
        text = HOSTILE[refused[i]][0]
        path = tmp_path / f"{i}.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        check_refused_by_command(["run", "--out", "out"] if i % 2 else ["check"], path, tmp_path / f"folder{i}")

    line.inject(len(refused))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(refuse, range(len(refused))))
    line.survived(times=len(refused))


def test_the_command_says_it_in_one_line_and_starts_nothing(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    commands(["laughs", "terminal codes in a key"], tmp_path, faults("YAML hostile"))


@pytest.mark.thorough
def test_the_command_says_it_of_many_kinds_and_starts_nothing(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    kinds = [kind for kind, (_, says) in HOSTILE.items() if says]
    commands(random.Random(7).sample(kinds, 18), tmp_path, faults("YAML hostile"))


def memory_kib(name: str) -> int:
    """What Linux says of this process: VmRSS, what it holds; VmHWM, the most since its peak began."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[0])


def check_made_up(examples: int, folder: Path, line: Injections) -> None:
    """Some are plans and some are not; all are told in bounded time and memory."""
    good = [yaml.safe_load(path.read_text()) for path in shipped_configs().values()]
    plans: list[bool] = []

    # What fails is not made smaller: that would take longer than all the rest.
    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=study_files(good))
    def check(data: Any) -> None:
        line.inject()
        path = folder / "made_up.yaml"
        path.write_text(yamlfile.dump(data))
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the process's peak begins anew
        before_kib = memory_kib("VmRSS")
        said = outcome(path)
        assert memory_kib("VmHWM") - before_kib < MOST_KIB
        assert "hunter2" not in said
        plans.append(not said)
        line.survived()

    check()
    assert len(plans) >= examples
    assert 0.1 < sum(plans) / len(plans) < 0.9


def test_made_up_files_are_plans_or_one_line(tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    check_made_up(100, tmp_path, faults("config made up"))


@pytest.mark.thorough
def test_two_thousand_made_up_files_are_plans_or_one_line(tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    check_made_up(2000, tmp_path, faults("config made up"))


PRICES = """\
# Ours, as of the contract.
prices:
  - {gpu_type: H100-SXM-80GB, provider: us, purchase: on_demand, usd_per_device_hour: 1.5, source: contract,
     date: "2026-02-03"}
  - gpu_type: "L4-24GB"
    provider: us
    purchase: spot
    usd_per_device_hour: 2.5e-1
    source: Händler, mündlich
    date: 2026-02-03
"""
PRICED = GOOD + "price: {gpu_type: H100-SXM-80GB, provider: us, file: own.yaml}\n"


def damages(whole: bytes, prefixes: int, flips: int, chance: random.Random) -> Iterator[bytes]:
    """The file without its end, nothing at all included, and with a bit flipped."""
    for length in {0, *chance.sample(range(len(whole)), min(prefixes, len(whole)))}:
        yield whole[:length]
    for _ in range(flips):
        place = chance.randrange(len(whole))
        yield whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :]


def read_study_file(path: Path) -> str:
    """As `study check` reads the file that is damaged."""
    return outcome(path)


def read_own_copy(path: Path) -> str:
    """As all commands read the study's own copy in its folder."""
    try:
        check_usable(recorded(path.parent), path)
    except ConfigError as error:
        return str(error)
    return ""


def read_price_list(path: Path) -> str:
    """As a study's check and `study prices` read it: both, or neither."""
    study = path.with_name("priced.yaml")
    study.write_text(PRICED)
    said, refused = outcome(study), ""
    try:
        read_prices(path)
    except ConfigError as error:
        refused = str(error)
    # A good list may be of other GPUs.
    others = (f"{study}:5: price.gpu_type: no ", f"{study}:5: price.provider: several ")
    assert said == f"{study}:5: price.file: {refused}" if refused else said == "" or said.startswith(others)
    return refused


DAMAGED: dict[str, tuple[bytes, str, Callable[[Path], str]]] = {
    "study file": (SHIPPED["train_longer"].read_bytes(), "mine.yaml", read_study_file),
    "own copy": (to_yaml(load_study(SHIPPED["scaling"]).config).encode(), StudyPaths.CONFIG, read_own_copy),
    "price list": (PRICES.encode(), "own.yaml", read_price_list),
}


def check_damaged(kind: str, prefixes: int, flips: int, folder: Path, line: Injections) -> None:
    """A plan, or one line that begins with the file's name."""
    whole, name, read = DAMAGED[kind]
    path = folder / name
    path.write_bytes(whole)
    assert read(path) == ""
    refused = 0
    for damaged in damages(whole, prefixes, flips, random.Random(kind)):
        line.inject()
        path.write_bytes(damaged)
        said = read(path)
        assert said == "" or (said.startswith(str(path)) and said.isprintable()), damaged
        refused += bool(said)
        line.survived()
    assert refused > 0


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_read_or_named(kind: str, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    check_damaged(kind, 20, 40, tmp_path, faults("config or price file damaged"))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_cut_anywhere_or_with_any_bit_flipped_is_read_or_named(
    kind: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    check_damaged(kind, 400, 400, tmp_path, faults("config or price file damaged"))
