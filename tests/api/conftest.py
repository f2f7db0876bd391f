"""Folders of the frozen studies, as `study run` left them."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from study.ledger.paths import StudyPaths

FROZEN = Path(__file__).parents[1] / "frozen"
NAMES = sorted(path.parent.name for path in FROZEN.glob("*/config.yaml"))


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a frozen study by its name, unpacked once."""
    root = tmp_path_factory.mktemp("frozen")

    def folder(name: str) -> Path:
        unpacked = root / name
        if not unpacked.exists():
            unpacked.mkdir()
            (unpacked / "config.yaml").write_bytes((FROZEN / name / "config.yaml").read_bytes())
            StudyPaths(unpacked).ledger.write_bytes(
                lzma.decompress((FROZEN / name / f"{StudyPaths.LEDGER}.xz").read_bytes())
            )
        return unpacked

    return folder
