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
_ID, _NAME, _RUN, _STORAGE, _CPUS = "study_id", "study", "study_run", "study_storage", "study_driver_cpus"
_AN_ID = re.compile(r"[a-z0-9-]{1,60}")
_COUNTED = re.compile(r"^(?:\[(\d+)/(\d+)\] |Resumed: (\d+) of (\d+) trials)", re.MULTILINE)


@dataclass(frozen=True)
class Submission:
    """What a run of a study is submitted with."""

    study_id: str
    name: str
    storage: str | None = None
    driver_cpus: float = 0.0
    run: int = 1

    @property
    def job_id(self) -> str:
        """Ray wants a new one for every run."""
        return self.study_id if self.run == 1 else f"{self.study_id}.{self.run}"

    @property
    def entrypoint(self) -> str:
        """The command, replacing its shell so that signals reach it."""
        command = ["exec", "python", "-m", "study", "drive", self.study_id]
        return shlex.join([*command, "--storage", self.storage] if self.storage else command)

    @property
    def metadata(self) -> dict[str, str]:
        """For whoever lists the jobs."""
        known = {_ID: self.study_id, _NAME: self.name, _RUN: str(self.run), _CPUS: f"{self.driver_cpus:g}"}
        return known | ({_STORAGE: self.storage} if self.storage else {})


def is_id(text: str) -> bool:
    """Whether that could be a study's id, which becomes the name of a folder: whoever may submit jobs says it."""
    return _AN_ID.fullmatch(text) is not None


def new_id(name: str) -> str:
    """An id that tells the study's name, and fits a file name and a glob pattern."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")
    return f"{word or 'study'}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class SubmittedStudy:
    """A study that was submitted, and its runs, the first one first."""

    study_id: str
    runs: tuple[JobDetails, ...]

    @property
    def last(self) -> JobDetails:
        """The run that counts."""
        return self.runs[-1]

    @property
    def job_id(self) -> str:
        """Of the last run."""
        return str(self.last.submission_id)

    @property
    def status(self) -> JobStatus:
        """Of the last run."""
        return self.last.status

    @property
    def is_running(self) -> bool:
        """Or about to."""
        return not self.status.is_terminal()

    @property
    def name(self) -> str:
        """As the study file has it."""
        return self._told(_NAME) or self.study_id

    @property
    def storage(self) -> str | None:
        """Where its results last, if they do."""
        return self._told(_STORAGE)

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

    def next_run(self) -> Submission:
        """Another run of the same study."""
        cpus = float(self._told(_CPUS) or 0)
        return Submission(self.study_id, self.name, self.storage, cpus, _run(self.last) + 1)

    def _told(self, key: str) -> str | None:
        return (self.last.metadata or {}).get(key)


def studies_of(jobs: Iterable[JobDetails]) -> dict[str, SubmittedStudy]:
    """The studies among a cluster's jobs by id, the latest first."""
    runs: dict[str, list[JobDetails]] = {}
    for job in sorted(jobs, key=_run):
        if is_id(study_id := (job.metadata or {}).get(_ID, "")):
            runs.setdefault(study_id, []).append(job)
    found = [SubmittedStudy(study_id, tuple(of)) for study_id, of in runs.items()]
    return {one.study_id: one for one in sorted(found, key=lambda one: one.started, reverse=True)}


def find(studies: Mapping[str, SubmittedStudy], study_id: str) -> SubmittedStudy:
    """The study of that id. Raises ClusterError."""
    if study_id in studies:
        return studies[study_id]
    there = f"; there are {', '.join(list(studies)[:5])}" if studies else "; none was submitted there"
    raise ClusterError(f"{study_id}: no study of that id{did_you_mean(study_id, studies) or there}")


def trials_over(log: str) -> str | None:
    """How far a study is, from the end of what its driver printed; None before the first trial is over."""
    told = list(_COUNTED.finditer(log))
    if not told:
        return None
    over, planned = (number for number in told[-1].groups() if number is not None)
    return f"{over} of {planned}"


def _run(job: JobDetails) -> int:
    number = (job.metadata or {}).get(_RUN, "1")
    return int(number) if number.isdigit() else 1
