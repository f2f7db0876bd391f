"""The archive that a job runs in: the study file, this package and the user's code; dependencies are on the nodes."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

import study
from study.config.loader import to_yaml
from study.config.schema import StudyConfig
from study.config.workloads import Custom
from study.errors import ConfigError
from study.ledger.paths import StudyPaths

LIMIT_BYTES = DASHBOARD_CLIENT_MAX_SIZE  # of one request to the head
MIB = 1 << 20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # equal content makes an equal archive, which Ray uploads once


@dataclass(frozen=True)
class Code:
    """Files to send by their names in the archive, and packages that the nodes must have."""

    files: dict[str, Path]
    installed: tuple[str, ...]  # the user's packages that are installed here, not sent: the nodes must have them


def code_of(config: StudyConfig) -> Code:
    """Return the files of this package, of the user's modules, and of imported modules in the same folders.

    The user's classes must have been imported. Raises ConfigError for a package in several folders, and for data that
    the study file names by a relative path.
    """
    for name in config.variant_names:
        data = getattr(config.variant(name).workload, "path", None)
        if data is not None and not Path(data).is_absolute():
            raise ConfigError(
                f"{data}: a submitted study reads it on the nodes; give an absolute path", "workload.path"
            )
    package = Path(study.__file__).resolve().parent
    files = dict(_below(package, package.parent))
    installed = set()
    for name in sorted(_top_levels(config)):
        location = _location(name)
        if _is_installed(location):
            installed.add(name)
            continue
        for neighbour in _neighbours(location.parent) | {name}:
            at = _location(neighbour)
            files.update(_below(at, at.parent) if at.is_dir() else [(at.name, at)])
    return Code(files, tuple(sorted(installed)))


def pack(config: StudyConfig, code: Code, archive: Path, limit_bytes: int = LIMIT_BYTES) -> int:
    """Write the archive that becomes a job's working directory, and return its size in bytes.

    Equal content gives equal bytes. Raises ConfigError if it is too large for Ray's head.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        _write(packed, StudyPaths.CONFIG, to_yaml(config).encode())
        for name, path in sorted(code.files.items()):
            _write(packed, name, path.read_bytes())
            if archive.stat().st_size >= limit_bytes:
                break
    size = archive.stat().st_size
    if size >= limit_bytes:
        raise ConfigError(
            f"the upload is larger than the {limit_bytes / MIB:.0f} MiB that Ray's head takes; largest: "
            f"{', '.join(_largest(code.files))}; put data on the nodes, not into a package"
        )
    return size


def _write(packed: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    packed.writestr(entry, content)


def _largest(files: dict[str, Path]) -> Iterator[str]:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name])[:3]:
        yield f"{name} ({sizes[name] / MIB:.1f} MiB)"


def _top_levels(config: StudyConfig) -> set[str]:
    workloads = [config.variant(name).workload for name in config.variant_names]
    paths = [path for one in workloads if isinstance(one, Custom) for _, path in one.import_paths]
    return {path.partition(":")[0].partition(".")[0] for path in paths} - {study.__name__}


def _location(name: str) -> Path:
    """Return the folder of a package, or the file of a module."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} has been imported"
    folders = list(spec.submodule_search_locations or ())
    if len(folders) > 1:
        raise ConfigError(
            f"{name} lies in several folders, {' and '.join(folders)}: give it an __init__.py", "workload"
        )
    return Path(folders[0] if folders else spec.origin or "").resolve()


def _is_installed(path: Path) -> bool:
    paths = sysconfig.get_paths()
    return any(path.is_relative_to(Path(paths[key]).resolve()) for key in ("purelib", "platlib", "stdlib"))


def _neighbours(root: Path) -> set[str]:
    """Return the top-level modules that were imported from a folder: a user's module may import its neighbours."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name in ("__main__", study.__name__) or not file:
            continue
        path = Path(file).resolve()
        path = path.parent if path.name == "__init__.py" else path
        if path.parent == root and not _is_installed(path):
            found.add(name)
    return found


def _below(folder: Path, root: Path) -> Iterable[tuple[str, Path]]:
    """Yield a package's files, without caches, hidden files, virtual environments and links out of the package."""
    for at, folders, names in os.walk(folder):
        here = Path(at)
        folders[:] = [
            name
            for name in folders
            if name != "__pycache__" and not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        ]
        for name in names:
            is_own = (here / name).is_file() and (here / name).resolve().is_relative_to(folder)
            if is_own and not name.startswith(".") and not name.endswith(".pyc"):
                yield (here / name).relative_to(root).as_posix(), here / name
