"""Estimates: means over prompts in bits per image, with the intervals that belong to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from divlens.statistics import Interval, bootstrap_mean, freedom_of_sum, student_interval

BITS = 1 / math.log(2)  # of a nat


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, in bits per image, with two kinds of uncertainty.

    over_prompts: the mean with its interval over prompts, which takes the prompts for a sample of those one might have
    asked. monte_carlo: the same mean with the interval that holds for exactly these prompts, whose samples are drawn at
    random; mc_error is its standard error. per_prompt: the value of each prompt with its own Monte-Carlo interval, and
    per_prompt_mc_error the standard errors; both are empty for a quantity that single prompts do not have. `note` says
    why a value is NaN, or what it is conditional on.

    The intervals also allow for what no sample showed; see docs/intervals.md.
    """

    over_prompts: Interval
    monte_carlo: Interval
    mc_error: float = math.nan
    note: str = ""
    per_prompt: tuple[Interval, ...] = ()
    per_prompt_mc_error: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        return self.over_prompts.value

    def at_most(self, most: float) -> Estimate:
        """The estimate with intervals of the mean that end at `most`. A single prompt may contribute more."""
        whole = {name: getattr(self, name).within(most=most) for name in ("over_prompts", "monte_carlo")}
        return replace(self, **whole)

    def __mul__(self, scale: float) -> Estimate:
        """The estimate in another unit, of which `scale` > 0 make one of the old."""
        return Estimate(
            self.over_prompts * scale,
            self.monte_carlo * scale,
            self.mc_error * scale,
            self.note,
            tuple(one * scale for one in self.per_prompt),
            tuple(error * scale for error in self.per_prompt_mc_error),
        )

    def __add__(self, other: Estimate) -> Estimate:
        """The sum of two quantities that are not negative, prompt by prompt.

        The Monte-Carlo errors are added, for both quantities are measured on the same samples and may err together. Of
        a sum that is NaN the note says only why it is.
        """
        lacking = [part.note for part in (self, other) if not part.per_prompt]
        if lacking:
            return undefined("; ".join(filter(None, dict.fromkeys(lacking))))
        note = "; ".join(filter(None, dict.fromkeys((self.note, other.note))))
        per_prompt = [(a + b).within(0.0) for a, b in zip(self.per_prompt, other.per_prompt, strict=True)]
        errors = zip(self.per_prompt_mc_error, other.per_prompt_mc_error, strict=True)
        over_prompts = bootstrap_mean(np.array([one.value for one in per_prompt]), limits=(0.0, math.inf))
        monte_carlo = replace(self.monte_carlo + other.monte_carlo, value=over_prompts.value).within(0.0)
        error = self.mc_error + other.mc_error
        over_prompts = over_prompts.hull(monte_carlo)
        return Estimate(over_prompts, monte_carlo, error, note, tuple(per_prompt), tuple(a + b for a, b in errors))


def undefined(reason: str) -> Estimate:
    """An estimate of what has no value."""
    return without_error(math.nan, reason)


def without_error(bits: float, note: str) -> Estimate:
    """A value of the whole set of prompts, which has no error and is not a mean over them."""
    return Estimate(Interval(bits), Interval(bits), note=note)


def same_for_all(bits: float, prompts: int, note: str) -> Estimate:
    """A value that every prompt has and that is known without error."""
    return estimate(PromptMeans(np.full(prompts, bits), np.zeros(prompts), np.ones(prompts)), note)


@dataclass(frozen=True)
class PromptMeans:
    """Of each prompt: the mean of its samples, the variance of that mean, with how many degrees of freedom the variance
    is known, and the third central moment of the mean. The variance is NaN where a prompt has one sample only; without
    third moments the means are taken for symmetric."""

    mean: Float[np.ndarray, " prompts"]
    variance: Float[np.ndarray, " prompts"]
    freedom: Float[np.ndarray, " prompts"]
    third: Float[np.ndarray, " prompts"] | None = None


def estimate(means: PromptMeans, note: str = "", limits: tuple[float, float] = (0.0, math.inf)) -> Estimate:
    """The mean over prompts, with Student's interval for exactly these prompts, corrected for the skewness of the mean.

    A prompt's value lies within `limits`, so the intervals are cut there. (An estimate of a bound may fall outside. Its
    interval then reaches from there.)
    """
    over_prompts, errors = bootstrap_mean(means.mean, limits=limits), np.sqrt(means.variance)
    error, freedom = float(np.sqrt(means.variance.sum())), freedom_of_sum(means.variance, means.freedom)
    skewness = float(means.third.sum()) / error**3 if means.third is not None and error > 0 else 0.0
    error /= len(errors)
    whole = student_interval(over_prompts.value, error, freedom, skewness)
    per_prompt = map(student_interval, means.mean.tolist(), errors.tolist(), means.freedom.tolist())
    return Estimate(
        over_prompts,
        whole.within(*limits),
        error,
        note,
        tuple(one.within(*limits) for one in per_prompt),
        tuple(errors.tolist()),
    )
