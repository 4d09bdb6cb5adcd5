"""Openness, the true diversity, and the distance to the true law: how much of what a prompt leaves open comes out, and
how far all that comes out is from what should.

A prompt of the laboratory leaves open what it does not name, and the law of that is even (`lab.law`). So the entropy of
each open attribute among a prompt's pictures, over the logarithm of the number of its values, is 0 where always the
same comes out and 1 where all values come out evenly. Pictures that differ in what the prompt names, or in what no
judge reads, add nothing. The distance counts both: what is lacking of what is open, and what is not as it was named.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from divlens.fidelity.readings import ReadingCounts
from divlens.lab.correction import corrected_entropies, distance_of_prompt


def openness(read: ReadingCounts) -> float:
    """The mean over the open attributes. Corrected for the number of pictures, so that it may exceed 1, and for what
    the judge misreads (`lab.correction`). NaN for fewer than two pictures, and where nothing is open."""
    open_ = [place for place in read.telling if read.named[place] is None]
    shares = [share_of_most(read.counts[place], read.confusion(place)) for place in open_]
    return float(np.mean(shares)) if shares else math.nan


def share_of_most(counts: Float[np.ndarray, " values"], confusion: Float[np.ndarray, "true read"]) -> float:
    """The corrected entropy of what was read, over log2 of the number of values."""
    return float(corrected_entropies(counts[None], confusion)[0]) / math.log2(len(counts))


def distance_from_law(read: ReadingCounts) -> float:
    """The mean over all attributes of the total variation between what comes out and the law of the prompt: of what it
    names, the share of pictures that show another value; of what it leaves open, the distance to even shares.

    About 0 for a generator that is the law. An open attribute of K values adds 1 - 1/K where always the same comes out.
    Corrected for the number of pictures and for what the judge misreads, so that it may be below 0, with the bias that
    `lab.correction.distance_of_prompt` states. NaN without pictures, for one picture where something is open, and
    where the judge's readings do not determine the law.
    """
    found = []
    for place in read.telling:
        value, size = read.named[place], len(read.counts[place])
        law = np.full(size, 1 / size) if value is None else np.eye(size)[value]
        found.append(distance_of_prompt(law, read.counts[place], read.confusion(place)))
    return float(np.mean(found)) if found else math.nan
