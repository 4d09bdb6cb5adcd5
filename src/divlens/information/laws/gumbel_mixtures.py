"""Scores that are mixtures of Gumbels: log p(u) + tau * G with u ~ p, one such mixture per position.

Written F for the distribution function, S = 1 - F for the tail and f for the density of a mixture. A mixture is either
`Direct`, with locations of its own, or `Shared`, whose rows spread their weight over locations common to all rows. The
second turns thousands of codes into a few hundred bins, and F, S and f at all nodes into one matrix product each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STENCIL = 6  # bins over which the weight of one code is spread
SMALLEST = 1e-300
STEEPEST = 700.0  # exp(-700) is the smallest that float64 holds: a Gumbel further below its location counts as this
FAR = 36.0  # this many tau above its location, log S of a Gumbel is -(c - location) / tau up to rounding


@dataclass(frozen=True)
class Accuracy:
    """How finely the scores of confidence unmasking are integrated.

    nodes_per_tau: nodes of the trapezoidal rule in a stretch of tau, at least. nodes_per_root: the same over the square
    root of the positions, for an order statistic of m Gumbels has a standard deviation of at least 1.24 tau / sqrt(m).
    bins_per_tau: bins of codes in a stretch of tau. bulk: what the codes that are taken together may change of any F.
    negligible: an interval of the search is left out when it holds less than exp(-negligible) of the probability.
    """

    nodes_per_tau: float = 5.0
    nodes_per_root: float = 1.2
    bins_per_tau: int = 12
    bulk: float = 1e-10
    negligible: float = 28.0


USUAL = Accuracy()


class Mixture(Protocol):
    """One mixture per row; nodes are thresholds c. All results are float64 (rows, nodes)."""

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        """log F(c)."""
        ...

    def tail(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
        """log S(c), without cancellation, and the rate at which S falls, f(c) / S(c)."""
        ...

    def rows(self, which: Bool[Tensor, " rows"]) -> Mixture: ...


def exceedance(location: Float[Tensor, "*any"], nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "*any n"]:
    """e = exp(-(c - location) / tau), so that one Gumbel has F = exp(-e), S = 1 - exp(-e), f = e exp(-e) / tau."""
    return torch.exp(-(nodes - location.unsqueeze(-1)) / tau).clamp(max=STEEPEST)


def gumbel_tail(
    location: Float[Tensor, "*any"], nodes: Float[Tensor, " nodes"], tau: float
) -> tuple[Float[Tensor, "*any n"], Float[Tensor, "*any n"]]:
    """log S and f / S of one Gumbel, however far above it the nodes are: S itself may be too small for float64."""
    distance = (nodes - location.unsqueeze(-1)) / tau
    e = torch.exp(-distance).clamp(max=STEEPEST)
    log_above = torch.where(distance > FAR, -distance, torch.log(-torch.expm1(-e)))
    return log_above, torch.where(distance > FAR, 1.0, e / torch.expm1(e)) / tau


@dataclass(frozen=True)
class Direct:
    """weight, location: (rows, codes). Exact up to rounding; the cost is rows * codes * nodes exponentials."""

    weight: Float[Tensor, "rows codes"]
    location: Float[Tensor, "rows codes"]

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        # No floor under log F: a floor would outweigh a chance below it that lies elsewhere.
        e = torch.exp(-(nodes - self.location.unsqueeze(-1)) / tau)
        return torch.logsumexp(self.weight.log().unsqueeze(-1) - e, dim=1)

    def tail(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
        log_above, rate = gumbel_tail(self.location, nodes, tau)
        log_above += self.weight.log().unsqueeze(-1)
        whole = torch.logsumexp(log_above, dim=1)
        return whole, (torch.exp(log_above - whole.unsqueeze(1)) * rate).sum(1)

    def rows(self, which: Bool[Tensor, " rows"]) -> Direct:
        return Direct(self.weight[which], self.location[which])


@dataclass(frozen=True)
class Shared:
    """weight: (rows, bins); location: (bins,), rising, where -inf is a code that never passes a node and +inf one that
    always does. F below 1e-304 counts as 0, S below 1e-300 as that: it takes tau below log(codes) / 690 to get there.

    Nodes are in rising order. Only bins around them need a Gumbel: further up F is 0, further down F is 1 and S = e.
    """

    weight: Float[Tensor, "rows bins"]
    location: Float[Tensor, " bins"]

    def around(self, nodes: Float[Tensor, " nodes"], tau: float) -> tuple[int, int]:
        ends = torch.stack([nodes[0] - FAR * tau, nodes[-1] + math.log(STEEPEST) * tau])
        first, last = torch.searchsorted(self.location, ends).tolist()
        return first, last

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        first, last = self.around(nodes, tau)
        e = exceedance(self.location[first:last], nodes, tau)
        below = self.weight[:, first:last] @ torch.exp(-e).masked_fill_(e >= STEEPEST, 0.0)
        below += self.weight[:, :first].sum(1, keepdim=True)
        return below.clamp_(min=0).log_()  # spread weights can leave a sum just below 0

    def tail(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
        first, last = self.around(nodes, tau)
        e = exceedance(self.location[first:last], nodes, tau)
        weight = self.weight[:, first:last]
        far = self.weight[:, :first] @ torch.exp((self.location[:first] - nodes[0]) / tau)
        far = far[:, None] * torch.exp((nodes[0] - nodes) / tau)
        above = self.weight[:, last:].sum(1, keepdim=True) + weight @ -torch.expm1(-e) + far
        above = above.clamp(min=SMALLEST)
        # Moving codes to bins leaves rounding behind; no mixture falls faster than one Gumbel far above its location.
        rate = ((weight @ (e * torch.exp(-e)) + far) / above).clamp(min=0, max=1) / tau
        return above.log(), rate

    def rows(self, which: Bool[Tensor, " rows"]) -> Shared:
        return Shared(self.weight[which], self.location)


@cache
def stencil() -> Float[Tensor, "points powers"]:
    """Lagrange's weights of STENCIL neighbouring bins at a place t in [0, 1) between the middle two, as polynomials:
    the weight of bin j is the sum over k of stencil[j, k] t^k."""
    points = torch.arange(1 - STENCIL // 2, STENCIL // 2 + 1, dtype=torch.float64)
    return torch.linalg.inv(torch.vander(points, increasing=True)).T.contiguous()


def mixture_in_bins(
    weight: Float[Tensor, "rows codes"],
    location: Float[Tensor, "rows codes"],
    lowest: Float[Tensor, " rows"],
    high: float,
    tau: float,
    bins_per_tau: int = USUAL.bins_per_tau,
) -> Shared:
    """The mixture with locations moved to bins: multiples of tau / 12 as a rule, between `lowest` and `high`.

    A code below its row's `lowest` counts as one that never passes, above `high` as one that always does. Between them
    its weight is spread over 6 bins so that every polynomial of degree 5 in the location keeps its value. The sixth
    derivatives of the Gumbel's F, S and tau f are below 200 / tau^6, so each changes by at most
    200 * 0.00489 / 12^6 = 3.3e-7.
    """
    width = tau / bins_per_tau
    rows = len(weight)
    low = width * math.floor(float(lowest.min()) / width)
    bins = int((high - low) / width) + 1
    below, over = location < lowest[:, None], location > high
    # Codes outside go along with weight 0: that is cheaper than to pick out the others. Those below are mirrored, for
    # to add them all to one bin, each after the other, is slow.
    power = weight.masked_fill(below | over, 0.0)
    place = ((location - low) / width).abs_().clamp_(max=(high - low) / width)
    first = place.long()
    place -= first
    first += bins * torch.arange(rows, device=weight.device)[:, None]
    # Sums of weight * t^k in each bin, and from them the weights: cheaper than one polynomial per code and neighbour.
    moments = []
    for _ in range(STENCIL):
        moments.append(torch.bincount(first.flatten(), power.flatten(), minlength=rows * bins))
        power *= place
    shares = (stencil().to(weight.device) @ torch.stack(moments)).view(STENCIL, rows, bins)
    spread = torch.zeros(rows, bins + STENCIL - 1, dtype=torch.float64, device=weight.device)
    for offset in range(STENCIL):
        spread[:, offset : offset + bins] += shares[offset]
    places = torch.arange(bins + STENCIL - 1, dtype=torch.float64, device=weight.device)
    centres = low + width * (places - (STENCIL // 2 - 1))
    never, always = ((weight * ends).sum(1, keepdim=True) for ends in (below, over))
    ends = torch.full_like(centres[:1], torch.inf)
    return Shared(torch.cat([never, spread, always], 1), torch.cat([-ends, centres, ends]))


def enclosing_mixtures(
    weight: Float[Tensor, "rows codes"],
    location: Float[Tensor, "rows codes"],
    low: Float[Tensor, " rows"],
    width: float,
    bins: int,
) -> tuple[Shared, Shared]:
    """Two mixtures of (location - low) that enclose it: moved down, and up, to the edge of their bin of [0, width].

    What lies below 0 moves to -inf and 0, what lies at `width` or above to `width` and inf.
    """
    bin_width = width / bins
    index = ((location - low[:, None]) / bin_width).floor_().clamp_(min=-1, max=bins).long() + 1
    index += (bins + 2) * torch.arange(len(weight), device=weight.device)[:, None]
    mass = torch.bincount(index.flatten(), weight.flatten(), minlength=len(weight) * (bins + 2))
    mass = mass.view(len(weight), bins + 2)
    edges = bin_width * torch.arange(bins + 1, dtype=torch.float64, device=weight.device)
    ends = torch.full_like(edges[:1], torch.inf)
    return Shared(mass, torch.cat([-ends, edges])), Shared(mass, torch.cat([edges, ends]))
