"""The commands for studies that run as Ray jobs, on a cluster that is reached over HTTP."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.common import CUT, INTERRUPTED, NOTHING_COMPLETED, planned, say
from study.cluster.target import HEAD
from study.errors import ClusterError, ConfigError, StudyError
from study.safe_text import masked, printable

# Commands import what they need when they run, so that `study --help` stays fast (benchmarks/startup.py).
if TYPE_CHECKING:
    from study.cluster.jobs.head import Head
    from study.cluster.jobs.submissions import Submission, SubmittedStudy
    from study.config.schema import StudyConfig

app = typer.Typer()

IdArgument = Annotated[str, typer.Argument(help="a study's id, as `study submit` and `study jobs` print it")]
HeadOption = Annotated[
    str | None,
    typer.Option(help="the head, as http://head:8265; RAY_API_SERVER_ADDRESS or RAY_ADDRESS when left out"),
]
GIB = 1 << 30


@app.command()
def submit(
    config: Annotated[str, typer.Argument(help="a study file, with or without .yaml, or a shipped one's name")],
    address: HeadOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="follow the study and exit as it does")] = False,
    storage: Annotated[
        str | None,
        typer.Option(help="where results last: a folder that all nodes share, or a URI such as s3://bucket/studies"),
    ] = None,
    driver_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs leased for the driver; with 0 it runs on the head, unleased")
    ] = 0,
) -> None:
    """Run a study on a cluster as a Ray job.

    The file and your code are sent; this machine is free.
    """
    from study.cluster.jobs.storage import shared_folder
    from study.cluster.jobs.submissions import Submission, new_id

    plan = planned(config, set_, HEAD, None)
    if storage is not None:
        shared_folder(storage)  # raises ConfigError where it is written wrong; only the nodes know if they can reach it
    head = _head(address)
    name = plan.config.name
    run = Submission(new_id(name), name, storage, driver_cpus, n_trials=plan.n_trials)
    _send(head, run, plan.config, node_id=None)
    if wait:
        _follow(head, run.study_id, run.job_id)
    else:
        _say_what_next(head, run.study_id)


def resume_submitted(study_id: str, address: str | None, overrides: list[str] | None) -> None:
    """Continue a submitted study in the folder where it is, in another job."""
    from study.api.plans import import_own, recorded
    from study.cluster.jobs import fetch as fetching
    from study.cluster.jobs.storage import TROUBLE
    from study.config.loader import config_hash
    from study.ledger.paths import StudyPaths

    head = _head(address)
    study = _found(head, study_id)
    if study.is_running:
        raise ClusterError(f"{study_id} is {_word(study)}; `{_command(head, 'stop', study_id)}` ends it")
    source = fetching.source_of(head, study)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            text = fetching.config_of(source)
        except (StudyError, *TROUBLE) as error:
            raise ClusterError(f"{study_id} has left nothing to go on from: {error}") from None
        StudyPaths(Path(scratch)).config.write_bytes(text)
        before, config = (recorded(Path(scratch), overrides=some).config for some in (None, overrides))
    if config_hash(config) != config_hash(before):
        raise ConfigError(
            f"{study_id} is a study of what it was submitted with: only limits, recovery and tracking may change",
            "--set",
        )
    import_own(config)
    _send(head, study.next_run(), config, study.node_id if study.storage is None else None)
    _say_what_next(head, study_id)


def _send(head: Head, run: Submission, config: StudyConfig, node_id: str | None) -> None:
    from study.cluster.jobs.payload import code_of, pack

    code = code_of(config)
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "study.zip"
        size = pack(config, code, archive)
        head.submit(run, archive, node_id)
    say(f"Submitted {run.study_id}: {len(code.files)} files, {size / 1024:,.0f} KiB.")
    if code.installed:
        say(f"Not sent, since installed here; the nodes must have them too: {', '.join(code.installed)}.")
    if run.storage is None:
        say("Without --storage the results last as long as the cluster: fetch them before it ends.")


def _say_what_next(head: Head, study_id: str) -> None:
    say(f"Follow it: {_command(head, 'logs', study_id)} -f")
    say(f"Fetch it:  {_command(head, 'fetch', study_id)} --out FOLDER")


@app.command()
def jobs(address: HeadOption = None) -> None:
    """List the studies that were submitted to a cluster.

    The latest comes first.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from study.cli.terminal import out
    from study.cluster.jobs.submissions import studies_of

    head = _head(address)
    studies = studies_of(head.jobs())
    if not studies:
        say(f"No study was submitted to {masked(head.address)} since it started.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "study", "status", "submitted", "runs", "trials ended"):
        table.add_column(name, justify="right" if name in ("runs", "trials ended") else "left", no_wrap=name == "id")
    for one in studies.values():
        table.add_row(
            one.study_id,
            one.name,
            _word(one),
            f"{one.started:%Y-%m-%d %H:%M}",
            str(len(one.runs)),
            _trials_ended(head, one),
        )
    out.print(table, markup=False)


def _trials_ended(head: Head, study: SubmittedStudy) -> str:
    """Return `3/8`, or nothing where the ledger cannot be read: that is no reason to list nothing."""
    from study.cluster.jobs.fetch import OnNode, ended_trials
    from study.cluster.jobs.storage import TROUBLE

    try:
        ended = ended_trials(OnNode(head, study))  # not from its storage, which may take long to refuse
    except (ClusterError, *TROUBLE):
        return ""
    return "" if ended is None else f"{ended}/{study.n_trials or '?'}"


@app.command()
def logs(
    study_id: IdArgument,
    address: HeadOption = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="keep printing until the study ends, and exit as it does")
    ] = False,
) -> None:
    """Show what a submitted study has printed, in its last run."""
    head = _head(address)
    study = _found(head, study_id)
    if follow:
        _follow(head, study_id, study.job_id)
    else:
        _print(head.log(study.job_id))


def _follow(head: Head, study_id: str, job_id: str) -> None:
    from study.cluster.jobs.submissions import STOP_WAIT_S

    try:
        head.follow(job_id, _print)
        head.wait_until_ended(job_id, STOP_WAIT_S)
    except KeyboardInterrupt:
        say("", f"The study goes on; `{_command(head, 'stop', study_id)}` ends it.")
        raise typer.Exit(INTERRUPTED) from None
    study = _found(head, study_id)
    say(f"{study_id}: {_word(study)}")
    if study.status != "SUCCEEDED":
        raise typer.Exit(INTERRUPTED if study.status == "STOPPED" else study.last.driver_exit_code or 1)


def _head(address: str | None) -> Head:
    """Return the head of `--address`, or of the environment. Raises ConfigError and ClusterError."""
    from study.cluster.jobs.head import Head, head_address

    return Head(head_address(address))


def _found(head: Head, study_id: str) -> SubmittedStudy:
    from study.cluster.jobs.submissions import find, studies_of

    return find(studies_of(head.jobs()), study_id)


def _print(text: str) -> None:
    print(printable(text, keep="\n\t") if sys.stdout.isatty() else text, end="", flush=True)


@app.command()
def stop(study_id: IdArgument, address: HeadOption = None) -> None:
    """Stop a submitted study, so that it can be resumed.

    Its trials are stopped and billed, and a report is written.
    """
    from study.cluster.jobs.submissions import STOP_WAIT_S

    head = _head(address)
    study = _found(head, study_id)
    if not study.is_running:
        say(f"{study_id} is not running: {_word(study)}.")
        return
    head.stop(study.job_id)
    head.wait_until_ended(study.job_id, STOP_WAIT_S + 30)
    say(f"{study_id}: {_word(_found(head, study_id))}.", f"Go on with it: {_command(head, 'resume', study_id)}")


@app.command()
def fetch(
    study_id: IdArgument,
    folder: Annotated[Path, typer.Option("--out", help="folder to write into; new, or of an earlier fetch")],
    address: HeadOption = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also what paused trials go on from, to resume here")
    ] = False,
    most_gib: Annotated[float, typer.Option(min=0, help="most GiB to fetch")] = 16,
) -> None:
    """Fetch a submitted study's config, ledger and report.

    It is safe while the study runs.
    """
    from study.api.plans import recorded
    from study.cluster.jobs import fetch as fetching
    from study.ledger.store import read
    from study.reporting.text.status import status_lines

    head = _head(address)
    study = _found(head, study_id)
    names = fetching.fetch(fetching.source_of(head, study), folder, checkpoints, int(most_gib * GIB))
    size = sum((folder / name).stat().st_size for name in names)
    say(f"Fetched {len(names)} files, {size / 1024:,.0f} KiB, into {folder}; the study is {_word(study)}.")
    contents = read(folder)
    say(*status_lines(recorded(folder), contents.rows))
    if contents.damage:
        say(f"{'The last row was being written' if contents.is_torn else 'Damaged'}: {contents.damage}")
    say(f"Next: study report {folder}")


def _command(head: Head, name: str, study_id: str) -> str:
    return f"study {name} {study_id} --address {masked(head.address)}"


def _word(study: SubmittedStudy) -> str:
    by_code = {CUT: "cut by a limit", NOTHING_COMPLETED: "ended, no trial completed", INTERRUPTED: "interrupted"}
    word = by_code.get(study.last.driver_exit_code or 0)
    return word or ("finished" if study.status == "SUCCEEDED" else study.status.value.lower())
