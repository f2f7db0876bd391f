"""Energy counters on four fake GPUs, under every form that CUDA_VISIBLE_DEVICES takes."""

from __future__ import annotations

import pytest

from study.training.energy import EnergyMeter, NoMeter, open_meter

UUIDS = ["GPU-aa10", "GPU-bb21", "GPU-bc32", "GPU-dd43"]


class FakeNvml:
    """Four GPUs; GPU i has used 10^i joules."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, names: tuple[str, ...] = ("H100",) * 4, sliced: int | None = None, metered: bool = True) -> None:
        self.names, self.sliced, self.metered = names, sliced, metered
        self.asked: list[int] = []

    def nvmlInit(self) -> None:
        """Nothing to do."""

    def nvmlDeviceGetCount(self) -> int:
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return UUIDS.index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return UUIDS[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.names[handle]

    def nvmlDeviceGetMigMode(self, handle: int) -> tuple[int, int]:
        if self.sliced is None:
            raise self.NVMLError_NotSupported("Not Supported")
        return (int(handle == self.sliced), 0)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if not self.metered:
            raise self.NVMLError_NotSupported("Not Supported")
        self.asked.append(handle)
        return 1000 * 10**handle


@pytest.mark.parametrize(
    ("visible", "physical"),
    [
        (None, [0, 1, 2, 3]),
        ("0,1,2,3", [0, 1, 2, 3]),
        ("3", [3]),
        ("2,0", [2, 0]),
        (" 3 , 1 ", [3, 1]),
        ("GPU-dd43,GPU-aa10", [3, 0]),
        ("GPU-dd,1", [3, 1]),  # the beginning of a UUID is enough
        ("1,-1,2", [1]),  # nothing behind an unknown one is seen
        ("2,7,0", [2]),
        ("", []),
    ],
)
def test_local_indices_are_those_that_cuda_shows(visible: str | None, physical: list[int]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    for local, gpu in enumerate(physical):
        assert EnergyMeter([local], environment, FakeNvml()).joules() == 10**gpu
    with pytest.raises(NoMeter, match=f"GPU {len(physical)} is not visible"):
        EnergyMeter([len(physical)], environment, FakeNvml())


def test_each_gpu_is_counted_once() -> None:
    nvml = FakeNvml()
    meter = EnergyMeter([0, 1, 0, 1], {"CUDA_VISIBLE_DEVICES": "3,1"}, nvml)
    nvml.asked.clear()
    assert meter.joules() == 10**3 + 10
    assert sorted(nvml.asked) == [1, 3]


@pytest.mark.parametrize(
    ("visible", "nvml", "says"),
    [
        ("MIG-4b1c", FakeNvml(), "MIG-4b1c is a slice of a GPU"),
        ("2", FakeNvml(sliced=2), "GPU-bc32 is sliced"),
        ("0", FakeNvml(metered=False), "NVML: Not Supported"),
        ("1,1", FakeNvml(), "names 1 twice"),
        ("1,GPU-bb21", FakeNvml(), "names GPU-bb21 twice"),
        ("GPU-b", FakeNvml(), "GPU-b fits several"),
        ("0", FakeNvml(("H100", "H100", "T4", "H100")), "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ],
)
def test_what_cannot_be_known_is_refused_with_its_reason(visible: str, nvml: FakeNvml, says: str) -> None:
    with pytest.raises(NoMeter, match=says):
        EnergyMeter([0], {"CUDA_VISIBLE_DEVICES": visible}, nvml)


def test_sliced_neighbours_and_mixed_kinds_in_bus_order_do_no_harm() -> None:
    assert EnergyMeter([0], {"CUDA_VISIBLE_DEVICES": "1"}, FakeNvml(sliced=2)).joules() == 10
    mixed = FakeNvml(("H100", "T4", "H100", "T4"))
    environment = {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert EnergyMeter([0], environment, mixed).joules() == 10**3
    assert EnergyMeter([0], {"CUDA_VISIBLE_DEVICES": "GPU-dd43"}, mixed).joules() == 10**3


def test_without_a_meter_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert open_meter([0], {}) is None
    with pytest.raises(NoMeter, match="needs nvidia-ml-py"):
        EnergyMeter([0], {})
