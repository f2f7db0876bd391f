"""Two ranks that have met, for all tests of modules."""

from collections.abc import Iterator

import pytest

from study.training.distributed.local_group import LocalGroup
from tests.own_modules.on_ranks import own


@pytest.fixture(scope="session")
def two() -> Iterator[LocalGroup]:
    with LocalGroup(own(world_size=2), 2) as group:
        yield group
