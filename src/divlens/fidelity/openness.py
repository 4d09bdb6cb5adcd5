"""Openness, the true diversity: how much of what a prompt leaves open comes out.

A prompt of the laboratory leaves open what it does not name, and the law of that is even (`lab.law`). So the entropy of
each open attribute among a prompt's pictures, over the logarithm of the number of its values, is 0 where always the
same comes out and 1 where all values come out evenly. Pictures that differ in what the prompt names, or in what no
judge reads, add nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from divlens.fidelity import Judge, Named, confusion_of
from divlens.lab.correction import corrected_entropies


@dataclass
class Openness:
    """How often each value of each open attribute was read in a prompt's pictures. `counts`: by the attribute's
    place."""

    judge: Judge
    counts: Mapping[int, Float[np.ndarray, " values"]]

    @classmethod
    def of(cls, judge: Judge, named: Named) -> Openness:
        """Nothing was read yet of what is not named. An attribute of one value cannot be open."""
        sizes = [len(attribute) for attribute in judge.attributes]
        places = [i for i, value in enumerate(named) if value is None and sizes[i] > 1]
        return cls(judge, {i: np.zeros(sizes[i]) for i in places})

    def add(self, readings: Int[Tensor, "some attributes"]) -> None:
        for place, counts in self.counts.items():
            counts += np.bincount(readings[:, place].cpu().numpy(), minlength=len(counts))

    def value(self) -> float:
        """The mean over the open attributes. Corrected for the number of pictures, so that it may exceed 1, and for
        what the judge misreads (`lab.correction`). NaN for fewer than two pictures, and where nothing is open."""
        attributes = self.judge.attributes
        shares = [share_of_most(counts, confusion_of(self.judge, attributes[i])) for i, counts in self.counts.items()]
        return float(np.mean(shares)) if shares else math.nan


def share_of_most(counts: Float[np.ndarray, " values"], confusion: Float[np.ndarray, "true read"]) -> float:
    """The corrected entropy of what was read, over log2 of the number of values."""
    return float(corrected_entropies(counts[None], confusion)[0]) / math.log2(len(counts))
