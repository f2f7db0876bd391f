"""Lightning's strategies, in the group that has been joined and with the job's own loaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from study.errors import ConfigError
from study.training.distributed.rendezvous import PlacedEnvironment
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import Job
from study.training.lightning_patches import transfers_itself
from study.workloads.user_code.lightning_package import derived


class _JobsOwn:
    """Methods of Lightning's Strategy: lets the job wrap its loaders, does not move batches that are on the device
    already, and reports when all other hooks of a validation have run.
    """

    job: Job
    channels_last: bool
    report: Callable[[], None]
    root_device: torch.device

    def setup(self, trainer: pl.Trainer) -> None:
        """Lightning's hook between the module's own set-up and DDP. Raises ConfigError for a layer without a shape."""
        weights = trainer.lightning_module.named_parameters()
        if lazy := [name for name, weight in weights if isinstance(weight, UninitializedParameter)]:
            raise ConfigError(
                f"has layers that get their shape from their first batch ({lazy[0]}): give it to them, or run a batch "
                "through them in __init__, configure_model or setup",
                "workload.module",
            )
        self.transfers_itself = transfers_itself(trainer, self.job.lightning)
        super().setup(trainer)  # type: ignore[misc]

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Move a batch to the device, unless the job's batches are there already; by the hooks for it if there are
        any.
        """
        if not self.job.batches_on_device:
            if self.transfers_itself:
                batch = super().batch_to_device(batch, device, dataloader_idx)  # type: ignore[misc]
            else:
                batch = self.job.lightning.fabric.utilities.move_data_to_device(batch, device or self.root_device)
        return apply_to_collection(batch, Tensor, _channels_last) if self.channels_last else batch

    def process_dataloader(self, dataloader: Any) -> Any:
        """Lightning's hook for a loader whose sampler is set up."""
        return self.job.wrap_loader(dataloader)

    def on_validation_end(self) -> None:
        """Lightning's last hook of a validation: what callbacks and module did in theirs is in a snapshot from here."""
        self.report()


class _JobsDDP(_JobsOwn):
    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce over ranks; means of whole numbers as float64.

        Lightning would round such a mean down, and it divides a metric by the mean of the ranks' samples, which are not
        the same number without padding.
        """
        if isinstance(tensor, Tensor) and not tensor.is_floating_point() and str(reduce_op).lower() in ("mean", "avg"):
            tensor = tensor.double()
        return super().reduce(tensor, group, reduce_op)  # type: ignore[misc]

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Return every rank's tensor, (world size, ...).

        Where the ranks have unequal numbers of rows, as validation without padding leaves them, return all rows one
        after the other, (1, rows, ...): flattened, that is what Lightning gives.
        """
        if sync_grads or tensor.dim() == 0 or not dist.is_initialized():
            self.job.gathers(tensor)
            return super().all_gather(tensor, group, sync_grads)  # type: ignore[misc]
        ranks = dist.get_world_size(group)
        rows = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(ranks)]
        dist.all_gather(rows, torch.tensor([len(tensor)], device=tensor.device), group=group)
        lengths = [int(length) for length in rows]
        if len(set(lengths)) == 1:
            self.job.gathers(tensor)
            return super().all_gather(tensor, group, sync_grads)  # type: ignore[misc]
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        whole = super().all_gather(padded, group, sync_grads)  # type: ignore[misc]
        return torch.cat([part[:length] for part, length in zip(whole, lengths, strict=True)])[None]


def _channels_last(values: Tensor) -> Tensor:
    """Return images (n, channels, height, width) with the channels last in memory; anything else unchanged."""
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def strategy(topology: RankTopology, job: Job, channels_last: bool, report: Callable[[], None]) -> Any:
    """Return DDP in the group that has been joined; for one rank no DDP at all. Calls `report` at the end of each
    validation.
    """
    lightning = job.lightning
    made: Any
    if topology.world_size == 1:
        made = derived(_JobsOwn, lightning.pytorch.strategies.SingleDeviceStrategy)(topology.torch_device)
    else:
        environment = derived(PlacedEnvironment, lightning.fabric.plugins.environments.ClusterEnvironment)
        made = derived(_JobsDDP, lightning.pytorch.strategies.DDPStrategy)(
            # Lightning would count GPUs to find this rank's, and ranks may share one.
            parallel_devices=[topology.torch_device] * topology.local_world_size,
            cluster_environment=environment(topology),
            gradient_as_bucket_view=True,
            **job.ddp_arguments(),
        )
    made.job, made.channels_last, made.report = job, channels_last, report
    return made
