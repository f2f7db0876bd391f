"""Joules that GPUs have used, by NVML's total-energy counter (extra `energy`: nvidia-ml-py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class NoMeter(Exception):
    """The energy of these GPUs cannot be read; the text says why in one line."""


class EnergyMeter:
    """The counters of some of the GPUs that this process sees, each counted once.

    `local` are indices as CUDA has them here: 0 is the first that `CUDA_VISIBLE_DEVICES` in `environment` lets through.
    Raises NoMeter where there is no counter, or where it is not clear which GPU it belongs to.
    """

    def __init__(self, local: Iterable[int], environment: Mapping[str, str], nvml: Any = None) -> None:
        self._nvml = nvml or _load()
        try:
            self._nvml.nvmlInit()
            visible = _visible(self._nvml, environment)
            self._handles = {}
            for index in local:
                if index >= len(visible):
                    raise NoMeter(f"GPU {index} is not visible; {len(visible)} are")
                self._handles[visible[index]] = _whole_gpu(self._nvml, visible[index])
            self._read_j()  # or a counter is found missing only in the middle of a trial
        except self._nvml.NVMLError as error:
            raise NoMeter(f"NVML: {error}") from None

    def joules(self) -> float | None:
        """Return the joules of all these GPUs together, since their driver was loaded: differences are what was used in
        between.

        None once a counter no longer answers.
        """
        try:
            return self._read_j()
        except self._nvml.NVMLError:
            return None

    def _read_j(self) -> float:
        used_mj = [self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles.values()]
        return float(sum(used_mj)) / 1000


def open_meter(local: Iterable[int], environment: Mapping[str, str]) -> EnergyMeter | None:
    """Return the meter, or None where there is none: energy is measured or unknown, never guessed."""
    try:
        return EnergyMeter(local, environment)
    except NoMeter:
        return None


def _load() -> Any:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise NoMeter("needs nvidia-ml-py: pip install 'batch-frontier[energy]'") from None
    return pynvml


def _visible(nvml: Any, environment: Mapping[str, str]) -> list[str]:
    """Return UUIDs of the GPUs that CUDA shows, in its order (its programming guide, "CUDA environment variables")."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    uuids = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    words = [str(i) for i in range(len(uuids))] if listed is None else [word.strip() for word in listed.split(",")]
    alike = len({nvml.nvmlDeviceGetName(handle) for handle in handles}) <= 1
    ordered = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    chosen: list[str] = []
    for word in words:
        if word.startswith("MIG-"):
            raise NoMeter(f"{word} is a slice of a GPU, and NVML counts the energy of whole ones only")
        if word.startswith("GPU-"):
            found = [uuid for uuid in uuids if uuid.startswith(word)]
            if len(found) > 1:
                raise NoMeter(f"CUDA_VISIBLE_DEVICES: {word} fits several GPUs")
        elif word.isdecimal() and int(word) < len(uuids):
            # CUDA counts the fastest first, NVML by bus: of like GPUs both orders are by bus.
            if not alike and not ordered:
                raise NoMeter(
                    "GPUs of several kinds: set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that their numbers are known"
                )
            found = [uuids[int(word)]]
        else:
            found = []
        if not found:
            break  # CUDA shows those before the first that it does not know
        if found[0] in chosen:
            raise NoMeter(f"CUDA_VISIBLE_DEVICES names {word} twice, and CUDA then shows no GPU")
        chosen.append(found[0])
    return chosen


def _whole_gpu(nvml: Any, uuid: str) -> Any:
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        return handle  # a GPU that cannot be sliced
    if current == nvml.NVML_DEVICE_MIG_ENABLE:
        raise NoMeter(f"{uuid} is sliced (MIG), and NVML counts the energy of whole GPUs only")
    return handle
