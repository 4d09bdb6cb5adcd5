"""What a contrast shows: the diversity under a condition against baseline, prompt by prompt, under the same noise.

A contrast is a *drop* or a *rise* where a test of no change rejects, *equivalent* where two one-sided tests reject
every change of at least a margin (Schuirmann, 1987), *zero* where nothing but duplicates is left, and else *undecided*.
"Not significant" is never taken for "no effect". Prompts are the unit: samples of a prompt and pairs of pictures are
not independent. docs/statistics.md gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError, is_number
from divlens.showing import counted
from divlens.statistics import Interval, relative_change
from divlens.verdict.significance import fewest_prompts, hedges_g, holm, p_text, prompts_that_decide, sign_flip_p

Outcome = Literal["zero", "drop", "rise", "equivalent", "undecided"]
ZERO: Outcome = "zero"
DROP: Outcome = "drop"
RISE: Outcome = "rise"
EQUIVALENT: Outcome = "equivalent"
UNDECIDED: Outcome = "undecided"
LEVEL = 0.05  # chance of any wrong decision among the contrasts of a model, of each kind of test
POWER = 0.8  # with which the prompts that are named would decide
MARGIN = 0.1  # of baseline: a smaller change counts as none


@dataclass(frozen=True)
class Contrast:
    """A condition against baseline.

    outcome: what is decided. change: relative to baseline, with its 95% interval. of_no_change, of_equivalence: p
    values, adjusted for all contrasts of the model; the second is that of two one-sided tests. effect: Hedges' g, the
    mean difference in standard deviations of the prompts' differences, corrected for their number. prompts: how many
    have both values. would_decide: how many prompts would decide with a chance of 80% if what was seen is the truth; 0
    where it is decided, NaN where no number up to 10,000 would.
    """

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
        if self.outcome == ZERO:
            return "to zero, for all samples of every prompt are one"
        if self.outcome == EQUIVALENT:
            return f"equivalent within {100 * self.margin:.0f}% ({percent}, {p_text(self.of_equivalence)})"
        if self.outcome != UNDECIDED:
            return f"{self.outcome} ({percent}, {p_text(self.of_no_change)})"
        if math.isnan(self.change.value):
            return "undecided (no prompt has a value on both sides)"
        enough = "" if math.isnan(self.would_decide) else f"; about {self.would_decide:.0f} would decide"
        return f"undecided ({percent} over {counted(self.prompts, 'prompt')}{enough})"


def contrasts_of(
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
    only_duplicates: Mapping[str, bool],
    *,
    margin: float = MARGIN,
    seed: int = 0,
) -> dict[str, Contrast]:
    """What the diversity of each condition shows, decided together: the chance that any of them is called a drop or a
    rise though nothing changed is at most 5%, and so is that of any that is called equivalent though it changed by more
    than `margin`.

    Values are at least 0, one of each prompt, NaN where undefined. `only_duplicates`: of a condition, whether all
    samples of every prompt are the same. Raises DivlensError for a margin outside of (0, 1).
    """
    if not (is_number(margin) and 0 < margin < 1):
        raise DivlensError(f"margin expects a share of baseline in (0, 1), got {margin!r:.40}")
    pairs = [known_of_both(baseline, values) for values in conditions.values()]
    no_change, equivalence = holm(np.array([p_values(*pair, margin, seed) for pair in pairs]).T)
    found: dict[str, Contrast] = {}
    for place, (name, (before, after)) in enumerate(zip(conditions, pairs, strict=True)):
        change, p = relative_change(after, before, seed), (float(no_change[place]), float(equivalence[place]))
        outcome = ZERO if only_duplicates.get(name, False) else outcome_of(float((after - before).sum()), *p)
        enough = would_decide(before, after, margin, len(pairs)) if outcome == UNDECIDED else 0.0
        found[name] = Contrast(outcome, change, *p, hedges_g(after - before), len(before), margin, enough)
    return found


def known_of_both(
    baseline: Float[np.ndarray, " prompts"], values: Float[np.ndarray, " prompts"]
) -> tuple[Float[np.ndarray, " known"], Float[np.ndarray, " known"]]:
    """The values of the prompts that have both."""
    known = ~(np.isnan(baseline) | np.isnan(values))
    return baseline[known], values[known]


def p_values(
    before: Float[np.ndarray, "*some prompts"], after: Float[np.ndarray, "*some prompts"], margin: float, seed: int
) -> tuple[Float[np.ndarray, "*some"], Float[np.ndarray, "*some"]]:
    """Of no change, and of a change by the margin or more, which is what equivalence has to reject, down and up."""
    down = sign_flip_p(after - (1 - margin) * before, "greater", seed)
    up = sign_flip_p((1 + margin) * before - after, "greater", seed)
    return sign_flip_p(after - before, "two-sided", seed), np.asarray(np.maximum(down, up))


def outcome_of(change: float, of_no_change: float, of_equivalence: float) -> Outcome:
    """A change that is real and smaller than the margin is equivalent."""
    if of_equivalence < LEVEL:
        return EQUIVALENT
    if of_no_change < LEVEL:
        return DROP if change < 0 else RISE
    return UNDECIDED


def would_decide(
    before: Float[np.ndarray, " prompts"], after: Float[np.ndarray, " prompts"], margin: float, tests: int
) -> float:
    """How many prompts would decide a contrast that is one of so many; never fewer than can."""
    enough = prompts_that_decide(before, after, margin=margin, level=LEVEL / tests, power=POWER)
    return max(enough, float(fewest_prompts(tests, LEVEL)))  # NaN, where it is, comes first and stays
