"""What a contrast shows: the diversity under a condition against baseline, prompt by prompt, under the same noise.

A contrast is a *drop* or a *rise* where a test of no change rejects, *equivalent* where two one-sided tests reject every
change of at least a margin (Schuirmann, 1987), *zero* where nothing but duplicates is left, and else *undecided*. "Not
significant" is never taken for "no effect".

Every test is a permutation test of paired values by scipy: under its hypothesis a prompt's difference is as likely to
have the one sign as the other. It is exact for up to `EXACT` prompts. Prompts are the unit; samples of a prompt and pairs
of pictures are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError, is_number
from divlens.statistics import Interval, relative_change

Outcome = Literal["zero", "drop", "rise", "equivalent", "undecided"]
LEVEL = 0.05  # chance of any wrong decision among the contrasts of a model, of each kind of test
POWER = 0.8  # with which the prompts that are named would decide
MARGIN = 0.1  # of baseline: a smaller change counts as none
EXACT = 13  # prompts up to which all sign changes are tried: 8192
RESAMPLES = 9999  # sign changes that are tried of more
MOST_PROMPTS = 10_000  # more are not asked for


@dataclass(frozen=True)
class Contrast:
    """A condition against baseline.

    condition: its name. outcome: what is decided. change: relative to baseline, with its 95% interval. of_no_change,
    of_equivalence: p values, adjusted for all contrasts of the model (Holm, 1979); the second is that of two one-sided
    tests. effect: Hedges' g, the mean difference in standard deviations of the prompts' differences, corrected for
    their number. prompts: how many have both values. would_decide: how many prompts would decide with a chance of 80%
    if what was seen is the truth; 0 where it is decided, NaN where no number up to 10,000 would.
    """

    condition: str
    outcome: Outcome
    change: Interval
    of_no_change: float
    of_equivalence: float
    effect: float
    prompts: int
    margin: float
    would_decide: float = 0.0

    @property
    def words(self) -> str:
        """What is decided, in a few words."""
        percent = f"{100 * self.change.value:+.0f}%"
        if self.outcome == "zero":
            return "to zero: all samples of every prompt are one"
        if self.outcome == "equivalent":
            return f"equivalent within {100 * self.margin:.0f}% ({percent}, p = {p_text(self.of_equivalence)})"
        if self.outcome == "undecided":
            enough = "" if math.isnan(self.would_decide) else f"; about {self.would_decide:.0f} prompts would decide"
            return f"undecided ({percent}, {self.prompts} prompts{enough})"
        return f"{self.outcome} ({percent}, p = {p_text(self.of_no_change)})"


def contrasts_of(
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
    only_duplicates: Mapping[str, bool],
    *,
    margin: float = MARGIN,
    seed: int = 0,
) -> list[Contrast]:
    """What the diversity of each condition shows, decided together: the chance that any of them is called a drop or a
    rise though nothing changed, or equivalent though it changed by more than `margin`, is at most 5% each.

    Values are at least 0, one of each prompt, NaN where undefined. `only_duplicates`: of a condition, whether all
    samples of every prompt are the same. Raises DivlensError for a margin outside of (0, 1).
    """
    if not (is_number(margin) and 0 < margin < 1):
        raise DivlensError(f"margin expects a share of baseline in (0, 1), got {margin!r:.40}")
    found = [single(name, baseline, values, margin, seed) for name, values in conditions.items()]
    for field in ("of_no_change", "of_equivalence"):
        adjusted = holm([getattr(contrast, field) for contrast in found])
        found = [replace(contrast, **{field: p}) for contrast, p in zip(found, adjusted, strict=True)]
    return [decided(one, only_duplicates.get(one.condition, False), baseline, conditions) for one in found]


def single(
    name: str,
    baseline: Float[np.ndarray, " prompts"],
    values: Float[np.ndarray, " prompts"],
    margin: float,
    seed: int,
) -> Contrast:
    """A contrast by itself, not decided yet."""
    known = ~(np.isnan(baseline) | np.isnan(values))
    before, after = baseline[known], values[known]
    differences = after - before
    no_change = sign_flip_p(differences, "two-sided", seed)
    # A change of more than the margin, down or up, is what has to be rejected.
    down = sign_flip_p(after - (1 - margin) * before, "greater", seed)
    up = sign_flip_p((1 + margin) * before - after, "greater", seed)
    change = relative_change(after, before, seed)
    return Contrast(name, "undecided", change, no_change, max(down, up), hedges_g(differences), len(before), margin)


def decided(
    contrast: Contrast,
    only_duplicates: bool,
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
) -> Contrast:
    """The contrast with its outcome. A change that is real and smaller than the margin is equivalent."""
    if only_duplicates:
        return replace(contrast, outcome="zero")
    if contrast.of_equivalence < LEVEL:
        return replace(contrast, outcome="equivalent")
    if contrast.of_no_change < LEVEL:
        return replace(contrast, outcome="drop" if contrast.change.value < 0 else "rise")
    values = conditions[contrast.condition]
    enough = prompts_that_decide(baseline, values, contrast.margin, tests=len(conditions))
    return replace(contrast, would_decide=enough)


def sign_flip_p(values: Float[np.ndarray, " prompts"], side: Literal["two-sided", "greater"], seed: int) -> float:
    """The p value of a mean of 0, or of at most 0: how often a mean with random signs is as far off, or as great. 1
    where fewer than two prompts are known or no value differs from 0."""
    if len(values) < 2 or not values.any():
        return 1.0
    from scipy.stats import permutation_test

    resamples = math.inf if len(values) <= EXACT else RESAMPLES
    found = permutation_test(
        (values,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative=side,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted by Holm's step-down method: those below a level reject, together, at that level."""
    order = np.argsort(p_values, kind="stable")
    adjusted, before = np.empty(len(p_values)), 0.0
    for rank, place in enumerate(order):
        before = max(before, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = before
    return adjusted.tolist()


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


def prompts_that_decide(
    baseline: Float[np.ndarray, " prompts"], values: Float[np.ndarray, " prompts"], margin: float, tests: int
) -> float:
    """How many prompts would decide with a chance of `POWER`, if the mean and the scatter that were seen are the truth,
    by the normal approximation; `tests`: how many contrasts are decided together. NaN where more than 10,000 would be
    needed or fewer than two prompts are known."""
    known = ~(np.isnan(baseline) | np.isnan(values))
    before, after = baseline[known], values[known]
    if len(before) < 2:
        return math.nan
    from scipy.special import ndtri

    level, power = LEVEL / tests, float(ndtri(POWER))
    change = after - before
    different = size_for(change * np.sign(change.mean()), float(ndtri(1 - level / 2)) + power)
    inside = [after - (1 - margin) * before, (1 + margin) * before - after]
    equivalent = max(size_for(part, float(ndtri(1 - level)) + power) for part in inside)
    fewest = min(different, equivalent)
    return math.nan if fewest > MOST_PROMPTS else float(max(math.ceil(fewest), len(before) + 1))


def size_for(values: Float[np.ndarray, " prompts"], standard_errors: float) -> float:
    """How many values have a mean so many standard errors above 0; infinite where it is not above."""
    mean, scatter = float(values.mean()), float(values.std(ddof=1))
    return (standard_errors * scatter / mean) ** 2 if mean > 0 else math.inf


def p_text(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"
