"""Confidence unmasking when the noise is small compared with the differences between scores. The integrals of
`unmasking_events` are then computed only near the few thresholds where they are not negligible.

Every such threshold is close to a possible score of a committed position. Most codes of a row are far below or far
above it, so only a few codes need the formulas of a Gumbel. The cost is that of the finite sums without noise, times
the number of nodes around each score that matters, and does not grow as tau becomes smaller.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.laws.integrands import integrands, node_step
from divlens.information.laws.scores import Scores
from divlens.information.laws.sorted_mixtures import BEFORE, BEYOND, Sorted

NEGLIGIBLE = 32.0  # scores are dropped whose neighbourhood is bounded by exp(-32) of the largest bound of any score
LEAST_TAU = 1e-9  # with a smaller tau, float64 cannot distinguish the thresholds around a score
ELEMENTS_AT_ONCE = 1_000_000


def little_noise(scores: Scores, samples: int, tau: float) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P(V) and log P(V, z_V). A tau below LEAST_TAU is replaced by LEAST_TAU. Equal scores are still ranked at
    random and unequal ones by their values, unless they differ by less than 30 LEAST_TAU."""
    found = [of_one_sample(scores.rows(scores.sample == i), max(tau, LEAST_TAU)) for i in range(samples)]
    return torch.stack([path for path, _ in found]), torch.stack([joint for _, joint in found])


def of_one_sample(scores: Scores, tau: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    # Thresholds are measured from the lowest committed score, because rounding matters most there.
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
    """The possible scores of committed positions near which one of the integrands is not negligible, in rising order.

    Between c - 7 tau and c + 30 tau, up to exp(-30), no tail S is larger than the tail without noise at c - 37 tau, and
    no F is larger than the F without noise at c + 37 tau. For P(V, z_V) only the lowest drawn score matters and the
    drawn scores less than 37 tau above it.
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
    """The multiples of `step` between BEFORE * tau below and BEYOND * tau above any of the places, each of them once.
    The places must be in rising order."""
    first = ((places - BEFORE * tau) / step).floor().long()
    last = ((places + BEYOND * tau) / step).ceil().long()
    # The nodes of a place start after the last node of the place before it, so that no node comes twice.
    first = torch.maximum(first, torch.cat([first[:1], last[:-1] + 1]))
    counts = (last - first + 1).clamp(min=0)
    start = first.repeat_interleave(counts)
    within = torch.arange(len(start), device=start.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return (start + within).double() * step
