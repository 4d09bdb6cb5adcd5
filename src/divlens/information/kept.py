"""Samples that are kept, so that their probability can be asked again under other conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.estimates import Estimate, estimate, undefined, widened
from divlens.information.strata import Strata, Sums, moments_of
from divlens.run import Row, Run
from divlens.statistics import unseen

OUT_OF_REACH = "{}: some grids were out of reach"


@dataclass(frozen=True)
class Kept:
    """Samples that are asked again: their rows, prompts, wordings (`stratum`, of the run's `strata`), records, and bits
    of the joint (of states for diffusion)."""

    rows: Sequence[Row]
    prompt: Int[Tensor, " kept"]
    stratum: Int[Tensor, " kept"]
    strata: Strata
    states: Sequence[Int[Tensor, "kept n"]]
    committed: Sequence[Bool[Tensor, "kept n"]]
    joint: Float[Tensor, " kept"]

    @property
    def grids(self) -> Int[Tensor, "kept n"]:
        return self.states[-1]

    @property
    def usable(self) -> tuple[Strata, Int[Tensor, " strata"]]:
        """Strata that have a variance, and into which of them each of `strata` goes."""
        return self.strata.with_variance(self.stratum.bincount(minlength=len(self.strata)))


def batches(run: Run, grids: int, questions: int) -> Iterator[range]:
    """The numbers of those questions that go into a batch, at least one, when each is asked of so many grids."""
    size = max(1, run.rooms.drawing.fits // grids)
    return (range(questions)[first : first + size] for first in range(0, questions, size))


def shares(used: Sequence[str]) -> dict[str, float]:
    """Each wording once, with its share of the samples."""
    return {text: count / len(used) for text, count in Counter(used).items()}


def distinct(run: Run) -> list[str]:
    """Every wording of the run once."""
    return list(dict.fromkeys(row.wording for row in run.rows))


def per_prompt(values: Float[Tensor, " kept"], kept: Kept, most: float, note: str, *, skewed: bool = False) -> Estimate:
    """Mean over prompts of the values of kept samples; that of a prompt cannot be below 0 or above `most`."""
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    sums = Sums.of(values[:, None]).gathered(kept.stratum, len(kept.strata))
    return estimate(moments_of(kept.strata, sums, skewed=skewed), note, limits=(0.0, most))


def cautious(
    found: Estimate,
    run: Run,
    kept: Kept,
    bits: Float[Tensor, " kept"],
    least: Float[Tensor, " prompts"] | float,
    most: Float[Tensor, " prompts"] | float | None = None,
) -> Estimate:
    """With intervals that allow for grids that none of the kept samples showed: that they tell not `bits`, as those do,
    but `least`, or `most`; None of a bound from below, which holds whatever they tell.

    m samples may all miss what has a chance of 1 - 0.025^(1/m) (Clopper and Pearson, 1934). At its ceiling I(X;Z) is a
    mean of values all alike, of whose rare exceptions few samples know nothing, and so it is near 0.
    """
    single = len(kept.strata) == len(run.wordings)
    if single and run.settings.without_noise == {"path", "execution"}:
        return found  # each prompt has one grid, and it was seen
    count = kept.prompt.bincount()
    told = kept.prompt.bincount(bits) / count
    down, up = (told - least).numpy(), (0 * told if most is None else most - told).numpy()
    own, pooled = np.array([unseen(samples) for samples in count.tolist()]), unseen(len(bits))
    return widened(found, (pooled * down.mean(), pooled * up.mean()), (own * down, own * up))
