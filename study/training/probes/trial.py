"""The probes of one trial, at its reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from study.config.schema import Probes
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import Job, Probed
from study.training.probes.curvature import model_curvature
from study.training.probes.noise import NoiseScale, gradient_norms, noise_parts
from study.training.probes.objective import probing
from study.training.probes.serving import serving_curve
from study.training.probes.sharpness import EPSILONS, model_sharpness
from study.workloads.data.batching import Batch, derived_seed

NOISE_DECAY = 0.9
NOISE_BATCHES = 4  # measured at each report
PROBE_BATCH = 2048  # samples at once, of the whole training set
SERVING_S = 0.1  # for each request batch


class TrialProbes:
    """Measures what the config asks for, and calls `done` as it gets on. Nothing that it does changes the trial."""

    def __init__(
        self, config: Probes, place: RankTopology, spec: TrialSpec, job: Job, done: Callable[[], None]
    ) -> None:
        self.config, self.place, self.spec, self.job, self.done = config, place, spec, job, done
        self.noise = NoiseScale(NOISE_DECAY)

    def measure(self, updates: int, final: bool) -> dict[str, float]:
        """Figures by name. Every rank must call it; what one rank can measure alone, only rank 0 does."""
        probed = self._counted(self.job.probed())
        told: dict[str, float] = {}
        if probed is not None and self.config.noise_scale:
            told["noise_b_simple"] = self._noise(probed, updates)
        if final and self.place.rank == 0:
            parameters = self.job.module.parameters()
            told["parameters"] = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            if probed is not None:
                told |= self._at_the_end(probed)
        return told

    def _counted(self, probed: Probed | None) -> Probed | None:
        """Each batch that its loss is asked for is something done."""
        if probed is None:
            return None
        loss = probed.loss

        def counted(batch: Batch) -> Tensor:
            self.done()
            return loss(batch)

        return replace(probed, loss=counted)

    def _noise(self, probed: Probed, updates: int) -> float:
        """In samples, from fresh batches of the size that is being trained on."""
        batch = self.spec.stage_at(updates - 1).batch
        generator = torch.Generator().manual_seed(derived_seed(*self.spec.seed, 0x0153, updates))
        parameters = [parameter for parameter in probed.model.parameters() if parameter.requires_grad]
        with probing(probed.model):
            for _ in range(NOISE_BATCHES):
                order = torch.randperm(len(probed.train), generator=generator)[: batch.global_batch]
                mine = order.view(batch.accumulation, batch.world_size, batch.micro_batch)[:, self.place.rank]
                micro_batches = [(probed.train.x[rows], probed.train.y[rows]) for rows in mine]
                parts = noise_parts(micro_batches, batch.world_size)
                self.noise.add(gradient_norms(probed.loss, parameters, parts))
        return self.noise.b_simple

    def _at_the_end(self, probed: Probed) -> dict[str, float]:
        """On this rank alone: the others wait at the next collective."""
        told: dict[str, float] = {}
        train: list[Batch] = list(
            zip(probed.train.x.split(PROBE_BATCH), probed.train.y.split(PROBE_BATCH), strict=True)
        )
        if self.config.sharpness:
            for eps in EPSILONS:
                told[f"sharpness_full_{_power(eps)}"] = model_sharpness(probed.model, probed.loss, train, eps)
                chance = np.random.default_rng(self.spec.seed)
                told[f"sharpness_subspace_{_power(eps)}"] = model_sharpness(
                    probed.model, probed.loss, train, eps, chance
                )
        if self.config.curvature:
            chance = np.random.default_rng(self.spec.seed)
            told["hessian_top"] = model_curvature(probed.model, probed.loss, train, chance)
        if self.config.serving:
            for point in serving_curve(probed.model, probed.train.x[:PROBE_BATCH].cpu(), SERVING_S, self.done):
                name = f"serving_{point.batch_size}"
                told[f"{name}_predictions_per_s"] = point.predictions_per_s
                told[f"{name}_p50_ms"], told[f"{name}_p99_ms"] = point.p50_ms, point.p99_ms
        return told


def _power(eps: float) -> str:
    """1e-3 and 5e-4 rather than 0.001 and 0.0005."""
    mantissa, exponent = f"{eps:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
