"""Precision, recall, density and coverage: pictures held against a reference set.

The manifold of a set is the union of a ball around each of its pictures that reaches to its k-th nearest neighbour in
the set. Source: Kynkaanniemi et al., 2019, eq. 1 and 2 (precision, recall); Naeem et al., 2020 (density, coverage). A
picture on the border of a ball is outside of it, as in the package `prdc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from divlens.metrics.kernels import products, squared_distances

NEIGHBOURS = 5  # k, as in Naeem et al.


@dataclass(frozen=True)
class Manifolds:
    """precision: share of the pictures inside the reference's manifold, in [0, 1]. recall: share of the reference
    inside that of the pictures, in [0, 1]. density: in how many balls of the reference a picture lies, over k; 1 is
    expected of pictures that are drawn as the reference was, and it has no upper limit of its own. coverage: share of
    the reference's balls in which a picture lies, in [0, 1]. NaN where a set has no k-th neighbour, k + 1 pictures.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of a reference set, in parts; the squared length of each, and the squared radius of its ball."""

    features: Sequence[Float[Tensor, "_ features"]]
    lengths: Float64[Tensor, " m"]
    radii: Float64[Tensor, " m"]
    neighbours: int

    @classmethod
    def of(cls, features: Sequence[Float[Tensor, "_ features"]], neighbours: int = NEIGHBOURS) -> Reference:
        """Of at least k + 1 pictures."""
        gram = products(features)
        return cls(features, gram.diagonal(), squared_radii(gram, neighbours), neighbours)

    def against(self, features: Sequence[Float[Tensor, "_ features"]]) -> Manifolds:
        """How these pictures stand to the reference."""
        if not features:
            return Manifolds(math.nan, math.nan, math.nan, math.nan)
        gram = products(features)
        apart = squared_distances(self.lengths, gram.diagonal(), products(self.features, features))
        inside = apart < self.radii[:, None]
        recall = math.nan
        if len(gram) > self.neighbours:
            recall = float((apart < squared_radii(gram, self.neighbours)).any(1).double().mean())
        return Manifolds(
            precision=float(inside.any(0).double().mean()),
            recall=recall,
            density=float(inside.double().sum(0).mean()) / self.neighbours,
            coverage=float(inside.any(1).double().mean()),
        )


def squared_radii(gram: Float64[Tensor, "n n"], neighbours: int) -> Float64[Tensor, " n"]:
    """From each vector to its k-th nearest neighbour; `gram`: the inner products of all with all."""
    apart = squared_distances(gram.diagonal(), gram.diagonal(), gram)
    return apart.fill_diagonal_(-torch.inf).kthvalue(neighbours + 1, dim=1).values
