"""What a user's code starts ends with the rank that it runs in, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys

# It is nobody's child, for Ray ends a worker's own; and it reads no pipe, which whatever is forked would hold open.
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
    """Lead a process group, which children are of, and theirs, unless they leave it; have it killed when we are gone.

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
