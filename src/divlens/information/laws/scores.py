"""What confidence unmasking ranks at a step: the scores that the open positions may get."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IMPOSSIBLE = -1e9  # log p of a banned code: its weight is 0, and its score passes nothing


@dataclass(frozen=True)
class Scores:
    """The open positions of one step, one row each.

    sample, position: where the row is. committed: whether the step fixed it. token: which code it drew (it matters
    where committed). weight, location: with what chance each code is drawn, rows sum to 1, and its log-probability as
    the rule reads it; they differ where the draw is certain and the confidence is not 1 (Argmax).
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
    """Rows for the open positions. `certain`: the tokens that were drawn, where the draw had no choice."""
    sample, position = opened.nonzero(as_tuple=True)
    location, token = log_p[sample, position].clamp(min=IMPOSSIBLE), tokens[sample, position]
    if certain is not None:
        sure = certain[sample, position]
        agree = (token == sure).double()[:, None]  # another token than the only one possible has no chance
        location = location.gather(1, sure[:, None]).double()
        weight, token = torch.ones_like(location), torch.zeros_like(token)
        if not bool(agree.all()):
            location = torch.cat([location, location], 1)
            weight = torch.cat([weight, torch.zeros_like(weight)], 1)
            token = (1 - agree[:, 0]).long()
    else:
        weight = location.exp().double()  # in the precision in which the sampler takes it
        weight /= weight.sum(1, keepdim=True)  # float32 leaves a sum of 1 +- 1e-6; the draw divides by it too
        location = location.double()
    return Scores(sample, position, committed[sample, position], token, weight, location)
