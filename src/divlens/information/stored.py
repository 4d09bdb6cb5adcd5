"""Samples whose records are stored, so that the probability of their grids can be computed under other conditions.

The record of a sample consists of the grid after every step and the positions that the step committed. Most samples are
only added to running sums when they are drawn, and nothing else of them is stored.
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
    """rows, prompt, stratum: the rows of the samples in the run, the indices of their prompts, and the indices of their
    wordings among the `strata` of the run. states, committed: their records, with one tensor for each step. joint: the
    bits of each sample, which are the sum of the joint entropies of its steps (for diffusion, of the states alone)."""

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
        """The sums of the samples' values, with one group for each of `strata`."""
        return Sums.of(values, self.stratum, len(self.strata))


def batches(run: Run, grids: int, questions: int) -> Iterator[range]:
    """The ranges of question indices that fill one batch each. A question takes one row for each of `grids` grids."""
    size = max(1, run.rooms.drawing.fits // grids)
    return (range(questions)[first : first + size] for first in range(0, questions, size))


def shares(used: Sequence[str]) -> dict[str, float]:
    """The share of the samples that has each wording."""
    return {text: count / len(used) for text, count in Counter(used).items()}


def distinct_wordings(run: Run) -> list[str]:
    """Every wording of the run once."""
    return list(dict.fromkeys(row.wording for row in run.rows))


def estimate_of_stored(values: Float[Tensor, " stored"], stored: StoredSamples, most: float, note: str) -> Estimate:
    """The mean over prompts of the stored samples' values. The value of a prompt is between 0 and `most`."""
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    means = prompt_means(stored.strata, stored.sums(values[:, None]))
    # There are too few samples to estimate the skewness of their mean.
    return estimate(replace(means, third=None), note, limits=(0.0, most))
