"""What a contrast shows: the diversity under a condition against baseline, prompt by prompt, under the same noise.

A contrast is a *drop* or a *rise* where a test of no change rejects, *equivalent* where two one-sided tests reject
every change of at least a margin (Schuirmann, 1987), *zero* where nothing but duplicates is left, and else *undecided*.
"Not significant" is never taken for "no effect". Prompts are the unit: samples of a prompt and pairs of pictures are
not independent. Where prompts are added until contrasts are decided, every look at them may err, and the 5% are parted
evenly among the planned looks. docs/statistics.md gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError, is_number
from divlens.statistics import Interval, relative_change
from divlens.verdict.significance import fewest_prompts, hedges_g, holm, prompts_that_decide, sign_flip_p

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
class Look:
    """Which look at a growing run this is, from 1, of how many that were planned."""

    number: int = 1
    planned: int = 1


ONLY_LOOK = Look()


@dataclass(frozen=True)
class Contrast:
    """A condition against baseline.

    outcome: what is decided. change: relative to baseline, with its 95% interval. of_no_change, of_equivalence: p
    values, adjusted for all contrasts of the model and for all planned looks; the second is that of two one-sided
    tests. effect: Hedges' g, the mean difference in standard deviations of the prompts' differences, corrected for
    their number. prompts: how many have both values. would_decide: how many prompts would decide with a chance of 80%
    if what was seen is the truth; 0 where it is decided, NaN where no number up to 10,000 would. look: at which look it
    was decided, 0 where it is not.
    """

    outcome: Outcome
    change: Interval
    of_no_change: float
    of_equivalence: float
    effect: float
    prompts: int
    margin: float
    would_decide: float = 0.0
    look: int = 0


def contrasts_of(
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
    only_duplicates: Mapping[str, bool],
    *,
    margin: float = MARGIN,
    seed: int = 0,
    look: Look = ONLY_LOOK,
    before: Mapping[str, Contrast] | None = None,
) -> dict[str, Contrast]:
    """What the diversity of each condition shows, decided together: the chance that any of them is called a drop or a
    rise though nothing changed is at most 5%, and so is that of any that is called equivalent though it changed by more
    than `margin`. That holds over all planned looks, of which this is one.

    Values are at least 0, one of each prompt, NaN where undefined. `only_duplicates`: of a condition, whether all
    samples of every prompt are the same. `before`: the contrasts of the look before, whose decisions stand. Raises
    DivlensError for a margin outside of (0, 1).
    """
    if not (is_number(margin) and 0 < margin < 1):
        raise DivlensError(f"margin expects a share of baseline in (0, 1), got {margin!r:.40}")
    pairs = [known_of_both(baseline, values) for values in conditions.values()]
    adjusted = holm(np.array([p_values(*pair, margin, seed) for pair in pairs]).T)
    no_change, equivalence = shared_among_looks(adjusted, look.planned)
    found: dict[str, Contrast] = {}
    for place, (name, (first, second)) in enumerate(zip(conditions, pairs, strict=True)):
        change, p = relative_change(second, first, seed), (float(no_change[place]), float(equivalence[place]))
        earlier = (before or {}).get(name)
        if earlier is not None:
            p = min(p[0], earlier.of_no_change), min(p[1], earlier.of_equivalence)
        outcome = ZERO if only_duplicates.get(name, False) else outcome_of(float((second - first).sum()), *p)
        decided_at = 0 if outcome == UNDECIDED else (earlier.look if earlier else 0) or look.number
        enough = would_decide(first, second, margin, len(pairs), look.planned) if outcome == UNDECIDED else 0.0
        found[name] = Contrast(
            outcome, change, *p, hedges_g(second - first), len(first), margin, enough, look=decided_at
        )
    return found


def shared_among_looks(p_values: Float[np.ndarray, "*some"], planned: int) -> Float[np.ndarray, "*some"]:
    """Adjusted for so many looks: those below a level reject, at any of the looks, at that level (Bonferroni). The
    looks share prompts, and this needs to know nothing of how."""
    return np.minimum(1.0, planned * p_values)


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
    before: Float[np.ndarray, " prompts"], after: Float[np.ndarray, " prompts"], margin: float, tests: int, looks: int
) -> float:
    """How many prompts would decide a contrast that is one of so many, at one of so many looks; never fewer than
    can."""
    level = LEVEL / looks
    enough = prompts_that_decide(before, after, margin=margin, level=level / tests, power=POWER)
    return max(enough, float(fewest_prompts(tests, level)))  # NaN, where it is, comes first and stays
