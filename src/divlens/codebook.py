"""Which codes make up a fraction of a codebook: the most used ones, those with most of the mass, or random ones."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

By = Literal["frequency", "mass", "random"]
WAYS: tuple[By, ...] = get_args(By)
ORDER_SEED = 0  # of the random order of codes, which belongs to the number of codes and to nothing else
ROUNDING = 1e-9  # of sums of tens of thousands of float64 shares


def fraction_of_codes(share: Float[Tensor, " codes"], fraction: float, by: By) -> Bool[Tensor, " codes"]:
    """The codes that make up `fraction` in (0, 1] of a codebook, one at least; those of a smaller fraction are among
    those of a larger one.

    `share`: how often each code comes out; sums to 1. `by`: "frequency", the round(fraction * codes) that come out most
    often, ties by lower id; "mass", the fewest of these whose shares reach `fraction`; "random", round(fraction *
    codes) whatever their share, the first of an order that only the number of codes decides.
    """
    most_used = share.argsort(descending=True, stable=True)
    count = max(1, round(fraction * len(share)))
    if by == "mass":
        before = share[most_used].cumsum(0) - share[most_used]
        count = max(1, int((before < fraction - ROUNDING).sum()))
    chosen = torch.zeros(len(share), dtype=torch.bool)
    chosen[(random_order(len(share)) if by == "random" else most_used)[:count]] = True
    return chosen


def random_order(codes: int) -> Tensor:
    """A permutation of the codes. numpy promises that those of `RandomState` never change."""
    return torch.from_numpy(np.random.RandomState(ORDER_SEED).permutation(codes))
