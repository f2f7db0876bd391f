"""The cluster that the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.jobs.two_nodes import TwoNodes


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    """Two raylets that want a token, gone when the module's tests are over."""
    cluster = TwoNodes()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
