"""Mixtures whose codes are sorted by location, so that the weight below or above a threshold can be looked up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.laws.gumbel_mixtures import SMALLEST

# A standard Gumbel is below -7 with a probability that float64 rounds to 0, and above 30 with probability exp(-30).
BEFORE, BEYOND = 7.0, 30.0


@dataclass(frozen=True)
class Sorted:
    """One mixture per row (see `gumbel_mixtures.Mixture`), with locations in rising order. below[:, k] is the total
    weight of the first k codes, and above[:, k] that of all other codes. A code more than BEYOND * tau below a
    threshold counts as if its score were never above the threshold."""

    weight: Float[Tensor, "rows codes"]
    location: Float[Tensor, "rows codes"]
    below: Float[Tensor, "rows more"]
    above: Float[Tensor, "rows more"]

    @classmethod
    def of(cls, weight: Float[Tensor, "rows codes"], location: Float[Tensor, "rows codes"]) -> Sorted:
        location, order = location.sort(1)
        weight = weight.gather(1, order)
        below = torch.nn.functional.pad(weight.cumsum(1), (1, 0))
        above = torch.nn.functional.pad(weight.flip(1).cumsum(1).flip(1), (0, 1))
        return cls(weight, location, below, above)

    def rows(self, which: Bool[Tensor, " rows"]) -> Sorted:
        return Sorted(self.weight[which], self.location[which], self.below[which], self.above[which])

    def place(self, thresholds: Float[Tensor, " t"], *, right: bool = False) -> Int[Tensor, "rows t"]:
        """How many codes of each row are below each threshold or, with `right`, below or equal to it."""
        wanted = thresholds.expand(len(self.location), -1).contiguous()
        return torch.searchsorted(self.location, wanted, right=right)

    def near(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Int[Tensor, "rows nodes"], Int[Tensor, "rows nodes"], Tensor, Tensor]:
        """The codes of each row that are so close to a node that the noise decides whether they are above it. The
        result is the index of the first of them, the index after the last, their weights, and
        e = exp(-(c - location) / tau), the last two of shape (rows, nodes, some)."""
        first, last = self.place(nodes - BEYOND * tau), self.place(nodes + BEFORE * tau, right=True)
        some = first.unsqueeze(-1) + torch.arange(int((last - first).max()), device=nodes.device)
        inside, some = some < last.unsqueeze(-1), some.clamp(max=self.weight.shape[1] - 1)
        rows = torch.arange(len(first), device=nodes.device)[:, None, None]
        weight = torch.where(inside, self.weight[rows, some], 0.0)
        distance = torch.where(inside, (nodes[:, None] - self.location[rows, some]) / tau, BEYOND)
        return first, last, weight, torch.exp(-distance)

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        first, _, weight, e = self.near(nodes, tau)
        return (self.below.gather(1, first) + (weight * torch.exp(-e)).sum(-1)).log()

    def tail(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
        _, last, weight, e = self.near(nodes, tau)
        above = self.above.gather(1, last) - (weight * torch.expm1(-e)).sum(-1)
        density = (weight * e * torch.exp(-e)).sum(-1) / tau
        return above.clamp(min=SMALLEST).log(), density / above.clamp(min=SMALLEST)
