"""What our strategies tell Lightning otherwise than its own do."""

from typing import Any

import pytest

from study.training.place import Place
from study.training.strategies import strategy

UNEVEN = ((0, 2, 0, 0), (1, 2, 0, 1), (0, 1, 1, 2))  # local rank, ranks on the node, node, rank: two ranks and one


@pytest.mark.parametrize(("local_rank", "local_world_size", "node_rank", "rank"), UNEVEN)
def test_a_loader_is_shared_by_all_ranks_however_they_lie_on_the_nodes(
    local_rank: int, local_world_size: int, node_rank: int, rank: int
) -> None:
    place = Place(rank, 3, local_rank, local_world_size, node_rank, "cpu")
    job: Any = None  # asked for nothing here
    made: Any = strategy(place, job, channels_last=False)
    assert made.distributed_sampler_kwargs == {"num_replicas": 3, "rank": rank}
