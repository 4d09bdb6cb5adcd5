"""Intervals that hold up: prompts are the clusters, and they are what is resampled (never image pairs)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 4000
CONFIDENCE = 0.95
FEWEST_TO_RESAMPLE = 6  # below, nearly constant resamples make the bootstrap-t twice as wide as need be
ROUNDING = 1e-6  # of degrees of freedom, before they are rounded down
NEXT_TO_NONE = 0.01  # of the error of all values: a t a hundred times too large
UNLIMITED = (-math.inf, math.inf)
MEANS, CORRELATIONS = 400, 20  # cells of the grid on which the posterior of a share is computed


@dataclass(frozen=True)
class Interval:
    """A value with its 95% confidence interval, whose ends are NaN where they are not known.

    The interval of a mean over prompts is not known where fewer than two prompts have a value.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def exactly(cls, value: float) -> Interval:
        """A value that is known without error."""
        return cls(value, value, value)

    def within(self, least: float = -math.inf, most: float = math.inf) -> Interval:
        """The part of the interval between these limits. It always holds the value, even one outside of the limits."""
        low, high = (min(max(end, least), most) for end in (self.low, self.high))
        return Interval(self.value, min(low, self.value), max(high, self.value))

    def hull(self, other: Interval) -> Interval:
        """The value with the smallest interval that holds both intervals."""
        return Interval(self.value, min(self.low, other.low), max(self.high, other.high))

    def __add__(self, other: Interval) -> Interval:
        """The sum of two values whose errors may have the same cause: end is added to end."""
        return Interval(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, scale: float) -> Interval:
        """The value in another unit, of which `scale` > 0 make one of the old."""
        return Interval(self.value * scale, self.low * scale, self.high * scale)


def bootstrap_mean(
    values: Float[np.ndarray, " prompts"],
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    limits: tuple[float, float] = UNLIMITED,
) -> Interval:
    """Mean and 95% interval by the bootstrap-t over prompts (Efron and Tibshirani, 1993, section 12.5).

    The studentised bootstrap keeps its coverage on skewed values at a dozen prompts, where percentiles and Student's t
    are too narrow. With fewer than 6 prompts, or where most values are equal so that many resamples are constant and
    have no t, the interval is Student's. `limits`: what a single value can be; bounds are cut there. NaN values (an
    undefined measurement) are left out. Equal values give an interval of width 0; of shares see `mean_share`.
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    count = len(known)
    if count < 2:
        return Interval(float(known.mean()) if count else math.nan)
    mean, error = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(count)
    if np.ptp(known) == 0:  # not by `error`: the standard deviation of equal numbers can be a rounding error
        return Interval.exactly(float(known[0]))
    low, high = resampled_t(known, seed, resamples) if count >= FEWEST_TO_RESAMPLE else UNLIMITED
    if not (math.isfinite(low) and math.isfinite(high)):
        high = student_t(count - 1)
        low = -high
    return Interval(mean, mean - high * error, mean - low * error).within(*limits)


def resampled_t(values: Float[np.ndarray, " prompts"], seed: int, resamples: int) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of t over resamples; infinite where too many resamples are constant."""
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))]
    errors, whole = (part.std(axis=-1, ddof=1) / math.sqrt(len(values)) for part in (drawn, values))
    t = studentised(drawn.mean(axis=1) - values.mean(), errors, float(whole))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(t, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def studentised(
    shifts: Float[np.ndarray, " resamples"], errors: Float[np.ndarray, " resamples"], whole: float
) -> Float[np.ndarray, " resamples"]:
    """Shift over error of each resample; infinite where its error is next to none beside that of the `whole`: values
    that are equal up to rounding are as good as equal."""
    constant = ~(errors > NEXT_TO_NONE * whole)  # a ratio's may be undefined, too
    t = shifts / np.where(constant, 1.0, errors)
    return np.where(constant & (shifts != 0), np.copysign(np.inf, shifts), t)


def student_t(freedom: float) -> float:
    """The t with P(|T| < t) = 0.95 under Student's law of so many degrees of freedom; NaN for none."""
    from scipy.special import stdtrit  # `import divlens` must not wait for scipy

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def student_interval(value: float, error: float, freedom: float, skewness: float = 0.0) -> Interval:
    """Student's 95% interval of a value with this standard error, which is known with these degrees of freedom.
    `skewness`: that of the value's error, for which the interval is corrected."""
    if error == 0:
        return Interval.exactly(value)
    t = student_t(freedom)
    return Interval(value, value - error * skewed_t(t, skewness), value - error * skewed_t(-t, skewness))


def skewed_t(t: float, skewness: float) -> float:
    """The quantile of (estimate - truth) / error, for an estimate of this skewness, that belongs to the quantile `t` of
    a symmetric law (Hall, 1992): the inverse of x + s x^2 / 3 + s^2 x^3 / 27 + s / 6."""
    if not math.isfinite(skewness) or abs(skewness) < 1e-6:
        return t
    return 3 / skewness * (math.cbrt(1 + skewness * (t - skewness / 6)) - 1)


def freedom_of_sum(variances: Float[np.ndarray, " parts"], freedom: Float[np.ndarray, " parts"]) -> float:
    """The degrees of freedom with which a sum of independent variances is known (Welch, 1947; Satterthwaite, 1946), in
    whole numbers and rounded down: with 1 to 3 of them an interval is the worse for any that are too many."""
    known = variances > 0  # what has no variance adds no uncertainty
    if not known.any():
        return math.nan
    return math.floor(variances.sum() ** 2 / (variances[known] ** 2 / freedom[known]).sum() + ROUNDING)


def mean_share(values: Float[np.ndarray, " prompts"], trials: int) -> Interval:
    """Mean over prompts of shares in [0, 1], each of `trials` samples of a prompt, with a 95% interval for the mean
    over all prompts that might have been asked.

    Shares near 0 or 1 scatter little, and hardly say how much prompts differ. So the interval is the posterior's under
    a beta-binomial law: each prompt has a chance of its own, of beta law, and its samples go by that. The prior is
    Jeffreys' for the mean, and even for the correlation between the samples of a prompt, which runs from 0, where all
    samples are trials, to 1, where only prompts are. Where every value is 0, or every one 1, nothing tells what the
    trials are, and the interval holds Clopper and Pearson's for the prompts. NaN values are left out; NaN bounds for
    one prompt.
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if (count := len(known)) < 2:
        return Interval(float(known.mean()) if count else math.nan)
    value = float(np.clip(known.mean(), known.min(), known.max()))
    low, high = quantiles(MEAN_SHARES, posterior_of_share(known * trials, np.full(count, float(trials))))
    low = min(low, 1 - unseen(count)) if value == 1 else low
    high = max(high, unseen(count)) if value == 0 else high
    return Interval(value, low, high).within(0.0, 1.0)


def change_of_share(
    changed: Float[np.ndarray, " prompts"], baseline: Float[np.ndarray, " prompts"], trials: int, seed: int = 0
) -> Interval:
    """Mean over prompts of changed - baseline, of two shares of the same `trials` samples, with a 95% interval.

    A change is how often a sample is another than before, less or more, times which way it goes: both are shares, with
    posteriors as in `mean_share`, of as many samples as the difference of the two counts shows. Samples that went one
    way and others that went back do not show in it, so the interval holds that of `paired_change`, too; and where no
    prompt changed, what Clopper and Pearson's allows for in the prompts, either way.
    """
    change = np.asarray(changed, float) - np.asarray(baseline, float)
    change = change[~np.isnan(change)]
    resampled, moved = bootstrap_mean(change, seed, limits=(-1.0, 1.0)), np.abs(change) * trials
    if (count := len(change)) < 2:
        return resampled
    often = posterior_of_share(moved, np.full(count, float(trials)))
    upward = posterior_of_share(np.maximum(change, 0) * trials, moved)
    net = MEAN_SHARES[:, None] * (2 * MEAN_SHARES - 1)
    order = net.flatten().argsort()
    low, high = quantiles(net.flatten()[order], np.outer(often, upward).flatten()[order])
    if not change.any():
        low, high = min(low, -unseen(count)), max(high, unseen(count))
    return resampled.hull(Interval(resampled.value, low, high))


# Even in the angle whose squared sine they are: that is Jeffreys' prior of a share.
MEAN_SHARES = np.sin((np.arange(MEANS) + 0.5) / MEANS * math.pi / 2) ** 2


def posterior_of_share(
    successes: Float[np.ndarray, " prompts"], trials: Float[np.ndarray, " prompts"]
) -> Float[np.ndarray, " means"]:
    """Chances of each of MEAN_SHARES to be the mean, under a beta-binomial law, see `mean_share`. Fractions of a
    success count in proportion between the whole ones."""
    correlation = (np.arange(CORRELATIONS) + 0.5) / CORRELATIONS
    both = 1 / correlation - 1  # a + b of the beta law
    a, b = MEAN_SHARES[:, None] * both, (1 - MEAN_SHARES[:, None]) * both
    log_likelihood = np.zeros_like(a)
    for before in range(math.ceil(trials.max(initial=0.0))):
        # Of prompts that had one success (failure, trial) more after so many.
        good, bad, any_ = (np.clip(part - before, 0, 1).sum() for part in (successes, trials - successes, trials))
        log_likelihood += good * np.log(a + before) + bad * np.log(b + before) - any_ * np.log(both + before)
    chance = np.exp(log_likelihood - log_likelihood.max()).sum(1)
    return chance / chance.sum()


def quantiles(values: Float[np.ndarray, " cells"], chances: Float[np.ndarray, " cells"]) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of a law on cells around rising values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.interp([tail, 1 - tail], chances.cumsum() - chances / 2, values)
    return float(low), float(high)


def unseen(count: int) -> float:
    """The chance of what so many trials all miss with a probability of 0.025 (Clopper and Pearson, 1934)."""
    return 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)


def paired_change(
    changed: Float[np.ndarray, " prompts"], baseline: Float[np.ndarray, " prompts"], seed: int = 0
) -> Interval:
    """Mean over prompts of changed - baseline, prompt by prompt, with its interval."""
    return bootstrap_mean(np.asarray(changed, float) - np.asarray(baseline, float), seed)


def ratio_of_means(
    numerator: Float[np.ndarray, " prompts"], denominator: Float[np.ndarray, " prompts"], seed: int = 0
) -> Interval:
    """Mean of one over mean of the other, with a 95% interval by the bootstrap-t over prompts.

    Each resample has its own ratio r* and its own standard error, from numerator - r* denominator: with prompts of
    unequal diversity, one linearised ratio for all resamples covers 2 points less. As in `bootstrap_mean`, Student's t
    serves below 6 prompts. NaN where the mean denominator is not above 0; NaN bounds for one prompt.
    """
    count, scale = len(denominator), float(denominator.mean())
    if not scale > 0:
        return Interval(math.nan)
    ratio = float(numerator.mean()) / scale
    residual = numerator - ratio * denominator
    around = bootstrap_mean(residual / scale, seed)
    if count < FEWEST_TO_RESAMPLE or np.ptp(residual) == 0:
        return Interval(ratio, ratio + around.low, ratio + around.high)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    above, below = numerator[drawn], denominator[drawn]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above.mean(1) / below.mean(1)
        errors = (above - ratios[:, None] * below).std(axis=1, ddof=1) / below.mean(1) / math.sqrt(count)
    error = float(residual.std(ddof=1)) / scale / math.sqrt(count)
    t = studentised(ratios - ratio, errors, error)
    low, high = np.quantile(t, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    if not (math.isfinite(low) and math.isfinite(high)):
        return Interval(ratio, ratio + around.low, ratio + around.high)
    return Interval(ratio, ratio - float(high) * error, ratio - float(low) * error)


def relative_change(
    changed: Float[np.ndarray, " prompts"], baseline: Float[np.ndarray, " prompts"], seed: int = 0
) -> Interval:
    """Mean of changed / mean of baseline - 1, over the prompts that have both values, with its interval.

    For values of at least 0, of which it is at least -1. See `ratio_of_means`.
    """
    changed, baseline = np.asarray(changed, float), np.asarray(baseline, float)
    both = ~(np.isnan(changed) | np.isnan(baseline))
    if not both.any():
        return Interval(math.nan)
    ratio = ratio_of_means(changed[both], baseline[both], seed)
    return Interval(ratio.value - 1, max(ratio.low - 1, -1.0), ratio.high - 1)
