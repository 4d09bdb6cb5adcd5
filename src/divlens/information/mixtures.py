"""Scores that are mixtures of Gumbels: log p(u) + tau * G with u ~ p, one such mixture per position.

Written F for the distribution function, S = 1 - F for the tail and f for the density of a mixture. A mixture is either
`Direct`, with locations of its own, or `Shared`, whose rows spread their weight over locations common to all rows. The
second turns thousands of codes into a few hundred bins, and F, S and f at all nodes into one matrix product each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STENCIL = 6  # bins over which the weight of one code is spread
BINS_PER_TAU = 12
SMALLEST = 1e-300
STEEPEST = 700.0  # exp(-700) is the smallest that float64 holds: a Gumbel further below its location counts as this


class Mixture(Protocol):
    """One mixture per row; nodes are thresholds c. All results are float64 (rows, nodes)."""

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        """log F(c)."""
        ...

    def above(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        """S(c) = 1 - F(c), without cancellation."""
        ...

    def density(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        """f(c) = -dS/dc."""
        ...

    def rows(self, which: Bool[Tensor, " rows"]) -> Mixture: ...


def exceedance(location: Float[Tensor, "*any"], nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "*any n"]:
    """e = exp(-(c - location) / tau), so that one Gumbel has F = exp(-e), S = 1 - exp(-e), f = e exp(-e) / tau."""
    return torch.exp(-(nodes - location.unsqueeze(-1)) / tau).clamp(max=STEEPEST)


@dataclass(frozen=True)
class Direct:
    """weight, location: (rows, codes). Exact up to rounding; the cost is rows * codes * nodes exponentials."""

    weight: Float[Tensor, "rows codes"]
    location: Float[Tensor, "rows codes"]

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        return torch.logsumexp(self.weight.log().unsqueeze(-1) - exceedance(self.location, nodes, tau), dim=1)

    def above(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        return torch.einsum("rk,rkn->rn", self.weight, -torch.expm1(-exceedance(self.location, nodes, tau)))

    def density(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        e = exceedance(self.location, nodes, tau)
        return torch.einsum("rk,rkn->rn", self.weight, e * torch.exp(-e)) / tau

    def rows(self, which: Bool[Tensor, " rows"]) -> Direct:
        return Direct(self.weight[which], self.location[which])


@dataclass(frozen=True)
class Shared:
    """weight: (rows, bins); location: (bins,), where -inf is a code that never passes a node and +inf one that always
    does."""

    weight: Float[Tensor, "rows bins"]
    location: Float[Tensor, " bins"]

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        return (self.weight @ torch.exp(-exceedance(self.location, nodes, tau))).clamp(min=SMALLEST).log()

    def above(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        return self.weight @ -torch.expm1(-exceedance(self.location, nodes, tau))

    def density(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        e = exceedance(self.location, nodes, tau)
        return self.weight @ (e * torch.exp(-e)) / tau

    def rows(self, which: Bool[Tensor, " rows"]) -> Shared:
        return Shared(self.weight[which], self.location)


@cache
def stencil() -> Float[Tensor, "points powers"]:
    """Lagrange's weights of STENCIL neighbouring bins at a place t in [0, 1) between the middle two, as polynomials:
    the weight of bin j is the sum over k of stencil[j, k] t^k."""
    points = torch.arange(1 - STENCIL // 2, STENCIL // 2 + 1, dtype=torch.float64)
    return torch.linalg.inv(torch.vander(points, increasing=True)).T.contiguous()


def binned(
    weight: Float[Tensor, "rows codes"], location: Float[Tensor, "rows codes"], low: float, high: float, tau: float
) -> Shared:
    """The mixture with locations moved to bins tau / 12 apart between `low` and `high`.

    A code below `low` counts as one that never passes, above `high` as one that always does. Between them its weight
    is spread over 6 bins so that every polynomial of degree 5 in the location keeps its value. The sixth derivatives
    of the Gumbel's F, S and tau f are below 200 / tau^6, so each changes by at most 200 * 0.00489 / 12^6 = 3.3e-7.
    """
    width = tau / BINS_PER_TAU
    rows, codes = weight.shape
    bins = int((high - low) / width) + 1
    below, over = location < low, location > high
    inside = (~(below | over) & (weight > 0)).flatten().nonzero()[:, 0]
    place = (location.flatten()[inside] - low) / width
    first = place.long()
    power, place = weight.flatten()[inside], place - first
    first += (inside // codes) * bins
    # Sums of weight * t^k in each bin, and from them the weights: cheaper than one polynomial per code and neighbour.
    moments = []
    for _ in range(STENCIL):
        moments.append(torch.bincount(first, power, minlength=rows * bins))
        power = power * place
    shares = (stencil().to(weight.device) @ torch.stack(moments)).view(STENCIL, rows, bins)
    spread = torch.zeros(rows, bins + STENCIL - 1, dtype=torch.float64, device=weight.device)
    for offset in range(STENCIL):
        spread[:, offset : offset + bins] += shares[offset]
    places = torch.arange(bins + STENCIL - 1, dtype=torch.float64, device=weight.device)
    centres = low + width * (places - (STENCIL // 2 - 1))
    never, always = ((weight * ends).sum(1, keepdim=True) for ends in (below, over))
    ends = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64, device=weight.device)
    return Shared(torch.cat([spread, never, always], 1), torch.cat([centres, ends]))


def bracketed(
    weight: Float[Tensor, "rows codes"], location: Float[Tensor, "rows codes"], low: float, bins: int
) -> tuple[Shared, Shared]:
    """Two mixtures that enclose this one: locations moved down, and up, to the edge of their bin (`low`, 0]."""
    top = float(location.max())
    width = max((top - low) / bins, 1e-12)
    index = ((location - low) / width).floor().clamp(min=-1, max=bins - 1).long() + 1
    flat = index + (bins + 1) * torch.arange(len(weight), device=weight.device)[:, None]
    mass = torch.bincount(flat.flatten(), weight.flatten(), minlength=len(weight) * (bins + 1))
    edges = low + width * torch.arange(bins + 1, dtype=torch.float64, device=weight.device)
    bottom = torch.full_like(edges[:1], -torch.inf)
    mass = mass.view(len(weight), bins + 1)
    return Shared(mass, torch.cat([bottom, edges[:-1]])), Shared(mass, edges)
