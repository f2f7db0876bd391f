"""Processes that a user's code starts end with the rank that it runs in, however that rank ends."""

from __future__ import annotations

import os
import subprocess
import sys

# The guard is no child of the rank, since Ray ends a worker's children. It reads no pipe: forks would hold it open.
_GUARD = """
import os, select, sys
rank = int(sys.argv[1])
seen = os.pidfd_open(rank)
if os.fork():
    os._exit(0)
select.select([seen], [], [])
os.killpg(rank, 9)
"""


def end_with_this_process() -> None:
    """Lead a process group, which descendants join unless they leave it; a guard kills it when this process is gone.

    Only on Linux, where a process can be watched.
    """
    if not hasattr(os, "pidfd_open"):
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    subprocess.run(
        [sys.executable, "-S", "-E", "-c", _GUARD, str(os.getpid())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, check=True,
    )  # fmt: skip
