"""docs/api.md: its examples run, and it describes every public name and every column."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import study
from tests.api.conftest import FROZEN

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "api.md").read_text()
EXAMPLES = re.findall(r"^```python( slow)?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(frozen: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two studies and a table, in which examples run."""
    for name in ("quickstart", "probes"):
        shutil.copytree(frozen(name), tmp_path / "runs" / name)
    shutil.copy(DOCS / "examples" / "batches.csv", tmp_path / "results.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_run_one_after_the_other(workplace: Path) -> None:
    names: dict[str, object] = {}
    ran = [code for slow, code in EXAMPLES if not slow]
    assert len(ran) > 10
    for code in ran:
        exec(compile(code, "docs/api.md", "exec"), names)
    assert (workplace / "frontier.html").stat().st_size > 10_000


@pytest.mark.slow
def test_examples_that_run_a_study(workplace: Path) -> None:
    names: dict[str, object] = {"study": study}
    for code in [code for slow, code in EXAMPLES if slow]:
        exec(compile(code, "docs/api.md", "exec"), names)
    results = names["results"]
    assert isinstance(results, study.StudyResults)
    assert len(results.points) == 2


def documented(section: str) -> set[str]:
    """The columns in the first cells of a section's table."""
    body = re.split(r"^##+ ", TEXT.split(f"### {section}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("name", sorted(path.parent.name for path in FROZEN.glob("*/config.yaml")))
def test_every_column_is_described(frozen: Callable[[str], Path], name: str) -> None:
    results = study.load(frozen(name))
    curves = [column for column in results.curves.columns if not column.startswith("probe_")]
    assert documented("curves") - {"probe_NAME"} == set(curves)
    assert documented("points") == set(results.points.columns)
    assert documented("trials") == set(results.trials.columns)
    assert documented("bill") == set(results.bill.columns)
    assert documented("claims") == set(results.claims().columns)


def test_every_public_name_is_described() -> None:
    for name in study.__all__:
        assert name == "__version__" or f"`study.{name}`" in TEXT or f"`{name}`" in TEXT, name
    for public in (study.StudyResults, study.StudyRecommendation, study.StudyComparison, study.TableResults):
        for attribute in [*vars(public), *getattr(public, "__annotations__", ())]:
            if not attribute.startswith("_"):
                assert re.search(rf"\b{attribute}\b", TEXT), f"{public.__name__}.{attribute}"
