"""docker/README.md: its commands, paths, tags and names are those of the project."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from typer.main import get_command

from study import __version__
from study.cli.app import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker" / "README.md").read_text()
SHELL = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", "")
LINES = [words for line in SHELL.splitlines() if (words := shlex.split(line, comments=True))]


def test_paths_exist() -> None:
    paths = set(re.findall(r"(?<![\w/.])(?:docker|docs|tests|dashboards)/[\w./-]*\w", TEXT))
    assert len(paths) >= 8
    for path in paths:
        assert (ROOT / path).exists(), path


def test_tags_are_this_version() -> None:
    tags = re.findall(r"\bstudy:([\w.]+)(?:-cuda)?\b", TEXT)
    assert set(tags) == {__version__}


@pytest.mark.parametrize("words", [words for words in LINES if "study" in words], ids=" ".join)
def test_commands_of_ours_are_understood(words: list[str]) -> None:
    """As far as their arguments go: nothing is run."""
    verb, *arguments = words[words.index("study") + 1 :]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert commands[verb].make_context(verb, arguments)


def test_arguments_of_the_build_are_the_dockerfiles(dockerfile: DockerfileParser) -> None:
    known = {line["value"].partition("=")[0] for line in dockerfile.structure if line["instruction"] == "ARG"}
    table = set(re.findall(r"^\| `([A-Z_]+)`", TEXT, re.MULTILINE))
    given = {
        words[at + 1].partition("=")[0] for words in LINES for at, word in enumerate(words) if word == "--build-arg"
    }
    assert given <= table == known


def test_addresses_are_published(compose: dict[str, Any]) -> None:
    published = {
        port.rpartition(":")[0] for service in compose["services"].values() for port in service.get("ports", ())
    }
    assert set(re.findall(r"http://([\d.]+:\d+)", TEXT)) == published


def test_the_secret_is_the_manifests() -> None:
    (name,) = re.findall(r"create secret generic ([\w-]+) --from-literal=auth_token=", TEXT)
    for path in (ROOT / "docker" / "kuberay").glob("*.yaml"):
        *_, last = yaml.safe_load_all(path.read_text())
        spec = last["spec"].get("rayClusterSpec", last["spec"])
        assert spec["authOptions"]["secretName"] == name
        assert f"create secret generic {name} " in path.read_text()
