"""The scores that the open positions may get in a step of confidence unmasking, which ranks positions by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IMPOSSIBLE = -1e9  # log p of a banned code, whose weight is 0 and whose score is below all others


@dataclass(frozen=True)
class Scores:
    """The open positions of one step, one row each.

    sample, position: the row's place in the batch. committed: whether the step committed the position. token: the code
    that was drawn, which matters only at committed positions. weight: the probability with which each code is drawn;
    each row sums to 1. location: the log-probability of each code that the rule uses as its confidence. It is not the
    logarithm of the weight where the draw is certain (Argmax).
    """

    sample: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    committed: Bool[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    weight: Float[Tensor, "rows codes"]
    location: Float[Tensor, "rows codes"]

    def rows(self, which: Bool[Tensor, " rows"] | slice) -> Scores:
        parts = (self.sample, self.position, self.committed, self.token, self.weight, self.location)
        return Scores(*(part[which] for part in parts))

    def of_token(self, values: Float[Tensor, "rows codes"]) -> Float[Tensor, " rows"]:
        return values.gather(1, self.token[:, None])[:, 0]


def scores_of(
    log_p: Float[Tensor, "batch n codes"],
    opened: Bool[Tensor, "batch n"],
    committed: Bool[Tensor, "batch n"],
    tokens: Int[Tensor, "batch n"],
    certain: Int[Tensor, "batch n"] | None = None,
) -> Scores:
    """The rows of the open positions. `certain`: the only tokens that could be drawn, if the draw was not random."""
    sample, position = opened.nonzero(as_tuple=True)
    location, token = log_p[sample, position].clamp(min=IMPOSSIBLE), tokens[sample, position]
    if certain is not None:
        sure = certain[sample, position]
        agree = (token == sure).double()[:, None]  # any other token has probability 0
        location = location.gather(1, sure[:, None]).double()
        weight, token = torch.ones_like(location), torch.zeros_like(token)
        if not bool(agree.all()):
            location = torch.cat([location, location], 1)
            weight = torch.cat([weight, torch.zeros_like(weight)], 1)
            token = (1 - agree[:, 0]).long()
    else:
        weight = location.exp().double()  # computed in the precision that the sampler uses
        weight /= weight.sum(1, keepdim=True)  # float32 sums are 1 +- 1e-6, and the draw divides by them too
        location = location.double()
    return Scores(sample, position, committed[sample, position], token, weight, location)
