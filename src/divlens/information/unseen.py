"""Intervals that allow for what no sample showed; see docs/intervals.md.

Where samples are all alike, or nearly, their scatter says little of how far their mean may be off. It may be off by
what rare outcomes would add that happen to be missing. How likely these are is known or has a bound, and so has what
they would add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import Tally
from divlens.information.estimates import BITS, Estimate, PromptMeans, estimate
from divlens.information.laws import law_of
from divlens.information.stored import StoredSamples
from divlens.interventions import Settings
from divlens.run import Run
from divlens.statistics import Interval, unseen

Bits = Float[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Unseen:
    """How far off a value may be because of what no sample showed: the mean over prompts, and the value of each prompt.
    The intervals are around 0."""

    whole: Interval
    each: tuple[Interval, ...]


def around_zero(down: Bits, up: Bits) -> Iterator[Interval]:
    """For each prompt the interval that reaches so far down and up from 0."""
    return (Interval(0.0, -float(less), float(more)) for less, more in zip(down, up, strict=True))


def of_pool_or_one_prompt(own: tuple[Bits, Bits], pooled: tuple[Bits, Bits]) -> Unseen:
    """`own`: by how many bits, down and up, the value of each prompt may be off, going by its own samples; `pooled`:
    the same going by the samples of all prompts. The mean is off by what the pool says, or by what one prompt alone
    would move it where that is more."""
    down, up = (
        max(float(every.mean()), float(each.max()) / len(each)) for each, every in zip(own, pooled, strict=True)
    )
    return Unseen(Interval(0.0, -down, up), tuple(around_zero(*own)))


def with_new_intervals(found: Estimate, off: Unseen, change: Callable[[Interval, Interval], Interval]) -> Estimate:
    """The estimate whose intervals are what `change` makes of each and of how far off its value may be."""
    if not found.per_prompt:
        return found
    return replace(
        found,
        over_prompts=change(found.over_prompts, off.whole),
        monte_carlo=change(found.monte_carlo, off.whole),
        per_prompt=tuple(change(*pair) for pair in zip(found.per_prompt, off.each, strict=True)),
    )


def wide_enough(found: Estimate, off: Unseen) -> Estimate:
    """The estimate with intervals that reach at least as far from their values as these may be off."""
    return with_new_intervals(found, off, lambda old, error: old.hull(Interval.exactly(old.value) + error).within(0.0))


def wider_for_rare_draws(found: Estimate, tally: Tally, means: Bits, most: float) -> Estimate:
    """The estimate with intervals that reach further by what rare draws would add: draws rarer than any that a sample
    made. It holds where there is one path only.

    After such a draw there may come no bits at all, or as many as a grid of `most` bits has room for. Samples scatter
    through their other draws all the same, so both errors are added.
    """
    own, pooled = tally.rare.rarer_than_own(tally.strata), tally.rare.rarer_than_all(tally.strata)
    bits = most / tally.path_map.shape[1]
    sides = [(part.chance * means, part.open_after * bits) for part in (own, pooled)]

    def with_rare_draws(old: Interval, error: Interval) -> Interval:
        # What a single prompt contributes to H(Z) may exceed `most`; rare draws do not add to that.
        return (old + error).within(0.0, max(old.high, most))

    return with_new_intervals(found, of_pool_or_one_prompt(*sides), with_rare_draws)


def wider_for_unseen_paths(found: Estimate, means: PromptMeans, joint: Bits, most: float) -> Estimate:
    """The estimate with intervals that reach at least as far as paths that no sample took would move the mean, if they
    had no bits, or `most`.

    The chance of such paths is at most that of what all samples miss, be it the samples of one prompt or of all. It is
    also at most the nats of a path: a draw of entropy H takes another than its likeliest outcome with a chance of at
    most H. `joint`: the mean bits of whole records.
    """
    samples, missing = means.freedom + 1, np.maximum(most - means.mean, 0.0)
    chances = (np.array([unseen(count) for count in samples]), unseen(samples.sum()))
    own, pooled = (np.minimum(chance, joint / BITS) for chance in chances)
    sides = [(chance * means.mean, chance * missing) for chance in (own, pooled)]
    return wide_enough(found, of_pool_or_one_prompt(*sides))


def wider_for_unseen_grids(
    found: Estimate,
    run: Run,
    stored: StoredSamples,
    bits: Float[Tensor, " stored"],
    least: Float[Tensor, " prompts"] | float,
    most: Float[Tensor, " prompts"] | float | None = None,
) -> Estimate:
    """The estimate with intervals that allow for grids of which none was stored. Where a stored grid says `bits` about
    its prompt, they may say `least` or `most`; None stands for a bound from below, which holds whatever they say.

    m samples may all miss what has a chance of 1 - 0.025^(1/m) (Clopper and Pearson, 1934). At its ceiling I(X;Z) is a
    mean of values that are all alike, and of their rare exceptions few samples know nothing. Near 0 it is the same.
    """
    single = len(stored.strata) == len(run.wordings)
    if single and run.settings.without_noise == {"path", "execution"}:
        return found  # each prompt has one grid, and it was seen
    count = stored.prompt.bincount()
    mean = stored.prompt.bincount(bits) / count
    down, up = (mean - least).numpy(), (0 * mean if most is None else most - mean).numpy()
    own, pooled = np.array([unseen(samples) for samples in count.tolist()]), unseen(len(bits))
    whole = Interval(0.0, -float(pooled * down.mean()), float(pooled * up.mean()))
    return wide_enough(found, Unseen(whole, tuple(around_zero(own * down, own * up))))


def estimate_of_quantity(
    tally: Tally,
    name: str,
    settings: Settings,
    most: float,
    note: str,
    extra: Bits | float = 0.0,
) -> Estimate:
    """One of QUANTITIES with `extra` bits added. Where the path has no noise of its own, its intervals allow for paths
    that no sample took."""
    means = tally.means(name, extra)
    found = estimate(means, note)
    if law_of(settings.rule).path_is_certain:
        return found if name == "path" else wider_for_rare_draws(found, tally, means.mean, most)
    if "path" not in settings.without_noise | settings.frozen:
        return found
    return wider_for_unseen_paths(found, means, tally.means("trajectory_joint").mean, most)
