"""The Dockerfile's install steps replayed: a wheel from the source, a fresh venv from the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

from study import __version__

ROOT = Path(__file__).parents[2]


def replay(dockerfile: DockerfileParser, root: Path) -> Path:
    """Runs the stages `wheel` and `venv` below `root`; returns the venv. A stage's Python is a fresh venv of its own.

    torch comes from where the project's own installation has it, through pip's cache: a download less.
    """
    stage, here, env = "", root, {}
    for line in dockerfile.structure:
        words = line["value"].split()
        if line["instruction"] == "FROM":
            if len(words) == 1:
                break  # the last stage only copies
            stage = words[-1]
            base = root / stage / "base"
            subprocess.run([sys.executable, "-m", "venv", base], check=True)
            env = os.environ | {"PATH": f"{base / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        elif line["instruction"] == "WORKDIR":
            here = moved(line["value"], root / stage)
            here.mkdir(parents=True, exist_ok=True)
        elif line["instruction"] == "COPY":
            source = ROOT
            if words[0].startswith("--from="):
                source = root / words.pop(0).removeprefix("--from=")
            for word in words[:-1]:
                copy(source / word.lstrip("/"), here / words[-1])
        elif line["instruction"] == "RUN":
            command = line["value"].replace("--no-cache-dir ", "").replace("/build", str(root / stage / "build"))
            command = command.replace("/opt/venv", str(root / stage / "opt" / "venv"))
            subprocess.run(["sh", "-ec", command], cwd=here, env=env, check=True)
    return root / "venv" / "opt" / "venv"


def moved(path: str, root: Path) -> Path:
    """An absolute path of the image, below `root`."""
    return root / path.lstrip("/")


def copy(source: Path, target: Path) -> None:
    """As COPY does: files into a folder, a folder's contents as one."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_install_steps(dockerfile: DockerfileParser, tmp_path: Path) -> None:
    venv = replay(dockerfile, tmp_path)
    python = str(venv / "bin" / "python")
    subprocess.run([python, "-m", "pip", "check"], check=True)

    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True).stdout
    found = {canonical(package["name"]): package["version"] for package in json.loads(listed)}
    assert found.pop("batch-frontier") == __version__
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#") and ((pin := Requirement(line)).marker is None or pin.marker.evaluate()):
            pins[canonical(pin.name)] = pin.specifier
    # The venv's own pip, and what a CUDA build of torch pins itself.
    loose = {name for name in set(found) - set(pins) if name != "pip" and not re.match(r"nvidia|triton|cuda", name)}
    assert not loose
    for name in set(found) & set(pins) - {"setuptools"}:  # a venv before Python 3.12 brings one
        assert pins[name].contains(found[name], prereleases=True), name

    # Neither the source nor a variable helps it: the wheel holds the presets.
    bare = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["study", "check", "quickstart", "--no-measure"], cwd=tmp_path, env=bare, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'quickstart'" in done.stdout
    for module in ("ray.dashboard.dashboard", "ray.dashboard.agent"):
        subprocess.run([python, "-c", f"import {module}"], cwd=tmp_path, env=bare, check=True)


def canonical(name: str) -> str:
    """As PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()
