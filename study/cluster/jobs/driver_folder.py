"""The folder that the driver of a submitted study writes to, on a node of the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray

from study.cluster.connection import connected
from study.cluster.jobs.storage import Mirror, Store, shared_folder
from study.cluster.jobs.submissions import STUDIES, is_id
from study.cluster.target import AUTO
from study.errors import ClusterError


@contextmanager
def study_folder(study_id: str, storage: str | None) -> Iterator[Path]:
    """Join the cluster and yield the study's folder.

    It is in the shared folder of `storage`, or else in Ray's log folder, whose files the head serves. If `storage` is
    the URI of a store, the folder is mirrored to it. Raises ClusterError if the folder or store cannot be written.
    """
    if not is_id(study_id):
        raise ClusterError(f"{study_id}: no study has such an id")
    with connected(AUTO, None):
        # The only folder that Ray serves files from; no public function returns its path.
        served = Path(ray._private.worker._global_node.get_logs_dir_path()) / STUDIES / study_id
        shared = shared_folder(storage) if storage else None
        try:
            served.parent.mkdir(exist_ok=True)
            if shared is not None:
                (shared / study_id).mkdir(parents=True, exist_ok=True)
                if not served.is_symlink():
                    served.symlink_to(shared / study_id, target_is_directory=True)
            else:
                served.mkdir(exist_ok=True)
        except OSError as error:
            raise ClusterError(f"{error.filename}: {error.strerror}", "--storage") from None
        mirrored = storage is not None and shared is None
        with Mirror(served, Store(str(storage), study_id)) if mirrored else nullcontext():
            yield shared / study_id if shared is not None else served
