"""Where a study runs: the meaning of `--address`. Imports nothing heavy, because every command needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ClusterTarget:
    """A place where studies run.

    `kind` is "local" (a Ray that this process starts and ends), "ray" (a running Ray that this process joins as a
    driver: `auto` for that of this machine, or host:port), or "head" (the HTTP server of a cluster, which takes jobs).
    `address` is the text that a user gave; for a head that the environment names, it is empty.
    """

    kind: Literal["local", "ray", "head"]
    address: str

    @classmethod
    def parse(cls, text: str) -> ClusterTarget:
        """Return the target that an address means. It is not checked: `connected` and `Head` refuse a wrong one."""
        if text == LOCAL.address:
            return LOCAL
        return cls("head" if text.startswith(("http://", "https://")) else "ray", text)

    def __str__(self) -> str:
        return self.address


LOCAL = ClusterTarget("local", "local")
AUTO = ClusterTarget("ray", "auto")
HEAD = ClusterTarget("head", "")
