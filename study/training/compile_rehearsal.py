"""torch.compile outside a trial's measured time: a throwaway trial of the same shapes goes first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import nn

from study.planning.trials import TrialSpec
from study.training.snapshot import generators, set_generators

SHAPES = 64  # of batches that one trial may compile for, training and validation, before torch gives up


def compile_children(module: nn.Module) -> None:
    """Compile each part of a LightningModule that has weights; the module itself calls Lightning and stays as it is.

    Each shape of batch gets its own code, so that no trial runs on code that an earlier one made more general.
    """
    for child in module.children():
        if next(child.parameters(), None) is not None:
            child.forward = torch.compile(child.forward, dynamic=False)


def rehearsal(spec: TrialSpec) -> TrialSpec:
    """Return a trial of one update with each batch size of the trial, and one report: every shape that the trial will
    have.
    """
    stages = [replace(stage, start_update=i, updates=1) for i, stage in enumerate(spec.stages)]
    return replace(spec, stages=tuple(stages), report_at=(len(stages),))


@contextmanager
def rehearsing() -> Iterator[None]:
    """Restore the random generators after the rehearsal inside: only its compiled code remains.

    torch keeps compiled code by the code of `forward`, not by the module, so that a fresh module finds it.
    """
    _forget()
    before = generators()
    try:
        yield
    finally:
        set_generators(before)


def _forget() -> None:
    """Drop compiled code as a fresh process would: a warm group's trials must not add up to more shapes than torch
    takes.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = SHAPES


def uncompiled(compiled: bool) -> AbstractContextManager[object]:
    """Run compiled modules as they were written, inside: probes differentiate twice, and use other shapes."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
