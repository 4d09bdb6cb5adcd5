"""How many different pictures a set amounts to, from the matrix of their similarities.

The kernel is the cosine of feature vectors, K_ij = <g_i, g_j> / (|g_i| |g_j|), which is 1 on the diagonal; it is what
Friedman & Dieng (2023) take for pictures. The eigenvalues of K / n are then probabilities, and the exponential of their
Renyi entropy is an effective number: n for pictures that are orthogonal, 1 for pictures that are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

FEATURES_AT_ONCE = 1 << 16  # that are made float64; it bounds memory


def products(
    left: Sequence[Float[Tensor, "_ features"]], right: Sequence[Float[Tensor, "_ features"]] | None = None
) -> Float64[Tensor, "n m"]:
    """The inner products of all vectors of `left` with all of `right`, or with each other; each comes in parts. Summed
    in float64, so that distances of near duplicates keep their digits."""
    if right is None:
        whole = torch.empty(sum(map(len, left)), sum(map(len, left)), dtype=torch.float64)
        starts = [0, *torch.tensor([len(part) for part in left]).cumsum(0).tolist()]
        for i, one in enumerate(left):
            for j, other in enumerate(left[: i + 1]):
                block = product(one, other)
                whole[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = block
                whole[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = block.T
        return whole
    return torch.cat([torch.cat([product(one, other) for other in right], dim=1) for one in left])


def product(one: Float[Tensor, "n features"], other: Float[Tensor, "m features"]) -> Float64[Tensor, "n m"]:
    total = torch.zeros(len(one), len(other), dtype=torch.float64)
    for a, b in zip(one.split(FEATURES_AT_ONCE, 1), other.split(FEATURES_AT_ONCE, 1), strict=True):
        total += a.cpu().double() @ b.cpu().double().T
    return total


def squared_distances(
    left: Float64[Tensor, " n"], right: Float64[Tensor, " m"], between: Float64[Tensor, "n m"]
) -> Float64[Tensor, "n m"]:
    """|g - g'|^2, at least 0, from the squared lengths of both sides and the products between them. With the features
    of an LPIPS network this is the LPIPS."""
    return (left[:, None] + right - 2 * between).clamp(min=0)


def cosines(gram: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """The kernel of a matrix of inner products; NaN where a vector has no length."""
    length = gram.diagonal().sqrt()
    return gram / (length[:, None] * length)


def vendi_score(kernel: Float64[Tensor, "n n"], order: float = 1.0) -> float:
    """The Vendi score of this order: exp of the Renyi entropy of the eigenvalues of K / n, in [1, n].

    Order 1 is Shannon's entropy (Friedman & Dieng, 2023), the others are those of Pasarkar & Dieng (2023):
    below 1 rare pictures count for more, above 1 for less; infinity is one over the largest eigenvalue. It grows with
    n, and no estimate of its limit is without bias: compare at equal n only. NaN for fewer than 2 pictures.
    """
    n = len(kernel)
    if n < 2 or not bool(kernel.isfinite().all()):
        return math.nan
    shares = torch.linalg.eigvalsh(kernel / n)
    if math.isinf(order):
        return 1 / float(shares.max())
    # Of equal pictures all but one are 0 up to rounding, which low orders would take for something.
    shares = shares[shares > n * torch.finfo(shares.dtype).eps]
    if order == 1:
        return math.exp(-float((shares * shares.log()).sum()))
    return float(shares.pow(order).sum()) ** (1 / (1 - order))


def effective_number_of_order_2(kernel: Float64[Tensor, "n n"]) -> float:
    """RKE, the exponential of the Renyi kernel entropy of order 2 (Jalali, Li & Farnia, 2023, with a cosine kernel
    in place of their Gaussian one), without the share of it that the number of pictures makes: at least 1.

    The paper's score, 1 / mean of K_ij^2 over all i and j, is the Vendi score of order 2. The n terms on the diagonal
    are 1 whatever the pictures are, so it is at most n. The mean over i != j alone is a U-statistic, without bias for
    the mean of K^2 over two pictures of the law; this is one over it. NaN for fewer than 2 pictures, and where no two
    of them have anything in common.
    """
    n = len(kernel)
    if n < 2:
        return math.nan
    squares = kernel.square()
    mean = float((squares.sum() - squares.diagonal().sum()) / (n * (n - 1)))
    return 1 / mean if mean > 0 else math.nan
