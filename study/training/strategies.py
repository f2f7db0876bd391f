"""Lightning's strategies, with the group that has been joined and the job's own loaders."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from study.training.jobs import Job
from study.training.meeting import PlacedEnvironment
from study.training.place import Place


class _JobsOwn:
    """Lets the job wrap its loaders; batches that are on the device already are not walked through to be moved."""

    job: Job

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """As it is, if it is there."""
        if self.job.batches_on_device:
            return batch
        return super().batch_to_device(batch, device, dataloader_idx)  # type: ignore[misc]

    def process_dataloader(self, dataloader: Any) -> Any:
        """Lightning's hook for a loader whose sampler is set up."""
        return self.job.wrap_loader(dataloader)


class _JobsDDP(_JobsOwn, DDPStrategy):
    pass


class _JobsAlone(_JobsOwn, SingleDeviceStrategy):
    pass


def strategy(place: Place, job: Job) -> Strategy:
    """DDP in the group that has been joined; for one rank no DDP at all."""
    made: _JobsDDP | _JobsAlone
    if place.world_size == 1:
        made = _JobsAlone(place.torch_device)
    else:
        made = _JobsDDP(
            cluster_environment=PlacedEnvironment(place),
            broadcast_buffers=False,  # averaged once a validation instead
            gradient_as_bucket_view=True,
        )
    made.job = job
    return made
