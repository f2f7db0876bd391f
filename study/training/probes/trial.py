"""The probes of one trial, at its reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from study.config.schema import Probes
from study.measurement import ProbeReadings
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import Job, ProbeTarget, samples_at_once
from study.training.probes.noise import NoiseScale, gradient_norms, noise_parts
from study.training.probes.objective import probing
from study.training.probes.serving import serving_curve
from study.training.probes.sharpness import EPSILONS, model_curvature, model_sharpness
from study.workloads.data.batching import Batch, derived_seed

NOISE_DECAY = 0.9
NOISE_BATCHES = 4  # measured at each report
PROBE_BATCH = 2048  # samples at once, at most, of the whole training set
SERVING_S = 0.1  # for each request batch


class TrialProbes:
    """Measures what the config asks for, and calls `done` as it proceeds. It does not change the trial."""

    def __init__(
        self, config: Probes, topology: RankTopology, spec: TrialSpec, job: Job, done: Callable[[], None]
    ) -> None:
        self.config, self.topology, self.spec, self.job, self.done = config, topology, spec, job, done
        self.noise = NoiseScale(NOISE_DECAY)

    def measure(self, updates: int, final: bool) -> ProbeReadings:
        """Return what the config asks for. Every rank must call it; what one rank can measure alone, only rank 0 does:
        the others wait at the next collective.
        """
        probed = self._counted(self.job.probe_target())
        readings = ProbeReadings()
        if probed is not None and self.config.noise_scale:
            readings = replace(readings, noise_b_simple=self._noise(probed, updates))
        if final and self.topology.rank == 0:
            parameters = self.job.module.parameters()
            trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            readings = replace(readings, parameters=trainable)
            if probed is not None:
                readings = self._at_the_end(probed, readings)
        return readings

    def _counted(self, probed: ProbeTarget | None) -> ProbeTarget | None:
        """Call `done` for each batch that the loss is computed of."""
        if probed is None:
            return None
        loss = probed.loss

        def counted(batch: Batch) -> Tensor:
            self.done()
            return loss(batch)

        return replace(probed, loss=counted)

    def _noise(self, probed: ProbeTarget, updates: int) -> float:
        """Return the noise scale, in samples, from fresh batches of the size that is being trained on."""
        batch = self.spec.stage_at(updates - 1).batch
        generator = torch.Generator().manual_seed(derived_seed(*self.spec.seed, 0x0153, updates))
        parameters = [parameter for parameter in probed.model.parameters() if parameter.requires_grad]
        with probing(probed.model):
            for _ in range(NOISE_BATCHES):
                order = torch.randperm(len(probed.train), generator=generator)[: batch.global_batch]
                mine = order.view(batch.accumulation, batch.world_size, batch.micro_batch)[:, self.topology.rank]
                micro_batches = [(probed.train.x[rows], probed.train.y[rows]) for rows in mine]
                parts = noise_parts(micro_batches, batch.world_size)
                self.noise.add(gradient_norms(probed.loss, parameters, parts))
        return self.noise.b_simple

    def _at_the_end(self, probed: ProbeTarget, readings: ProbeReadings) -> ProbeReadings:
        """Add what is measured once, of the trained network."""
        model, loss = probed.model, probed.loss
        size = samples_at_once(probed.train, PROBE_BATCH)
        train: list[Batch] = list(zip(probed.train.x.split(size), probed.train.y.split(size), strict=True))
        if self.config.sharpness:
            full, subspace = {}, {}
            for eps in EPSILONS:
                full[eps] = model_sharpness(model, loss, train, eps)
                subspace[eps] = model_sharpness(model, loss, train, eps, np.random.default_rng(self.spec.seed))
            readings = replace(readings, sharpness_full=full, sharpness_subspace=subspace)
        if self.config.curvature:
            top = model_curvature(model, loss, train, np.random.default_rng(self.spec.seed))
            readings = replace(readings, hessian_top=top)
        if self.config.serving:
            points = serving_curve(model, probed.train.x[:PROBE_BATCH].cpu(), SERVING_S, self.done)
            readings = replace(readings, serving=points)
        return readings
