"""The learning rates that a study tries, and their scaling with the batch size."""

from __future__ import annotations

import math

from study.config.schema import LogUniform, Search

DEFAULT_SAMPLES = 4


def base_rates(search: Search, seed: int) -> tuple[float, ...]:
    """Return the rates tried at the base batch, ascending.

    Rates from a range are stratified: one uniform draw, in the logarithm, from each of `samples` equal parts,
    so that few samples still cover the range.
    """
    if not isinstance(search.lr, LogUniform):
        return tuple(sorted(search.lr))
    import numpy as np  # a list of rates does without

    n = n_rates(search)

    draws = np.random.default_rng([seed, 0x1A]).uniform(size=n)
    low, high = math.log(search.lr.low), math.log(search.lr.high)
    return tuple(math.exp(low + (high - low) * (i + float(u)) / n) for i, u in enumerate(draws))


def n_rates(search: Search) -> int:
    """Return the length of `base_rates`, without drawing them."""
    return (search.samples or DEFAULT_SAMPLES) if isinstance(search.lr, LogUniform) else len(search.lr)


def scaled_rate(rate: float, batch_size: int, search: Search) -> float:
    """Return the rate at `batch_size` that the rule gives for `rate` at the base batch.

    linear: eta B/B0 (Goyal et al. 2017, arXiv:1706.02677). sqrt: eta sqrt(B/B0) (Krizhevsky 2014,
    arXiv:1404.5997; Hoffer et al. 2017, arXiv:1705.08741).
    """
    if search.base_batch is None:
        return rate
    ratio = batch_size / search.base_batch
    return rate * (ratio if search.lr_rule == "linear" else math.sqrt(ratio))
