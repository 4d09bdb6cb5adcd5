"""Scores that are mixtures of Gumbels: log p(u) + tau * G with u ~ p, one such mixture per position.

F is the distribution function of a mixture, S = 1 - F its tail and f its density. In a `Direct` mixture every row has
its own locations. In a `Shared` mixture all rows have the same locations and differ only in their weights. `Shared`
replaces thousands of codes by a few hundred bins, so that F, S and f at all nodes take one matrix product each.
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
STEEPEST = 700.0  # e = -log F of a Gumbel is capped here, because exp(-700) is about the smallest number of float64
FAR = 36.0  # from this many tau above the location, log S of a Gumbel is -(c - location) / tau up to rounding


@dataclass(frozen=True)
class Accuracy:
    """How finely the integrals over the scores of confidence unmasking are computed.

    nodes_per_tau: the least number of nodes of the trapezoidal rule in an interval of length tau. nodes_per_root: the
    same number divided by the square root of the number of open positions; the nodes must become denser with more
    positions because an order statistic of m Gumbels may have a standard deviation as small as 1.24 tau / sqrt(m).
    bins_per_tau: the number of bins for codes in an interval of length tau. bulk: the largest relative change of any F
    that comes from treating improbable codes together. negligible: the search drops an interval that contains less
    than exp(-negligible) of the probability.
    """

    nodes_per_tau: float = 5.0
    nodes_per_root: float = 1.2
    bins_per_tau: int = 12
    bulk: float = 1e-10
    negligible: float = 28.0


USUAL = Accuracy()


class Mixture(Protocol):
    """One mixture per row. The nodes are thresholds c. All results are float64 of shape (rows, nodes)."""

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        """log F(c)."""
        ...

    def tail(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
        """log S(c), computed without cancellation, and the hazard rate f(c) / S(c), at which log S falls."""
        ...

    def rows(self, which: Bool[Tensor, " rows"]) -> Mixture: ...


def exceedance(location: Float[Tensor, "*any"], nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "*any n"]:
    """e = exp(-(c - location) / tau). In terms of e a Gumbel has F = exp(-e), S = 1 - exp(-e), f = e exp(-e) / tau."""
    return torch.exp(-(nodes - location.unsqueeze(-1)) / tau).clamp(max=STEEPEST)


def gumbel_tail(
    location: Float[Tensor, "*any"], nodes: Float[Tensor, " nodes"], tau: float
) -> tuple[Float[Tensor, "*any n"], Float[Tensor, "*any n"]]:
    """log S and f / S of one Gumbel. They are accurate even at nodes where S itself is too small for float64."""
    distance = (nodes - location.unsqueeze(-1)) / tau
    e = torch.exp(-distance).clamp(max=STEEPEST)
    log_above = torch.where(distance > FAR, -distance, torch.log(-torch.expm1(-e)))
    return log_above, torch.where(distance > FAR, 1.0, e / torch.expm1(e)) / tau


@dataclass(frozen=True)
class Direct:
    """weight, location: (rows, codes). Results are exact up to rounding and take rows * codes * nodes exponentials."""

    weight: Float[Tensor, "rows codes"]
    location: Float[Tensor, "rows codes"]

    def log_below(self, nodes: Float[Tensor, " nodes"], tau: float) -> Float[Tensor, "rows nodes"]:
        # log F has no floor. The whole probability may be smaller than a floor, and then the nodes that were raised to
        # the floor would dominate the integral.
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
    """weight: (rows, bins); location: (bins,), in rising order. A code at -inf has a score below every node, and a code
    at +inf has a score above every node. F below 1e-304 counts as 0 and S below 1e-300 counts as 1e-300. Values this
    small occur only when tau is below log(codes) / 690.

    Nodes must be in rising order. Only the bins near the nodes need the full formulas of a Gumbel: for bins far above
    the nodes F is 0, and for bins far below them F is 1 and S = e.
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
        return below.clamp_(min=0).log_()  # some weights are negative, so rounding may leave less than 0

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
        # The error of the bins may move the rate out of its range from 0 to 1 / tau. The upper end is the rate of a
        # single Gumbel far above its location, and no mixture exceeds it.
        rate = ((weight @ (e * torch.exp(-e)) + far) / above).clamp(min=0, max=1) / tau
        return above.log(), rate

    def rows(self, which: Bool[Tensor, " rows"]) -> Shared:
        return Shared(self.weight[which], self.location)


@cache
def stencil() -> Float[Tensor, "points powers"]:
    """The weights of Lagrange interpolation on STENCIL neighbouring bins, as polynomials in t, where t in [0, 1) is the
    place between the two middle bins. The weight of bin j is the sum over k of stencil[j, k] t^k."""
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
    """The mixture with its locations moved to bins at multiples of tau / `bins_per_tau`, from `lowest` to `high`.

    A code below the `lowest` of its row is treated as if its score were below every threshold, and a code above `high`
    as if its score were above every threshold. The weight of any other code is spread over 6 bins in such a way that
    the mean of every polynomial of degree 5 in the location stays the same. The sixth derivatives of the Gumbel's F, S
    and tau f are below 200 / tau^6, so with 12 bins per tau each of them changes by at most
    200 * 0.00489 / 12^6 = 3.3e-7.
    """
    width = tau / bins_per_tau
    rows = len(weight)
    low = width * math.floor(float(lowest.min()) / width)
    bins = int((high - low) / width) + 1
    below, over = location < lowest[:, None], location > high
    # Codes outside the range stay in the arrays with weight 0, because selecting the others would cost more. Locations
    # below the range are mirrored into it, because adding all of them to one bin, one after the other, would be slow.
    power = weight.masked_fill(below | over, 0.0)
    place = ((location - low) / width).abs_().clamp_(max=(high - low) / width)
    first = place.long()
    place -= first
    first += bins * torch.arange(rows, device=weight.device)[:, None]
    # First the sums of weight * t^k are computed in each bin, and then the weights of the bins from these sums. That is
    # cheaper than evaluating a polynomial for each code and each of its neighbouring bins.
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
    """Two mixtures between which the mixture of the values location - low lies. [0, width] is divided into bins; the
    first mixture moves every value down to the lower edge of its bin, the second moves it up to the upper edge.

    A value below 0 moves down to -inf and up to 0. A value of `width` or more moves down to `width` and up to inf.
    """
    bin_width = width / bins
    index = ((location - low[:, None]) / bin_width).floor_().clamp_(min=-1, max=bins).long() + 1
    index += (bins + 2) * torch.arange(len(weight), device=weight.device)[:, None]
    mass = torch.bincount(index.flatten(), weight.flatten(), minlength=len(weight) * (bins + 2))
    mass = mass.view(len(weight), bins + 2)
    edges = bin_width * torch.arange(bins + 1, dtype=torch.float64, device=weight.device)
    ends = torch.full_like(edges[:1], torch.inf)
    return Shared(mass, torch.cat([-ends, edges])), Shared(mass, torch.cat([edges, ends]))
