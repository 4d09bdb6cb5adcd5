"""Intervals that hold up: prompts are the clusters, and they are what is resampled (never image pairs)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over prompts with its confidence interval; NaN bounds where fewer than two prompts have a value."""

    value: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: Float[np.ndarray, " prompts"], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean and 95% interval by the bootstrap-t (Efron and Tibshirani, 1993, section 12.5) over prompts.

    The studentised bootstrap keeps its coverage at a dozen prompts, where percentiles are too narrow. NaN values (an
    undefined measurement) are left out; `count` says how many remain.
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    count = len(known)
    if count < 2:
        return Interval(float(known.mean()) if count else math.nan, math.nan, math.nan, count)
    mean, error = known.mean(), known.std(ddof=1) / math.sqrt(count)
    if error == 0:
        return Interval(float(mean), float(mean), float(mean), count)
    drawn = known[np.random.default_rng(seed).integers(count, size=(resamples, count))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    # A resample of one repeated value has no error of its own; it says the statistic is unbounded there.
    shifts = drawn.mean(axis=1) - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(errors > 0, shifts / errors, np.sign(shifts) * np.inf)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(t, [1 - tail, tail], method="nearest")
    bounds = (mean - low * error, mean - high * error)
    # Infinite quantiles (two or three prompts) mean that nothing can be said.
    return Interval(float(mean), *(float(b) if math.isfinite(b) else math.nan for b in bounds), count)


def paired_change(
    changed: Float[np.ndarray, " prompts"], baseline: Float[np.ndarray, " prompts"], seed: int = 0
) -> Interval:
    """Mean over prompts of changed - baseline, prompt by prompt, with its interval."""
    return bootstrap_mean(np.asarray(changed, float) - np.asarray(baseline, float), seed)


def relative_change(
    changed: Float[np.ndarray, " prompts"], baseline: Float[np.ndarray, " prompts"], seed: int = 0
) -> Interval:
    """(mean of changed - mean of baseline) / mean of baseline, both resampled together.

    The interval is that of the linearised ratio: prompts contribute (changed - (1 + r) * baseline) / mean of baseline.
    NaN where the baseline's mean is 0 or unknown.
    """
    changed, baseline = np.asarray(changed, float), np.asarray(baseline, float)
    both = ~(np.isnan(changed) | np.isnan(baseline))
    scale = baseline[both].mean() if both.any() else math.nan
    if not scale > 0:
        return Interval(math.nan, math.nan, math.nan, int(both.sum()))
    ratio = changed[both].mean() / scale - 1
    residual = bootstrap_mean((changed[both] - (1 + ratio) * baseline[both]) / scale, seed)
    return Interval(float(ratio), ratio + residual.low, ratio + residual.high, residual.count)
