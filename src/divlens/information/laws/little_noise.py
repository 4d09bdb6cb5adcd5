"""Confidence unmasking with little noise beside the spread of the scores: the integrals of `unmasking_events`, taken
near the few thresholds that count, where few codes need a Gumbel.

A committed score lies near every threshold at which the integrands are not negligible, and near a threshold most codes
of a row are far below it or far above it. So the cost is that of the sums without noise times the nodes around each
score that counts, however small tau is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.laws.gumbel_mixtures import SMALLEST
from divlens.information.laws.integrands import integrands, node_step
from divlens.information.laws.scores import Scores

BEFORE, BEYOND = 7.0, 30.0  # a Gumbel is below -7 with a chance that float64 holds for 0, and above 30 with exp(-30)
NEGLIGIBLE = 32.0  # a score counts when what is near it may hold more than exp(-32) of what the others may
LEAST_TAU = 1e-9  # with less, float64 does not tell the thresholds around a score apart
ELEMENTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Sorted:
    """A mixture per row (see `gumbel_mixtures.Mixture`) with rising locations. `below`, `above`: what the codes before,
    and from, each place weigh together. Codes more than BEYOND * tau below a threshold count as never above it."""

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
        """How many codes of each row are below each threshold, or with `right` at it as well."""
        wanted = thresholds.expand(len(self.location), -1).contiguous()
        return torch.searchsorted(self.location, wanted, right=right)

    def near(
        self, nodes: Float[Tensor, " nodes"], tau: float
    ) -> tuple[Int[Tensor, "rows nodes"], Int[Tensor, "rows nodes"], Tensor, Tensor]:
        """Of each row the codes from a first to before a last that a node does not clearly pass or miss; their weights
        and e = exp(-(c - location) / tau), (rows, nodes, some)."""
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


def little_noise(scores: Scores, samples: int, tau: float) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P(V) and log P(V, z_V). A tau below LEAST_TAU is taken for that: equal scores are ranked by lot, and others
    by what they are, unless they differ by less than 30 LEAST_TAU."""
    found = [of_one_sample(scores.rows(scores.sample == i), max(tau, LEAST_TAU)) for i in range(samples)]
    return torch.stack([path for path, _ in found]), torch.stack([joint for _, joint in found])


def of_one_sample(scores: Scores, tau: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    # Thresholds are counted from the lowest committed score, where most depends on them.
    origin = scores.of_token(scores.location)[scores.committed].min()
    scores = replace(scores, sample=torch.zeros_like(scores.sample), location=scores.location - origin)
    mixture = Sorted.of(scores.weight, scores.location)
    step = node_step(tau, len(scores.sample))
    nodes = nodes_around(scores_that_count(scores, mixture, tau), step, tau)
    size = max(16, ELEMENTS_AT_ONCE // (len(scores.sample) * 16))
    parts = [integrands(scores, 1, mixture, part, tau) for part in nodes.split(size)]
    path, joint = (torch.cat([part[which] for part in parts], 1).logsumexp(1)[0] for which in (0, 1))
    return path + math.log(step), joint + math.log(step)


def scores_that_count(scores: Scores, mixture: Sorted, tau: float) -> Float[Tensor, " some"]:
    """The committed scores near which either integrand is not negligible, rising.

    From c - 7 tau to c + 30 tau no tail S is above that of scores without noise at c - 37 tau, but for exp(-30), and no
    F above that at c + 37 tau. For P(V, z_V) the lowest of the drawn scores counts, and those within reach of it.
    """
    rows = scores.rows(scores.committed)
    every = rows.location[rows.weight > 0].sort().values
    reach = (BEFORE + BEYOND) * tau
    inside, outside = mixture.rows(scores.committed), mixture.rows(~scores.committed)
    above = inside.above.gather(1, inside.place(every - reach)).log().sum(0)
    below = outside.below.gather(1, outside.place(every + reach, right=True)).log().sum(0)
    bound = above + below
    counts = bound > bound.max() - NEGLIGIBLE
    drawn = rows.of_token(rows.location)
    return torch.cat([every[counts], drawn[drawn <= reach]]).sort().values


def nodes_around(places: Float[Tensor, " some"], step: float, tau: float) -> Float[Tensor, " nodes"]:
    """The multiples of `step` from BEFORE * tau below each place, which rise, to BEYOND * tau above it."""
    first = ((places - BEFORE * tau) / step).floor().long()
    last = ((places + BEYOND * tau) / step).ceil().long()
    # Where one place's nodes end before the next one's begin there is a gap; last rises as first does.
    first = torch.maximum(first, torch.cat([first[:1], last[:-1] + 1]))
    counts = (last - first + 1).clamp(min=0)
    start = first.repeat_interleave(counts)
    within = torch.arange(len(start), device=start.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return (start + within).double() * step
