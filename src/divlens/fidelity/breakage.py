"""Whether fidelity fell: diversity also rises when pictures break."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from divlens.statistics import CONFIDENCE, Interval, change_of_share


@dataclass(frozen=True)
class FidelityChange:
    """Fidelity before and after, means over the prompts that have both, in [0, 1]; NaN where none has.

    change: after - before, paired by prompt. prompts: how many have both. chance: see `chance_of_fall`; NaN where the
    interval tells enough, and where fidelity did not go down.
    """

    before: float
    after: float
    change: Interval
    prompts: int
    chance: float = math.nan

    @property
    def by_samples(self) -> bool:
        """Whether the samples decide, for prompts tell little of how far the change may be off: there is one, or all
        went down alike."""
        return not math.isnan(self.chance)

    @property
    def fell(self) -> bool:
        """Whether it fell beyond its 95% interval over prompts or, where there is none, beyond the chance of 2.5% that
        the exact comparison of samples leaves."""
        return self.chance < (1 - CONFIDENCE) / 2 if self.by_samples else self.change.high < 0


def fidelity_change(
    before: Float[np.ndarray, " prompts"], after: Float[np.ndarray, " prompts"], n: int, seed: int = 0
) -> FidelityChange:
    """How fidelity changed, from the shares of `n` samples of each prompt that are right; NaN for a prompt that the
    judge does not know."""
    known = ~(np.isnan(before) | np.isnan(after))
    first, second = before[known], after[known]
    change = change_of_share(second, first, n, seed)
    if not known.any():
        return FidelityChange(math.nan, math.nan, change, 0)
    found = FidelityChange(float(first.mean()), float(second.mean()), change, len(first))
    if change.value >= 0 or np.ptp(second - first) > 0:
        return found
    return replace(found, chance=chance_of_fall(np.rint(first * n), np.rint(second * n), n))


def chance_of_fall(before: Float[np.ndarray, " prompts"], after: Float[np.ndarray, " prompts"], n: int) -> float:
    """The chance of as few right samples after as there were, or fewer, if a prompt's samples were as likely to be
    right after as before; NaN for no prompt.

    `before`, `after`: how many of `n` samples of each prompt are right. Given how many of a prompt's 2n are right,
    those after are hypergeometric; for one prompt this is the one-sided test of Fisher (1935), and several are added
    up. Noise that both sides share makes it cautious.
    """
    if not len(before):
        return math.nan
    total, law = round(float(after.sum())), np.ones(1)
    for right in np.rint(before + after).astype(int):
        law = np.convolve(law, hypergeometric(int(right), n))
    return min(1.0, float(law[: total + 1].sum()))


def hypergeometric(right: int, n: int) -> Float64[np.ndarray, " counts"]:
    """The chances of 0, 1, ..., n right ones among n of 2n, `right` of which are."""
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2 * n + 1)))])  # of factorials

    def ways(of: int, some: np.ndarray) -> np.ndarray:
        return logarithms[of] - logarithms[some] - logarithms[of - some]

    counts = np.arange(max(0, right - n), min(n, right) + 1)
    chances = np.zeros(n + 1)
    chances[counts] = np.exp(ways(right, counts) + ways(2 * n - right, n - counts) - ways(2 * n, np.array(n)))
    return chances
