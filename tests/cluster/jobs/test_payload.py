"""What is sent: this package, the config, the user's code and its neighbours, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.cluster.jobs.payload import code_of, pack
from study.config.loader import load_study
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.workloads.user_code.build import import_class
from tests.conftest import make_config

CLASSES = "class Net:\n    pass\n\n\nclass Data:\n    pass\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StudyConfig]]:
    """Writes files beside one another, imports the user's classes from them; the study's config."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(module: str, files: dict[str, str]) -> StudyConfig:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        import_class(f"{module}:Net", "module")
        workload = {"module": f"{module}:Net", "data": f"{module}:Data", "train_samples": 64}
        return make_config(workload=workload)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(config: StudyConfig, tmp_path: Path) -> set[str]:
    pack(config, code_of(config), tmp_path / "x.zip")
    return set(zipfile.ZipFile(tmp_path / "x.zip").namelist())


def users(config: StudyConfig, tmp_path: Path) -> set[str]:
    return {name for name in names(config, tmp_path) if not name.startswith("study/")}


def test_an_embedded_workload_sends_the_config_and_this_package(tmp_path: Path) -> None:
    sent = names(make_config(), tmp_path)
    assert {"config.yaml", "study/__main__.py", "study/config/prices.yaml"} <= sent
    assert not [name for name in sent if "__pycache__" in name or not name.startswith(("study/", "config.yaml"))]


def test_the_archive_runs_by_itself_from_an_empty_folder(tmp_path: Path) -> None:
    config = make_config()
    pack(config, code_of(config), tmp_path / "x.zip")
    zipfile.ZipFile(tmp_path / "x.zip").extractall(tmp_path / "job")
    code = "import study, study.config.price_list as p; print(study.__file__); p.read_prices()"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "job", capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path / "job")
    assert load_study(tmp_path / "job" / "config.yaml").config == config


def test_a_module_of_ones_own_brings_the_neighbours_that_it_imported(
    own: Callable[..., StudyConfig], tmp_path: Path
) -> None:
    one = f"import payload_two\nimport numpy\n{CLASSES}"
    config = own("payload_one", {"payload_one.py": one, "payload_two.py": "", "other.py": ""})
    assert users(config, tmp_path) == {"config.yaml", "payload_one.py", "payload_two.py"}


def test_a_package_comes_whole_without_caches_and_hidden_files(own: Callable[..., StudyConfig], tmp_path: Path) -> None:
    package = tmp_path / "payloadpkg"
    for name in ("data/words.txt", ".git/config", "__pycache__/x.pyc", "venv/pyvenv.cfg", "venv/big", ".env"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x")
    config = own("payloadpkg.models", {"payloadpkg/__init__.py": "", "payloadpkg/models.py": CLASSES})
    sent = users(config, tmp_path)
    assert sent == {"config.yaml", "payloadpkg/__init__.py", "payloadpkg/models.py", "payloadpkg/data/words.txt"}


def test_an_installed_package_is_left_to_the_cluster(tmp_path: Path) -> None:
    workload = {"module": "jinja2.environment:Environment", "data": "jinja2:Template", "train_samples": 1}
    code = code_of(make_config(workload=workload))
    assert code.installed == ("jinja2",)
    assert all(name.startswith("study/") for name in code.files)


def test_equal_content_is_an_equal_archive(tmp_path: Path) -> None:
    config = make_config()
    code = code_of(config)
    for name in ("a.zip", "b.zip"):
        pack(config, code, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_too_much_is_refused_and_the_largest_named(own: Callable[..., StudyConfig], tmp_path: Path) -> None:
    (tmp_path / "payloadbig").mkdir()
    (tmp_path / "payloadbig" / "images.bin").write_bytes(b"\0" * (3 << 20))
    config = own("payloadbig.models", {"payloadbig/__init__.py": "", "payloadbig/models.py": CLASSES})
    with pytest.raises(ConfigError, match=r"larger than the 0 MiB .* largest: payloadbig/images\.bin \(3\.0 MiB\), "):
        pack(config, code_of(config), tmp_path / "x.zip", limit_bytes=1000)


def test_data_are_named_as_the_nodes_see_them() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.path: data/cifar: .* give an absolute path"):
        code_of(make_config(workload={"kind": "cifar10", "path": "data/cifar"}))
    assert code_of(make_config(workload={"kind": "cifar10", "path": "/data/cifar"})).files
