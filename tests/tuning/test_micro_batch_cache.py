"""How `micro_batch: auto` becomes a number, with a fake GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import WorkerCrashedError

from study.cluster.target import LOCAL, ClusterTarget
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.capacity import Node
from study.planning.trials import Plan, make_plan
from study.training.distributed.topology import RankTopology
from study.training.preflight import micro_batch as preflight
from study.tuning import micro_batch_cache
from study.tuning.driver import run_study
from study.tuning.micro_batch_cache import CACHE, Fitted, JsonCache, fitted, key_of, probe

Make = Callable[..., StudyConfig]
AUTO = {"gpus_per_rank": 1, "micro_batch": "auto"}


def test_the_cache_keeps_numbers_and_takes_a_damaged_file_for_an_empty_one(tmp_path: Path) -> None:
    cache = JsonCache(tmp_path / "study" / "numbers.json")
    assert cache.get("a") is None
    cache.put("a", 3)
    cache.put("b", 4)
    assert [JsonCache(cache.path).get(key) for key in ("a", "b", "c")] == [3, 4, None]
    for damage in (b'{"a": 3', b"[]", b'{"a": "3"}', b'{"a": 0}', b"\xff\xfe"):
        cache.path.write_bytes(damage)
        assert cache.get("a") is None
    cache.put("a", 5)
    assert cache.get("a") == 5
    assert [path.name for path in cache.path.parent.iterdir()] == ["numbers.json"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file where the folder should be")
    cache = JsonCache(tmp_path / "study" / "numbers.json")
    cache.put("a", 3)
    assert cache.get("a") is None


@dataclass(frozen=True)
class Properties:
    name: str = "H100"
    total_memory: int = 80 * 10**9


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RankTopology]:
    """A GPU that holds 20 samples. Returns the list of its probes."""
    probes: list[RankTopology] = []

    def found(plan: Plan, topology: RankTopology) -> tuple[int, int]:
        probes.append(topology)
        return 20, 7

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    monkeypatch.setattr(preflight, "largest_micro_batch", found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return probes


def test_a_gpu_is_probed_once_for_each_model(config: Make, gpu: list[RankTopology], tmp_path: Path) -> None:
    plan, other = make_plan(config(hardware=AUTO)), make_plan(config(hardware=AUTO | {"precision": "bf16-mixed"}))
    assert probe(plan) == Fitted("H100", 20, tried=7)
    assert probe(plan) == Fitted("H100", 20, tried=0)
    assert probe(other) == Fitted("H100", 20, tried=7)
    assert [(place.device, place.gpu_share) for place in gpu] == [("cuda", 1.0)] * 2
    assert (tmp_path / "study" / CACHE).is_file()


def test_code_behind_an_import_path_may_change_and_is_probed_every_time(config: Make, gpu: list[RankTopology]) -> None:
    workload = {
        "kind": "custom",
        "module": "tests.linear:LinearModule",
        "data": "tests.linear:LinearData",
        "train_samples": 64,
    }
    plan = make_plan(config(workload=workload, batch_sizes=[8], hardware=AUTO))
    assert [probe(plan).tried for _ in range(2)] == [7, 7]


@pytest.mark.parametrize(
    "change",
    [
        {"workload": {"kind": "digits", "width": 17}},
        {"optimizer": {"kind": "adamw"}},
        {"hardware": AUTO | {"precision": "bf16-mixed"}},
        {"hardware": AUTO | {"channels_last": True}},
        {"hardware": AUTO | {"gpus_per_rank": 0.5}},
    ],
)
def test_the_key_differs_where_the_answer_may(config: Make, change: dict[str, object]) -> None:
    def key(plan: Plan, sizes: tuple[int, ...] = (1, 2), gpu: str = "H100", memory: int = 80, torch: str = "2") -> str:
        return key_of(plan, list(sizes), gpu, memory, torch)

    plan = make_plan(config(hardware=AUTO))
    changed = make_plan(config(**{"hardware": AUTO} | change))
    assert key(plan) == key(make_plan(config(hardware=AUTO, search={"lr": [0.3]}, name="another")))
    others = [
        key(changed), key(plan, sizes=(1, 3)), key(plan, gpu="T4"), key(plan, memory=40), key(plan, torch="3"),
    ]  # fmt: skip
    assert len({key(plan), *others}) == 6


def test_on_the_cpu_auto_is_no_limit(config: Make) -> None:
    said: list[str] = []
    plan = fitted(make_plan(config(hardware={"micro_batch": "auto"})), LOCAL, None, said.append)
    assert plan.config.hardware.micro_batch is None
    assert len(said) == 1


class FakeRay:
    """A ray module whose one task returns, or raises, `found`; `leased` holds the resources that it asked for."""

    def __init__(self, found: Fitted | Exception) -> None:
        self.found = found
        self.leased: dict[str, float] = {}

    def remote(self, **leased: float) -> Callable[[object], FakeRay]:
        self.leased = leased
        return lambda function: SimpleNamespace(remote=lambda plan: self.found)

    def get(self, found: Fitted | Exception) -> Fitted:
        if isinstance(found, Exception):
            raise found
        return found


def fitted_with(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, found: Fitted | Exception
) -> tuple[Plan, list[str], FakeRay]:
    ray, said = FakeRay(found), list[str]()
    monkeypatch.setattr(micro_batch_cache, "ray", ray)
    monkeypatch.setattr(micro_batch_cache, "connected", lambda address, cpus: nullcontext((Node(4, 1),)))
    return fitted(plan, LOCAL, None, said.append), said, ray


def test_a_gpu_of_the_cluster_is_probed_and_batches_are_split_accordingly(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(config(hardware=AUTO | {"gpus_per_rank": 0.5}))
    assert [spec.batch.micro_batch for spec in plan.search] == [16, 16, 64, 64]
    split, said, ray = fitted_with(monkeypatch, plan, Fitted("H100", 20, tried=7))
    assert [(spec.batch.micro_batch, spec.batch.accumulation) for spec in split.search] == [(16, 1)] * 2 + [(16, 4)] * 2
    assert split.config.hardware.micro_batch == 20
    assert said == ["Micro batch: at most 20 samples, which fit on H100 (7 sizes tried)."]
    assert (ray.leased["num_cpus"], ray.leased["num_gpus"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Fitted("H100", 0, tried=1), "hardware.micro_batch: not even one sample fits on H100"),
        (WorkerCrashedError(), "hardware.micro_batch: probing a GPU failed: The worker died unexpectedly"),
    ],
)
def test_a_probe_that_finds_nothing_raises_one_clear_line(
    config: Make, monkeypatch: pytest.MonkeyPatch, found: Fitted | Exception, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        fitted_with(monkeypatch, make_plan(config(hardware=AUTO)), found)
    assert len(str(raised.value).splitlines()) == 1


def test_a_given_number_is_not_changed(config: Make) -> None:
    plan = make_plan(config(hardware={"micro_batch": 8}))
    assert fitted(plan, ClusterTarget.parse("nowhere"), None, print) is plan


def test_a_plan_is_exact_before_it_runs(config: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto must be a number by now"):
        run_study(make_plan(config(hardware=AUTO)), tmp_path, LOCAL, None, lambda row: None)


def test_without_a_gpu_a_probe_is_refused_like_any_rank(local_ray: None, config: Make) -> None:
    with pytest.raises(ConfigError, match=r"1 ranks of 1 CPU and 1 GPU can never be placed on 1 node"):
        fitted(make_plan(config(hardware=AUTO)), LOCAL, None, print)
