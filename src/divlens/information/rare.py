"""Draws rarer than any that a sample made. How likely they are is known, and what comes after them is not.

Where there is one path only, as in AR, samples part ways by nothing but what they draw. At every state that a sample
visited the law of the next draw is known, and so is the chance of all draws that are rarer than the rarest one made.
What a prompt's mean would gain or lose through them no scatter of the samples tells.

How rare a draw is counts by its probability over how many positions are open after it: an early one may lead to more.
That puts all draws in one order, whichever step they belong to. In any such order the rarest draw of one more sample is
rarer than those of m samples with a chance of 1 / (m + 1). The draws of the first step alone are a second order: all
samples are in the same state there, so that their law is known exactly, and they lead furthest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import BITS
from divlens.information.strata import Strata
from divlens.loop import Moment

ORDERS = 2  # of the draws: those of the first step, and all
PER_OCTAVE, OCTAVES = 2, 64  # classes of rarity
CLASSES = PER_OCTAVE * OCTAVES


@dataclass(frozen=True)
class RareDraws:
    """Sums over the samples of each group.

    chance: of the draws of each class of rarity, at the states that were visited. room: that times the positions which
    are open after the draw. rarest: the class of the rarest draw that was made; -1 for none. The last draw of a grid
    leads nowhere and does not count.
    """

    chance: Float[Tensor, "groups orders classes"]
    room: Float[Tensor, "groups orders classes"]
    rarest: Int[Tensor, "groups orders"]

    @classmethod
    def empty(cls, groups: int, device: torch.device | None = None) -> RareDraws:
        nothing = torch.zeros(groups, ORDERS, CLASSES, dtype=torch.float64, device=device)
        return cls(nothing, nothing, torch.full((groups, ORDERS), -1, device=device))

    def after(self, moment: Moment) -> RareDraws:
        """With what the samples of a batch, a group each, might have drawn at this step and what they drew."""
        view, device = moment.view, moment.log_p.device
        left = int((moment.result.tokens[0] == moment.mask).sum())  # alike for all: the path is certain
        if left == 0:
            return self
        here = slice(view.first, view.first + view.count)
        kept = moment.drawn & moment.result.committed[:, here]
        row, log_p = kept.nonzero()[:, 0], moment.log_p[kept]
        of_draws = torch.zeros(len(row), CLASSES, dtype=torch.float64, device=device)
        of_draws.scatter_add_(1, rarity_class(log_p, left), log_p.exp().double())
        chance = torch.zeros_like(self.chance[:, 0]).index_add(0, row, of_draws)[:, None]
        made = rarity_class(moment.draws.log_probability, left).masked_fill(~kept, -1).amax(1, keepdim=True)
        orders = torch.tensor([view.step == 0, True], device=device)
        return RareDraws(
            self.chance + chance * orders[:, None],
            self.room + left * chance * orders[:, None],
            torch.maximum(self.rarest, torch.where(orders, made, -1)),
        )

    def gathered(self, into: Int[Tensor, " groups"], groups: int) -> RareDraws:
        """Groups united: `into` says which each goes to."""
        empty = RareDraws.empty(groups, self.chance.device)
        return RareDraws(
            empty.chance.index_add(0, into, self.chance),
            empty.room.index_add(0, into, self.room),
            empty.rarest.scatter_reduce(0, into[:, None].expand(-1, ORDERS), self.rarest, "amax"),
        )

    def merged(self, other: RareDraws) -> RareDraws:
        """Of the same groups and more samples."""
        rarest = torch.maximum(self.rarest, other.rarest)
        return RareDraws(self.chance + other.chance, self.room + other.room, rarest)

    def cpu(self) -> RareDraws:
        return RareDraws(self.chance.cpu(), self.room.cpu(), self.rarest.cpu())

    def allowance(self, strata: Strata) -> Allowance:
        """Of prompts, whose wordings are the `strata` that these sums are of."""
        prompts = int(strata.prompt.max()) + 1
        of_prompts = self.gathered(strata.prompt, prompts)
        samples = strata.prompt.bincount(strata.count.double())[:, None]

        def rarer_than(rarest: Int[Tensor, "prompts orders"]) -> list[Float[np.ndarray, " prompts"]]:
            rarer = torch.arange(CLASSES) > rarest[..., None]
            sums = ((part * rarer).sum(2) / samples for part in (of_prompts.chance, of_prompts.room))
            return [part.amax(1).numpy() for part in sums]

        own, every = of_prompts.rarest, of_prompts.rarest.amax(0).expand(prompts, -1)
        return Allowance(*rarer_than(own), *rarer_than(every))


@dataclass(frozen=True)
class Allowance:
    """The chance that a sample of a prompt makes a draw rarer than its samples made, `own`, or than those of any
    prompt, `pooled`; and the mean of the positions open after it. In the order of the draws in which it is more."""

    own: Float[np.ndarray, " prompts"]
    own_room: Float[np.ndarray, " prompts"]
    pooled: Float[np.ndarray, " prompts"]
    pooled_room: Float[np.ndarray, " prompts"]


def rarity_class(log_p: Float[Tensor, "*any"], left: int) -> Int[Tensor, "*any"]:
    """Of draws with these natural log-probabilities, where `left` positions are open after them; rising as they are
    rarer."""
    return ((math.log2(left) - log_p * BITS) * PER_OCTAVE).clamp(max=CLASSES - 1).floor().long()
