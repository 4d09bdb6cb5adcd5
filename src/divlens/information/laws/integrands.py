"""The integrands of `unmasking_events` for confidence unmasking. They work with any kind of mixture."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.laws.gumbel_mixtures import USUAL, Accuracy, Mixture, gumbel_tail
from divlens.information.laws.scores import Scores


def node_step(tau: float, positions: int, accuracy: Accuracy = USUAL) -> float:
    """The distance between nodes of the trapezoidal rule when this many positions are open."""
    return tau / max(accuracy.nodes_per_tau, accuracy.nodes_per_root * math.sqrt(positions))


def integrands(
    scores: Scores, samples: int, mixture: Mixture, nodes: Float[Tensor, " nodes"], tau: float
) -> tuple[Float[Tensor, "batch nodes"], Float[Tensor, "batch nodes"]]:
    """The logarithms of both integrands at the nodes. -d/dc of a product of tails is the product times the sum of
    f / S."""
    inside = scores.committed
    rows = scores.rows(inside)
    empty = torch.zeros(samples, len(nodes), dtype=torch.float64, device=nodes.device)

    def per_sample(sample: Tensor, values: Tensor) -> Tensor:
        return empty.index_add(0, sample, values)

    others = per_sample(scores.sample[~inside], mixture.rows(~inside).log_below(nodes, tau))
    drawn, drawn_rate = gumbel_tail(rows.of_token(rows.location), nodes, tau)
    drawn += rows.of_token(rows.weight).log()[:, None]
    joint = per_sample(rows.sample, drawn) + per_sample(rows.sample, drawn_rate).log()
    above, rate = mixture.rows(inside).tail(nodes, tau)
    # The drawn code is part of the mixture. A tail smaller than the share of this code is an error of the bins.
    path = per_sample(rows.sample, torch.maximum(above, drawn)) + per_sample(rows.sample, rate).log()
    return path + others, joint + others
