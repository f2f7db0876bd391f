"""The topology of ranks on nodes, and the GPUs that each sees."""

import subprocess
import sys

from study.tuning.worker_group import RankPlacement, _topologies


def test_ranks_of_a_node_see_the_same_gpus_and_take_theirs_by_local_rank() -> None:
    placements = [
        RankPlacement("a", "10.0.0.1", ("3",)),
        RankPlacement("b", "10.0.0.2", ("0",)),
        RankPlacement("a", "10.0.0.1", ("1",)),
        RankPlacement("b", "10.0.0.2", ("2",)),
    ]
    topologies, visible = _topologies(placements, "cuda")
    assert [(topology.rank, topology.node_rank, topology.local_rank) for topology in topologies] == [
        (0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1),
    ]  # fmt: skip
    assert visible == [("3", "1"), ("0", "2"), ("3", "1"), ("0", "2")]
    # The device that Ray gave a rank is at the rank's number in the list that it sees.
    assert [seen[topology.gpu] for topology, seen in zip(topologies, visible, strict=True)] == ["3", "0", "1", "2"]
    assert {topology.local_world_size for topology in topologies} == {2}


def test_ranks_that_share_gpus_see_each_once() -> None:
    placements = [RankPlacement("a", "10.0.0.1", (gpu,)) for gpu in ("2", "0", "2", "0")]
    topologies, visible = _topologies(placements, "cuda", 0.5)
    assert visible == [("2", "0")] * 4
    assert [topology.gpu for topology in topologies] == [0, 1, 0, 1]
    assert [topology.local_rank for topology in topologies] == [0, 1, 2, 3]
    assert {topology.gpu_share for topology in topologies} == {0.5}


def test_ranks_on_cpus_see_no_gpu() -> None:
    topologies, visible = _topologies([RankPlacement("a", "10.0.0.1", ())] * 2, "cpu")
    assert visible == [(), ()]
    assert [topology.local_rank for topology in topologies] == [0, 1]


def test_the_process_that_drives_a_group_does_not_import_torch() -> None:
    # It would cost every group seconds and hundreds of megabytes, beside those of its ranks.
    code = "import sys; import study.tuning.trainable; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
