"""Where a submitted study writes, seen from its driver on a node of the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray

from study.cluster.connection import connected
from study.cluster.jobs.storage import Mirror, Store, shared_folder
from study.cluster.jobs.submissions import STUDIES, is_id
from study.errors import ClusterError


@contextmanager
def study_folder(study_id: str, storage: str | None) -> Iterator[Path]:
    """The study's folder, joined to the cluster all the while.

    It lies in the shared folder, or else in Ray's own log folder, from where the head hands it out; behind a URI it is
    mirrored. Raises ClusterError if it cannot be written.
    """
    if not is_id(study_id):
        raise ClusterError(f"{study_id}: no study has such an id")
    with connected("auto", None):
        # The one folder that Ray serves files from; nothing public tells where it is.
        seen = Path(ray._private.worker._global_node.get_logs_dir_path()) / STUDIES / study_id
        shared = shared_folder(storage) if storage else None
        try:
            seen.parent.mkdir(exist_ok=True)
            if shared is not None:
                (shared / study_id).mkdir(parents=True, exist_ok=True)
                if not seen.is_symlink():
                    seen.symlink_to(shared / study_id, target_is_directory=True)
            else:
                seen.mkdir(exist_ok=True)
        except OSError as error:
            raise ClusterError(f"{error.filename}: {error.strerror}", "--storage") from None
        mirrored = storage is not None and shared is None
        with Mirror(seen, Store(str(storage), study_id)) if mirrored else nullcontext():
            yield shared / study_id if shared is not None else seen
