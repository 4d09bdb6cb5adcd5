"""Samples whose record is stored, so that the probability of their grids can be asked again under other conditions.

The record of a sample is the grid after every step, and which positions the step committed. Of most samples nothing is
stored, for they are added to running sums as they are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.estimates import Estimate, estimate, undefined
from divlens.information.strata import Strata, Sums, prompt_means
from divlens.run import Row, Run

OUT_OF_REACH = "{}: some grids were out of reach"


@dataclass(frozen=True)
class StoredSamples:
    """rows, prompt, stratum: the rows of the samples in the run, and the numbers of their prompts and of their wordings
    among the run's `strata`. states, committed: their records, a tensor for each step. joint: bits of what each drew,
    the entropy of the joint at every step of it (of the states alone for diffusion)."""

    rows: Sequence[Row]
    prompt: Int[Tensor, " stored"]
    stratum: Int[Tensor, " stored"]
    strata: Strata
    states: Sequence[Int[Tensor, "stored n"]]
    committed: Sequence[Bool[Tensor, "stored n"]]
    joint: Float[Tensor, " stored"]

    @property
    def grids(self) -> Int[Tensor, "stored n"]:
        return self.states[-1]

    def sums(self, values: Float[Tensor, "stored quantities"]) -> Sums:
        """The sums of the samples' values, a group for each of `strata`."""
        return Sums.of(values, self.stratum, len(self.strata))


def batches(run: Run, grids: int, questions: int) -> Iterator[range]:
    """The numbers of the questions that fill a batch, at least one, when each is asked of so many grids."""
    size = max(1, run.rooms.drawing.fits // grids)
    return (range(questions)[first : first + size] for first in range(0, questions, size))


def shares(used: Sequence[str]) -> dict[str, float]:
    """Each wording once, with its share of the samples."""
    return {text: count / len(used) for text, count in Counter(used).items()}


def distinct_wordings(run: Run) -> list[str]:
    """Every wording of the run once."""
    return list(dict.fromkeys(row.wording for row in run.rows))


def estimate_of_stored(values: Float[Tensor, " stored"], stored: StoredSamples, most: float, note: str) -> Estimate:
    """The mean over prompts of what the stored samples say; that of a prompt cannot be below 0 or above `most`."""
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    means = prompt_means(stored.strata, stored.sums(values[:, None]))
    # So few samples say too little of how skewed their mean is.
    return estimate(replace(means, third=None), note, limits=(0.0, most))
