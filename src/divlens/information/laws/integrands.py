"""What is integrated for confidence unmasking, see `unmasking_events`, whatever the mixtures are made of."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.laws.gumbel_mixtures import USUAL, Accuracy, Mixture, gumbel_tail
from divlens.information.laws.scores import Scores


def node_step(tau: float, positions: int, accuracy: Accuracy = USUAL) -> float:
    """The distance of the nodes of the trapezoidal rule, where so many positions are open."""
    return tau / max(accuracy.nodes_per_tau, accuracy.nodes_per_root * math.sqrt(positions))


def integrands(
    scores: Scores, samples: int, mixture: Mixture, nodes: Float[Tensor, " nodes"], tau: float
) -> tuple[Float[Tensor, "batch nodes"], Float[Tensor, "batch nodes"]]:
    """Logarithms of both integrands at the nodes. -d/dc of a product is the product times the sum of f / S."""
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
    # The drawn code is one of the mixture's: a tail below its share is the binning's rounding.
    path = per_sample(rows.sample, torch.maximum(above, drawn)) + per_sample(rows.sample, rate).log()
    return path + others, joint + others
