"""The Dockerfile and the entrypoint: what linters and our own rules say, and that the rules bite."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from io import BytesIO
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker" / "Dockerfile").read_text()
SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|KEY", re.IGNORECASE)


def installed(program: str) -> str:
    """A linter beside this Python, or on the PATH. The test is skipped where pip has none for the machine."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return found


def hadolint(text: str) -> set[str]:
    """The codes of all that it says of a Dockerfile, hints included."""
    command = [installed("hadolint"), "--no-fail", "--format", "json", "-"]
    said = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return {finding["code"] for finding in json.loads(said)}


def own_rules(text: str) -> set[str]:
    """What hadolint does not look at."""
    parsed = DockerfileParser(fileobj=BytesIO(text.encode()))
    broken = set()
    users = [line["value"] for line in parsed.structure if line["instruction"] == "USER"]
    if not users or not users[-1].isdigit() or int(users[-1]) == 0:
        broken.add("user")  # by number: Kubernetes cannot tell of a name that it is not root
    if any(re.search(r":[^:]*\d+\.\d+\.\d+", image) is None for image in parsed.parent_images):
        broken.add("tag")
    for line in parsed.structure:
        if line["instruction"] in ("ENV", "ARG") and SECRET.search(line["value"]):
            broken.add("secret")
        if line["instruction"] == "ADD":
            broken.add("add")  # from elsewhere, unchecked; COPY does the rest
        if (
            line["instruction"] == "RUN"
            and "pip install" in line["value"]
            and "-c constraints.txt" not in line["value"]
        ):
            broken.add("unpinned")
    return broken


def test_the_dockerfile_is_clean() -> None:
    assert hadolint(TEXT) == own_rules(TEXT) == set()


@pytest.mark.parametrize(
    ("now", "then", "code"),
    [
        ("ARG BASE=python:3.11.12-slim-bookworm\n\nFROM ${BASE} AS wheel", "FROM python:latest AS wheel", "DL3007"),
        ("ARG BASE=python:3.11.12-slim-bookworm\n\nFROM ${BASE} AS wheel", "FROM python AS wheel", "DL3006"),
        ('ENTRYPOINT ["tini", "--", "entrypoint.sh"]', "ENTRYPOINT entrypoint.sh", "DL3025"),
        ("    && rm -rf /var/lib/apt/lists/*\n", "", "DL3009"),
        ("--no-install-recommends ", "", "DL3015"),
        ("tini=0.19.0-*", "tini", "DL3008"),
        ("pip install --no-cache-dir -c", "pip install -c", "DL3042"),
        ("USER 1000", "USER root", "DL3002"),
    ],
)
def test_hadolint_sees(now: str, then: str, code: str) -> None:
    text = TEXT.replace("# hadolint ignore=DL3008\n", "") if code == "DL3008" else TEXT
    assert now in text
    assert code in hadolint(text.replace(now, then))


@pytest.mark.parametrize(
    ("now", "then", "rule"),
    [
        ("USER 1000", "USER study", "user"),
        ("USER 1000", "USER 0", "user"),
        ("USER 1000\n", "", "user"),
        ("3.11.12-slim", "3.11-slim", "tag"),
        ("OMP_NUM_THREADS=1", "RAY_AUTH_TOKEN=abc", "secret"),
        ("COPY study study", "ADD https://example.com/study.tar.gz study", "add"),
        ("-c constraints.txt hatchling", "hatchling", "unpinned"),
    ],
)
def test_our_own_rules_see(now: str, then: str, rule: str) -> None:
    assert now in TEXT
    assert own_rules(TEXT.replace(now, then)) == {rule}


def test_the_entrypoint_is_clean() -> None:
    done = subprocess.run([installed("shellcheck"), ROOT / "docker" / "entrypoint.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_is_let_through(dockerfile: DockerfileParser) -> None:
    copied = set()
    for line in dockerfile.structure:
        words = line["value"].split()
        if line["instruction"] == "COPY" and not words[0].startswith("--from"):
            copied |= {word for word in words[:-1] if not word.startswith("--")}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists(), name


def test_its_python_is_one_of_ours(dockerfile: DockerfileParser) -> None:
    (version,) = {re.findall(r"python:([\d.]+)", image)[0] for image in dockerfile.parent_images}
    assert version in SpecifierSet(metadata("batch-frontier")["Requires-Python"])


@pytest.mark.parametrize("name", ["hatchling", "torch", "ray"])
def test_what_pip_is_asked_for_by_name_is_pinned(name: str) -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    (pin,) = [Requirement(line).specifier for line in lines if Requirement(line).name == name]
    assert [part.operator for part in pin] == ["=="]
