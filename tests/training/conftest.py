"""Ranks for the tests of what ranks do together."""

from collections.abc import Iterator

import pytest

from study.training.distributed.local_group import LocalGroup
from tests.conftest import make_config


@pytest.fixture(scope="session")
def pair() -> Iterator[LocalGroup]:
    """Two ranks that have met; to run functions in, for starting them takes longer than most tests."""
    with LocalGroup(make_config(), 2) as group:
        yield group
