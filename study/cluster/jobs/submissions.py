"""Submitted studies: a study is one folder and one id, each of its runs a Ray job."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ray.job_submission import JobDetails, JobStatus

from study.errors import ClusterError, did_you_mean

STOP_WAIT_S = 120  # to end the trials, bill them and write the report, before Ray kills the driver
STUDIES = "studies"  # in Ray's log folder on the driver's node
# Keys of a job's metadata, which anyone who may list the jobs can read.
_ID, _NAME, _RUN, _STORAGE = "study_id", "study", "study_run", "study_storage"
_CPUS, _TRIALS = "study_driver_cpus", "study_trials"
_AN_ID = re.compile(r"[a-z0-9-]{1,60}")


@dataclass(frozen=True)
class Submission:
    """One run of a study, as it is submitted."""

    study_id: str
    name: str
    storage: str | None = None
    driver_cpus: float = 0.0
    run: int = 1
    n_trials: int = 0  # of the plan; 0: not known

    @property
    def job_id(self) -> str:
        """The id of the Ray job, which must differ for every run."""
        return self.study_id if self.run == 1 else f"{self.study_id}.{self.run}"

    @property
    def entrypoint(self) -> str:
        """The job's command, which replaces its shell so that signals reach it."""
        command = ["exec", "python", "-m", "study", "drive", self.study_id]
        return shlex.join([*command, "--storage", self.storage] if self.storage else command)

    @property
    def metadata(self) -> dict[str, str]:
        """The job's metadata, from which SubmittedStudy is read back."""
        known = {
            _ID: self.study_id,
            _NAME: self.name,
            _RUN: str(self.run),
            _CPUS: f"{self.driver_cpus:g}",
            _TRIALS: str(self.n_trials),
        }
        return known | ({_STORAGE: self.storage} if self.storage else {})


def is_id(text: str) -> bool:
    """Return whether the text can be a study's id. The id names a folder, and anyone who may submit jobs can set it."""
    return _AN_ID.fullmatch(text) is not None


def new_id(name: str) -> str:
    """Return a fresh id that holds the study's name, and fits a file name and a glob pattern."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")
    return f"{word or 'study'}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class SubmittedStudy:
    """A study that was submitted, and its runs, the first one first."""

    study_id: str
    runs: tuple[JobDetails, ...]

    @property
    def last(self) -> JobDetails:
        """The details of the latest run, finished or not."""
        return self.runs[-1]

    @property
    def job_id(self) -> str:
        """The job id of the last run."""
        return str(self.last.submission_id)

    @property
    def status(self) -> JobStatus:
        """The job status of the last run."""
        return self.last.status

    @property
    def is_running(self) -> bool:
        """Whether the last run is pending or running."""
        return not self.status.is_terminal()

    @property
    def name(self) -> str:
        """The name in the study file."""
        return self._metadata(_NAME) or self.study_id

    @property
    def storage(self) -> str | None:
        """The `--storage` it was submitted with: its results outlive the cluster there."""
        return self._metadata(_STORAGE)

    @property
    def started(self) -> datetime:
        """When it was first submitted, in local time."""
        return datetime.fromtimestamp((self.runs[0].start_time or 0) / 1000)

    @property
    def node_id(self) -> str | None:
        """The node that a driver of the study last ran on; its folder can be read there."""
        return next((job.driver_node_id for job in reversed(self.runs) if job.driver_node_id), None)

    @property
    def folder(self) -> str:
        """The study's folder, or a link to it, in Ray's log folder on that node."""
        return f"{STUDIES}/{self.study_id}"

    @property
    def n_trials(self) -> int:
        """Trials of its plan; 0 if an older version submitted it, which did not say."""
        return _number(self._metadata(_TRIALS), 0)

    def next_run(self) -> Submission:
        """Return another run of the same study."""
        cpus = float(self._metadata(_CPUS) or 0)
        return Submission(self.study_id, self.name, self.storage, cpus, _run(self.last) + 1, self.n_trials)

    def _metadata(self, key: str) -> str | None:
        return (self.last.metadata or {}).get(key)


def studies_of(jobs: Iterable[JobDetails]) -> dict[str, SubmittedStudy]:
    """Return the studies among a cluster's jobs by id, the latest first."""
    runs: dict[str, list[JobDetails]] = {}
    for job in sorted(jobs, key=_run):
        if is_id(study_id := (job.metadata or {}).get(_ID, "")):
            runs.setdefault(study_id, []).append(job)
    found = [SubmittedStudy(study_id, tuple(of)) for study_id, of in runs.items()]
    return {one.study_id: one for one in sorted(found, key=lambda one: one.started, reverse=True)}


def find(studies: Mapping[str, SubmittedStudy], study_id: str) -> SubmittedStudy:
    """Return the study of that id. Raises ClusterError."""
    if study_id in studies:
        return studies[study_id]
    there = f"; there are {', '.join(list(studies)[:5])}" if studies else "; none was submitted there"
    raise ClusterError(f"{study_id}: no study of that id{did_you_mean(study_id, studies) or there}")


def _run(job: JobDetails) -> int:
    return _number((job.metadata or {}).get(_RUN), 1)


def _number(text: str | None, otherwise: int) -> int:
    """Return a number of the metadata, which anyone who may submit jobs can write."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else otherwise
