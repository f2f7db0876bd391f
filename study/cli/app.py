"""The `study` command."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from study import __version__
from study.cli import dashboard_commands, decision_commands, job_commands, study_commands
from study.cli.common import DISK_ERROR, USAGE_ERROR
from study.errors import DiskError, StudyError
from study.safe_text import escaped

_GROUPS = (study_commands.app, decision_commands.app, job_commands.app)


def _group() -> typer.Typer:
    """Return the command without its sub-commands."""
    group = typer.Typer(
        help="Which batch size, on how many GPUs, should I pay for?",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help, which takes half the time of Rich's
    )
    group.callback(invoke_without_command=True)(_version)
    return group


def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


app = _group()
for _commands in _GROUPS:
    app.add_typer(_commands)
app.add_typer(dashboard_commands.app, name="dashboards")


def _app_for(arguments: list[str]) -> typer.Typer:
    """Return the app with only the sub-command that is called, if there is one: Typer is slow to build them all."""
    for group in _GROUPS:
        for info in group.registered_commands:
            if info.callback is not None and [info.name or info.callback.__name__] == arguments[:1]:
                only = _group()
                only.registered_commands.append(info)
                return only
    return app


def main() -> None:
    """Run the command; a mistake of the user's is one line on stderr and exit code 2, a disk that refuses code 4."""
    # A user's module is imported from where they stand, as `python -m` would.
    sys.path.insert(0, os.getcwd())
    if sys.argv[1:] == ["--version"]:  # before the options are parsed, for which Typer imports all of pydantic
        print(__version__)
        return
    try:
        try:
            _app_for(sys.argv[1:])()
        finally:
            sys.stdout.flush()
    except StudyError as error:
        print(f"study: {error}", file=sys.stderr)
        raise SystemExit(DISK_ERROR if isinstance(error, DiskError) else USAGE_ERROR) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Of what we print to, or of the folder for temporary files. What Python still holds back would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(escaped(f"study: {error.filename or 'standard output'}: {error.strerror}"), file=sys.stderr)
        raise SystemExit(DISK_ERROR) from None
