"""The law of rules that choose positions without looking at the tokens: raster, random and fixed orders.

A step of such a rule has two independent parts. It first chooses a set of positions, where all possible sets are
equally likely, and then draws the tokens of these positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.law import (
    StepEntropies,
    committed_entropies,
    committed_log_probability,
    nothing_at,
)
from divlens.loop import Moment
from divlens.paths import FixedOrder, RandomOrder

DIVIDED = "maps: the bits of a step's choice are divided evenly over the positions it committed"
# log p of a token that a filter excludes. It is finite because rounding differs between batches, so that a filter may
# exclude a token that was drawn in another batch.
IMPROBABLE = -40.0


@dataclass(frozen=True)
class ChosenFirst:
    """`log_choices`: the natural logarithm of the number of sets of positions that the step may commit, all of them
    equally likely; None if there is only one path."""

    log_choices: Callable[[Moment], Float[Tensor, " batch"]] | None = None
    known: bool = True
    draws_once: bool = True

    @property
    def path_is_certain(self) -> bool:
        return self.log_choices is None

    @property
    def map_note(self) -> str:
        return "" if self.path_is_certain else DIVIDED

    def choice(self, moment: Moment) -> Float[Tensor, " batch"]:
        if self.log_choices is None:
            return torch.zeros(len(moment.view.tokens), dtype=torch.float64, device=moment.view.tokens.device)
        return self.log_choices(moment)

    def entropies(self, moment: Moment) -> StepEntropies:
        path, execution = nothing_at(moment.view.tokens), committed_entropies(moment)
        if "path" not in moment.settings.frozen:
            committed = moment.result.committed
            path = self.choice(moment)[:, None] * committed / committed.sum(1, keepdim=True).clamp(min=1)
        return StepEntropies(path, execution, path + execution)

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        return committed_log_probability(moment, certain, IMPROBABLE) - self.choice(moment)

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        return -self.choice(moment)


def orders(rule: RandomOrder | FixedOrder) -> Callable[[Moment], Float[Tensor, " batch"]]:
    """The function that gives the log of the number of sets of positions that the rule may commit at a step."""
    return lambda moment: rule.log_choices(moment.view.step, moment.view.tokens == moment.mask)
