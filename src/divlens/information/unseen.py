"""Intervals that allow for outcomes that no sample showed; see docs/intervals.md.

If all samples are equal or nearly equal, their scatter says little about the error of their mean. Rare outcomes may be
missing from the samples, and they would change the mean. The probability of such outcomes is known or bounded, and so
is the amount by which they would change the mean.
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
from divlens.run import Run
from divlens.settings import Settings
from divlens.statistics import Interval, unseen

Bits = Float[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Unseen:
    """How large the error from outcomes that no sample showed may be, as intervals around 0. whole: for the mean over
    prompts. each: for the value of each prompt."""

    whole: Interval
    each: tuple[Interval, ...]


def around_zero(down: Bits, up: Bits) -> Iterator[Interval]:
    """The interval from -`down` to `up` for each prompt."""
    return (Interval(0.0, -float(less), float(more)) for less, more in zip(down, up, strict=True))


def of_pool_or_one_prompt(own: tuple[Bits, Bits], pooled: tuple[Bits, Bits]) -> Unseen:
    """The possible error from the errors of each prompt, in bits down and up. `own`: those that follow from the samples
    of that prompt alone. `pooled`: those that follow from the samples of all prompts. The error of the mean over
    prompts is the mean of `pooled`, or what a single prompt could add to it, whichever is larger."""
    down, up = (
        max(float(every.mean()), float(each.max()) / len(each)) for each, every in zip(own, pooled, strict=True)
    )
    return Unseen(Interval(0.0, -down, up), tuple(around_zero(*own)))


def with_new_intervals(found: Estimate, off: Unseen, change: Callable[[Interval, Interval], Interval]) -> Estimate:
    """The estimate with new intervals. `change` computes each of them from the old interval and the possible error."""
    if not found.per_prompt:
        return found
    return replace(
        found,
        over_prompts=change(found.over_prompts, off.whole),
        monte_carlo=change(found.monte_carlo, off.whole),
        per_prompt=tuple(change(*pair) for pair in zip(found.per_prompt, off.each, strict=True)),
    )


def wide_enough(found: Estimate, off: Unseen) -> Estimate:
    """The estimate with intervals that are widened, where necessary, to cover the possible errors."""
    return with_new_intervals(found, off, lambda old, error: old.hull(Interval.exactly(old.value) + error).within(0.0))


def wider_for_rare_draws(found: Estimate, tally: Tally, means: Bits, most: float) -> Estimate:
    """The estimate with intervals that also cover the effect of draws rarer than any that a sample made. It is valid if
    there is only one path.

    After such a draw the rest of the grid may add 0 bits, or as many as fit into the open positions of a grid of at
    most `most` bits. The samples vary in their other draws as well, so this error is added to the one in the interval.
    """
    own, pooled = tally.rare.rarer_than_own(tally.strata), tally.rare.rarer_than_all(tally.strata)
    bits = most / tally.path_map.shape[1]
    sides = [(part.chance * means, part.open_after * bits) for part in (own, pooled)]

    def with_rare_draws(old: Interval, error: Interval) -> Interval:
        # The contribution of a single prompt to H(Z) may exceed `most`. Rare draws do not increase it further.
        return (old + error).within(0.0, max(old.high, most))

    return with_new_intervals(found, of_pool_or_one_prompt(*sides), with_rare_draws)


def wider_for_unseen_paths(found: Estimate, means: PromptMeans, joint: Bits, most: float) -> Estimate:
    """The estimate with intervals that cover the effect of paths that no sample took. Samples on such paths may have
    anything between 0 and `most` bits.

    The probability of these paths is at most that of an event that is missing from all samples of a prompt, or from all
    samples of all prompts. It is also at most the entropy of the record in nats, because the probability that a draw of
    entropy H is not its most likely outcome is at most H. `joint`: the mean bits of whole records.
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
    """The estimate with intervals that allow for grids that are not among the stored ones. A stored grid gives `bits`
    about its prompt, and other grids may give as little as `least` or as many as `most`. For a lower bound `most` is
    None, because larger values cannot make it wrong.

    An event of probability 1 - 0.025^(1/m) may be missing from all m samples (Clopper and Pearson, 1934). When I(X;Z)
    is close to its maximum or to 0, nearly all values are equal, and a few samples do not show the rare exceptions.
    """
    single = len(stored.strata) == len(run.wordings)
    if single and run.settings.without_noise == {"path", "execution"}:
        return found  # each prompt can give only one grid, and it is among the samples
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
    """The estimate of one of QUANTITIES, plus `extra` bits. Its intervals allow for draws that are rarer than those of
    the samples or, if the noise of the path is off or frozen, for paths that no sample took."""
    means = tally.means(name, extra)
    found = estimate(means, note)
    if law_of(settings.rule).path_is_certain:
        return found if name == "path" else wider_for_rare_draws(found, tally, means.mean, most)
    if "path" not in settings.without_noise | settings.frozen:
        return found
    return wider_for_unseen_paths(found, means, tally.means("trajectory_joint").mean, most)
