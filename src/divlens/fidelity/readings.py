"""What a judge reads in the pictures of a prompt, counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from divlens.fidelity import Judge, Named, confusion_of


@dataclass
class ReadingCounts:
    """How often each value of each attribute was read in a prompt's pictures. `named`: what the prompt names."""

    judge: Judge
    named: Named
    counts: list[Float[np.ndarray, " _"]]

    @classmethod
    def of(cls, judge: Judge, named: Named) -> ReadingCounts:
        """Nothing was read yet."""
        return cls(judge, named, [np.zeros(len(attribute)) for attribute in judge.attributes])

    def add(self, readings: Int[Tensor, "some attributes"]) -> None:
        for place, counts in enumerate(self.counts):
            counts += np.bincount(readings[:, place].cpu().numpy(), minlength=len(counts))

    @property
    def telling(self) -> list[int]:
        """The attributes that can tell pictures apart, by their places: those of one value cannot."""
        return [place for place, counts in enumerate(self.counts) if len(counts) > 1]

    def confusion(self, place: int) -> Float[np.ndarray, "true read"]:
        """How often the judge reads a true value (row) as each value (column)."""
        return confusion_of(self.judge, self.judge.attributes[place])
