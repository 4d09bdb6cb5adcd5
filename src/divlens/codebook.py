"""Which codes make up a fraction of a codebook: the most used ones, those with most of the mass, random ones, or
whole clusters of codes that are alike."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2
from torch import Tensor

By = Literal["frequency", "mass", "random", "cluster"]
WAYS: tuple[By, ...] = get_args(By)
ORDER_SEED = 0  # of the random orders of codes and of clusters, which belong to their number and to nothing else
ROUNDING = 1e-9  # of sums of tens of thousands of float64 shares


def fraction_of_codes(
    share: Float[Tensor, " codes"], fraction: float, by: By, clustered: Int[Tensor, " codes"] | None = None
) -> Bool[Tensor, " codes"]:
    """The codes that make up `fraction` in (0, 1] of a codebook, one at least; those of a smaller fraction are among
    those of a larger one.

    `share`: how often each code comes out; sums to 1. `by`: "frequency", the round(fraction * codes) that come out most
    often, ties by lower id; "mass", the fewest of these whose shares reach `fraction`; "random", round(fraction *
    codes) whatever their share, the first of an order that only the number of codes decides; "cluster", as many, the
    first of `clustered`, see `order_by_clusters`.
    """
    order = most_used = share.argsort(descending=True, stable=True)
    count = max(1, round(fraction * len(share)))
    if by == "random":
        order = random_order(len(share))
    elif by == "cluster":
        assert clustered is not None, "clusters of codes are not known"
        order = clustered
    elif by == "mass":
        before = share[most_used].cumsum(0) - share[most_used]
        count = max(1, int((before < fraction - ROUNDING).sum()))
    chosen = torch.zeros(len(share), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen


def random_order(codes: int) -> Tensor:
    """A permutation of the codes. numpy promises that those of `RandomState` never change."""
    return torch.from_numpy(np.random.RandomState(ORDER_SEED).permutation(codes))


def order_by_clusters(vectors: Float[Tensor, "codes d"]) -> Int[Tensor, " codes"]:
    """The codes, cluster after cluster: about sqrt(codes) clusters of vectors that are near each other (k-means), in a
    random order that knows nothing of how often a code comes out; within a cluster, by id.

    The first of them are codes that are alike, so that whole kinds of patches go or stay; of `random_order` a code that
    goes leaves others that look like it.
    """
    points = vectors.detach().cpu().double().numpy()
    count = min(round(len(points) ** 0.5), len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # there is one less, then
        _, cluster = kmeans2(points, count, minit="++", rng=np.random.default_rng(ORDER_SEED))
    rank = np.random.RandomState(ORDER_SEED).permutation(count)
    return torch.from_numpy(np.argsort(rank[cluster], kind="stable"))
