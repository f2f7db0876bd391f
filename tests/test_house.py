"""The structure of the package: its imports follow ARCHITECTURE.md, and its words the glossary."""

import ast
import re
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

import study
from tests.parallel import LONG, TOGETHER

ROOT = Path(study.__file__).parent
MAP, GUIDE = ((ROOT.parent / name).read_text() for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"))
MAY_IMPORT = {
    room: set(re.findall(r"[a-z]+", rooms))
    for room, rooms in re.findall(r"^\| ([a-z]+) \|[^|]*\|([^|]*)\|$", MAP, re.MULTILINE)
    if room != "room"
}
PURE = {"analysis", "config", "ledger", "pareto", "planning", "schedulers"}
GROUND = {"environment", "errors", "measurement", "safe_text"}  # modules that all rooms may import
HEAVY = {"ray", "torch", "lightning", "pytorch_lightning", "plotly"}
MODULES = sorted(ROOT.rglob("*.py"))


def imported(path: Path, members: bool = False) -> set[str]:
    """Return every module that a file imports, wherever in it; with `members` also what it imports from each."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            if members:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_is_known() -> None:
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    if room not in MAY_IMPORT:
        return
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "study" and len(parts) > 1 and parts[1] not in GROUND:
            assert parts[1] in MAY_IMPORT[room] | {room}, f"{room} must not import {module}"
        if room in PURE:
            assert parts[0] not in HEAVY, f"{room} must not import {module}"


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([a-z_/]+\.py:[\w.]+)`", MAP + GUIDE))))
def test_the_names_in_the_guides_exist(place: str) -> None:
    file, _, name = place.partition(":")
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for part in name.split("."):
        found = [node for node in body if part in _defined(node)]
        assert len(found) == 1, place
        body = getattr(found[0], "body", [])


def _defined(node: ast.stmt) -> set[str]:
    """Return the names that a statement gives to a class, a function or a value."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|txt))`", GUIDE))))
def test_the_files_in_the_guide_exist(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT.parent / path).exists()


@pytest.mark.parametrize("file", [*chain(*TOGETHER.values()), *LONG])
def test_the_files_that_pytest_xdist_runs_first_exist(file: str) -> None:
    assert (ROOT.parent / file).exists()


def test_figures_are_drawn_from_records_alone() -> None:
    from study.ledger import schema

    row_kinds = {
        name for name, value in vars(schema).items() if isinstance(value, type) and issubclass(value, schema.Row)
    }
    assert "ReportRow" in row_kinds
    for path in (ROOT / "reporting").rglob("*.py"):
        if "plotly" in {module.split(".")[0] for module in imported(path)}:
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & row_kinds, path


def test_no_circle_of_imports() -> None:
    files = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    imports = {
        name: {module for module in imported(path, members=True) if module in files and module not in (name, "study")}
        for name, path in files.items()
    }
    order = TopologicalSorter(imports)
    order.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_environment_variables_are_changed_in_one_place(path: Path) -> None:
    if path.name != "environment.py":
        assert not re.search(r"environ(\[[^\]]+\] = |\.(setdefault|update|pop)\()|putenv\(", path.read_text())


def unused_words() -> list[str]:
    """The first column of the last table in the glossary."""
    table = (ROOT.parent / "docs" / "glossary.md").read_text().split("## Words that are not used")[1]
    cells = re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE)
    return [word for cell in cells if cell != "not" for word in cell.split(", ")]


def test_words_that_are_not_used() -> None:
    words = unused_words()
    assert {"told", "anew", "is over"} <= set(words)
    pattern = re.compile(rf"(?<![A-Za-z])({'|'.join(words)})(?![A-Za-z])", re.IGNORECASE)
    texts = (path for suffix in ("py", "j2", "js", "css", "yaml") for path in ROOT.rglob(f"*.{suffix}"))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert not found
