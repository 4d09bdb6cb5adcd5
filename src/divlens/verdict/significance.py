"""What the contrasts of a verdict are decided by: sign-flip tests, Holm's adjustment, Hedges' g, and how many prompts a
decision takes.

A sign-flip test is a permutation test of paired values: if a condition changes nothing, a prompt's two values might as
well be exchanged, and its difference has the one sign as often as the other (Fisher, 1935, section 21). All sign
changes are tried of up to `EXACT` prompts. These tests run many thousand times in the simulations that show how often
they err, so they are a product of matrices, which the tests hold against scipy's `permutation_test`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float

EXACT = 13  # prompts up to which all sign changes are tried: 8192
CHANGES = 9999  # random sign changes that are tried of more
AT_ONCE, ROWS = 2**20, 64  # signs that are held, and rows that they are applied to; they bound memory
ROUNDING = 1e-12  # of the sum of all values: two sums that differ by less are equal
MOST_PROMPTS = 10_000  # more are not asked for


def sign_flip_p(
    values: Float[np.ndarray, "*some prompts"], side: Literal["two-sided", "greater"], seed: int
) -> Float[np.ndarray, "*some"]:
    """The p value of a mean of 0, or of at most 0: how often a mean with other signs is as far off, or as great.

    1 for fewer than two prompts, and where no value differs from 0. Beyond `EXACT` prompts the signs are drawn, and the
    signs that are seen count among them, so that the p value is never below 1 / (CHANGES + 1).
    """
    prompts = values.shape[-1]
    if prompts < 2:
        return np.ones(values.shape[:-1])
    rows = values.reshape(-1, prompts)
    seen, slack = rows.sum(1), ROUNDING * np.abs(rows).sum(1)
    least = (np.abs(seen) if side == "two-sided" else seen) - slack
    as_great, tried = np.zeros(len(rows)), 0
    for signs in sign_changes(prompts, seed):
        for first in range(0, len(rows), ROWS):
            some = slice(first, first + ROWS)
            sums = rows[some] @ signs.T
            as_great[some] += ((np.abs(sums) if side == "two-sided" else sums) >= least[some, None]).sum(1)
        tried += len(signs)
    drawn = prompts > EXACT
    return ((as_great + drawn) / (tried + drawn)).reshape(values.shape[:-1])


def sign_changes(prompts: int, seed: int) -> Iterator[Float[np.ndarray, "changes prompts"]]:
    """All changes of sign, as +1 and -1; of many prompts random ones, some at a time."""
    if prompts <= EXACT:
        yield 1.0 - 2.0 * ((np.arange(2**prompts)[:, None] >> np.arange(prompts)) & 1)
        return
    random, some = np.random.default_rng(seed), max(1, AT_ONCE // prompts)
    for first, last in pairwise([*range(0, CHANGES, some), CHANGES]):
        yield 1.0 - 2.0 * random.integers(2, size=(last - first, prompts))


def holm(p_values: Float[np.ndarray, "*some tests"]) -> Float[np.ndarray, "*some tests"]:
    """Adjusted by Holm's step-down method (1979): those below a level reject, together, at that level."""
    order = np.argsort(p_values, axis=-1, kind="stable")
    times = np.arange(p_values.shape[-1], 0, -1)
    rising = np.maximum.accumulate(np.minimum(1.0, times * np.take_along_axis(p_values, order, -1)), axis=-1)
    adjusted = np.empty_like(rising)
    np.put_along_axis(adjusted, order, rising, -1)
    return adjusted


def hedges_g(differences: Float[np.ndarray, " prompts"]) -> float:
    """Mean over standard deviation of paired differences, without the bias of few prompts (Hedges, 1981); NaN where it
    is not defined."""
    count = len(differences)
    if count < 3 or np.ptp(differences) == 0:
        return math.nan
    from scipy.special import gammaln

    freedom = count - 1
    unbiased = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return float(differences.mean() / differences.std(ddof=1) * unbiased)


def fewest_prompts(tests: int, level: float) -> int:
    """With fewer prompts no sign-flip test of no change can reject, whatever is drawn: of k prompts the smallest p
    value, two-sided, is 2 / 2^k, which Holm's method multiplies by the number of tests."""
    return next(count for count in range(2, 64) if tests * 2.0 ** (1 - count) < level)


def prompts_that_decide(
    before: Float[np.ndarray, " prompts"],
    after: Float[np.ndarray, " prompts"],
    *,
    margin: float,
    level: float,
    power: float,
) -> float:
    """How many prompts would decide with a chance of `power`, if the mean and the scatter that were seen are the truth,
    by the normal approximation. NaN where more than 10,000 would be needed or fewer than two prompts are known.

    `level`: of one test, two-sided for a change and one-sided for equivalence.
    """
    if len(before) < 2:
        return math.nan
    from scipy.special import ndtri

    change = after - before
    different = size_for(change * np.sign(change.mean()), float(ndtri(1 - level / 2) + ndtri(power)))
    inside = (after - (1 - margin) * before, (1 + margin) * before - after)
    equivalent = max(size_for(part, float(ndtri(1 - level) + ndtri(power))) for part in inside)
    fewest = min(different, equivalent)
    return math.nan if fewest > MOST_PROMPTS else float(max(math.ceil(fewest), len(before) + 1))


def size_for(values: Float[np.ndarray, " prompts"], standard_errors: float) -> float:
    """How many values have a mean so many standard errors above 0; infinite where it is not above."""
    mean, scatter = float(values.mean()), float(values.std(ddof=1))
    return (standard_errors * scatter / mean) ** 2 if mean > 0 else math.inf
