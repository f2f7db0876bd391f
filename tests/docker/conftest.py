"""The files under test, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dockerfile() -> DockerfileParser:
    """The Dockerfile; its `structure` lists the instructions."""
    return DockerfileParser(str(ROOT / "docker" / "Dockerfile"))


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """compose.yaml, anchors merged."""
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
