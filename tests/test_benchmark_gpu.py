"""benchmarks/gpu.py on the CPU: what it compares must be the same training, before there is a GPU to time."""

import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

from study.config.workloads import Digits, ImageFolder
from study.training.distributed.topology import RankTopology

ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("hardware", [{}, {"precision": "bf16-mixed"}, {"channels_last": True}])
def test_trial_and_loop_end_at_the_same_loss(gpu: ModuleType, hardware: dict[str, object]) -> None:
    workload = Digits(model="convnet", width=4, val_samples=50, test_samples=1000)
    plan = gpu.plan_of(workload, 64, 20, **hardware)
    study, by_hand = gpu.take_turns(plan, ALONE, turns=2)
    # Two losses of the same weights, summed in another order; in bf16 a digit and a half less.
    close = 1e-2 if "precision" in hardware else 1e-5
    assert [turn.val_loss for turn in study] == pytest.approx([turn.val_loss for turn in by_hand], rel=close)
    assert study[0].val_loss == study[1].val_loss
    ratios = [s.samples_per_s / raw.samples_per_s for s, raw in zip(study, by_hand, strict=True)]
    assert gpu.median_ratio(study, by_hand) == pytest.approx(statistics.median(ratios))
    assert all(turn.samples_per_s > 0 and turn.j_per_1000 is None for turn in (*study, *by_hand))


def test_its_noise_is_read_as_cifar10(gpu: ModuleType, tmp_path: Path) -> None:
    gpu.write_noise(tmp_path, images=50, test_images=10)
    workload = ImageFolder(kind="cifar10", path=str(tmp_path), images=50, val_samples=10, depth=8, width=4)
    plan = gpu.plan_of(workload, 8, 4)
    study, by_hand = gpu.take_turns(plan, ALONE, turns=1)
    assert study[0].val_loss == pytest.approx(by_hand[0].val_loss, rel=1e-4)


def test_energy_is_told_for_each_thousand_samples(gpu: ModuleType) -> None:
    assert gpu._per_1000(50.0, 60.0, 2000) == 5.0
    assert gpu._per_1000(None, 60.0, 2000) is None


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--json"])
    gpu.main()
    assert capsys.readouterr().out == "No CUDA device here: nothing to measure.\n"
