"""How many samples are drawn until one is a repeat of another, which by the birthday paradox tells how many different
ones there are: of N that are equally likely, about sqrt(pi N / 2) (Arora, Risteski & Zhang, 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int
from torch import Tensor


def samples_until_repeat(counts: Sequence[int]) -> float:
    """The mean number of samples until one repeats another, where no more than the n + 1st is waited for: from 2, all
    are alike, to n + 1, no repeat among n. NaN for fewer than 2 samples.

    counts: how often each different sample came, n in all. With e_k their elementary symmetric polynomials, the chance
    that k of the n, whichever they are, differ is e_k(counts) / C(n, k), as in rarefaction (Hurlbert, 1971): without
    bias for the chance that k new samples differ. The mean of min(T, n + 1) is the sum of these chances over k from 0
    to n, so it has no bias either. It is at most n + 1: compare at equal n only.
    """
    n = sum(counts)
    return float(chances_of_no_repeat(counts).sum()) if n > 1 else math.nan


def chances_of_no_repeat(counts: Sequence[int]) -> Float64[np.ndarray, " n_and_1"]:
    """For k from 0 to n, the share of the subsets of k samples in which no two are repeats."""
    from scipy.special import gammaln  # `import divlens` must not wait for scipy

    def log_binomial(among: int, chosen: Float64[np.ndarray, " some"]) -> Float64[np.ndarray, " some"]:
        return gammaln(among + 1) - gammaln(chosen + 1) - gammaln(among - chosen + 1)

    # One kind of sample at a time: e_k of the kinds so far over C(m, k) of their m samples, which never overflows. Of
    # those that came once it is 1.
    before = sum(count == 1 for count in counts)
    chances = np.ones(before + 1)
    for count in (count for count in counts if count > 1):
        whole = before + count
        found, k = np.zeros(whole + 1), np.arange(whole + 1.0)
        out_of_before = np.exp(log_binomial(before, k[: before + 1]) - log_binomial(whole, k[: before + 1]))
        found[: before + 1] = chances * out_of_before
        one_of_this = np.exp(log_binomial(before, k[: before + 1]) - log_binomial(whole, k[1 : before + 2]))
        found[1 : before + 2] += chances * count * one_of_this
        chances, before = found, whole
    return chances


def sizes_of_clusters(squared: Float64[Tensor, "n n"], threshold: float) -> Int[np.ndarray, " clusters"]:
    """How many samples each cluster has, where two at most `threshold` apart are in one, and so are those that a chain
    of such pairs joins."""
    from scipy.sparse.csgraph import connected_components

    _, cluster = connected_components((squared <= threshold).numpy(), directed=False)
    return np.unique(cluster, return_counts=True)[1]
