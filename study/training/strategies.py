"""Lightning's strategies, with the group that has been joined and the job's own loaders."""

from __future__ import annotations

from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor

from study.training.jobs import Job
from study.training.meeting import PlacedEnvironment
from study.training.place import Place


class _JobsOwn:
    """Lets the job wrap its loaders; batches that are on the device already are not walked through to be moved."""

    job: Job
    channels_last: bool

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """As it is, if it is there."""
        if not self.job.batches_on_device:
            batch = super().batch_to_device(batch, device, dataloader_idx)  # type: ignore[misc]
        return apply_to_collection(batch, Tensor, _channels_last) if self.channels_last else batch

    def process_dataloader(self, dataloader: Any) -> Any:
        """Lightning's hook for a loader whose sampler is set up."""
        return self.job.wrap_loader(dataloader)


class _JobsDDP(_JobsOwn, DDPStrategy):
    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """This rank's share of a loader. Lightning would take every node to hold as many ranks as this one."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}


class _JobsAlone(_JobsOwn, SingleDeviceStrategy):
    pass


def _channels_last(values: Tensor) -> Tensor:
    """Images (n, channels, height, width) in the order of their pixels; anything else as it is."""
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def strategy(place: Place, job: Job, channels_last: bool) -> Strategy:
    """DDP in the group that has been joined; for one rank no DDP at all."""
    made: _JobsDDP | _JobsAlone
    if place.world_size == 1:
        made = _JobsAlone(place.torch_device)
    else:
        made = _JobsDDP(
            # Lightning would count GPUs to find this rank's, and ranks may share one.
            parallel_devices=[place.torch_device] * place.local_world_size,
            cluster_environment=PlacedEnvironment(place),
            gradient_as_bucket_view=True,
            **job.ddp_arguments(),
        )
    made.job, made.channels_last = job, channels_last
    return made
