"""Confidence unmasking with little noise beside the spread of the scores: the integrals of `unmasking_events`, taken
near the few thresholds that count, where few codes need a Gumbel.

A committed score lies near every threshold at which the integrands are not negligible, and near a threshold most codes
of a row are far below it or far above it. So the cost is that of the sums without noise times the nodes around each
score that counts, however small tau is.
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

NEGLIGIBLE = 32.0  # a score counts when what is near it may hold more than exp(-32) of what the others may
LEAST_TAU = 1e-9  # with less, float64 does not tell the thresholds around a score apart
ELEMENTS_AT_ONCE = 1_000_000


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
