"""Which rank sits where, and which GPUs it sees."""

import subprocess
import sys

from study.tuning.worker_group import RankPlacement, _places


def test_ranks_of_a_node_see_the_same_gpus_and_take_theirs_by_local_rank() -> None:
    seats = [
        RankPlacement("a", "10.0.0.1", ("3",)),
        RankPlacement("b", "10.0.0.2", ("0",)),
        RankPlacement("a", "10.0.0.1", ("1",)),
        RankPlacement("b", "10.0.0.2", ("2",)),
    ]
    places, visible = _places(seats, "cuda")
    assert [(place.rank, place.node_rank, place.local_rank) for place in places] == [
        (0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1),
    ]  # fmt: skip
    assert visible == [("3", "1"), ("0", "2"), ("3", "1"), ("0", "2")]
    # Every rank's own device, by what Ray gave it, has its number in the list that it sees.
    assert [seen[place.gpu] for place, seen in zip(places, visible, strict=True)] == ["3", "0", "1", "2"]
    assert {place.local_world_size for place in places} == {2}


def test_ranks_that_share_gpus_see_each_once() -> None:
    seats = [RankPlacement("a", "10.0.0.1", (gpu,)) for gpu in ("2", "0", "2", "0")]
    places, visible = _places(seats, "cuda", 0.5)
    assert visible == [("2", "0")] * 4
    assert [place.gpu for place in places] == [0, 1, 0, 1]
    assert [place.local_rank for place in places] == [0, 1, 2, 3]
    assert {place.gpu_share for place in places} == {0.5}


def test_ranks_on_cpus_see_no_gpu() -> None:
    places, visible = _places([RankPlacement("a", "10.0.0.1", ())] * 2, "cpu")
    assert visible == [(), ()]
    assert [place.local_rank for place in places] == [0, 1]


def test_the_process_that_drives_a_group_does_without_torch() -> None:
    # It would cost every group seconds and hundreds of megabytes, beside those of its ranks.
    told = "import sys; import study.tuning.trainable; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "False\n"
