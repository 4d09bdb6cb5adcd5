"""Draws that are rarer than any that a sample made. How likely they are is known, but not what would come after them.

Where there is one path only, as in AR, two samples differ through their draws alone. At every state that a sample
visited the law of the next draw is known, and so is the chance of all draws that are rarer than the rarest one made.
The scatter of the samples does not show how far such draws would move the mean of a prompt.

All draws are put in one order of rarity, whichever step they belong to: by their probability over the number of
positions that are open after them, for an early draw decides more than a late one. In any such order the rarest draw of
one more sample is rarer than those of m samples with a chance of 1 / (m + 1). The draws of the first step are a second
order of their own. There all samples are in the same state, so that the law of their draws is known exactly, and most
follows from these draws.
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

ORDERS = 2  # one of the draws of the first step, one of all draws
PER_OCTAVE, OCTAVES = 2, 64  # classes of rarity
CLASSES = PER_OCTAVE * OCTAVES


@dataclass(frozen=True)
class RareDraws:
    """Sums over the samples of each group, for each class of rarity.

    chance: the chance of the draws of a class at the states that the samples visited. open_after: that chance times the
    number of positions that are open after the draw. rarest: the class of the rarest draw that was made, or -1 if none
    was. The last draw of a grid does not count, for nothing follows from it.
    """

    chance: Float[Tensor, "groups orders classes"]
    open_after: Float[Tensor, "groups orders classes"]
    rarest: Int[Tensor, "groups orders"]

    @classmethod
    def empty(cls, groups: int, device: torch.device | None = None) -> RareDraws:
        nothing = torch.zeros(groups, ORDERS, CLASSES, dtype=torch.float64, device=device)
        return cls(nothing, nothing, torch.full((groups, ORDERS), -1, device=device))

    def after(self, moment: Moment) -> RareDraws:
        """These sums with one more step: what the samples of a batch, a group each, might have drawn and what they
        drew."""
        view, device = moment.view, moment.log_p.device
        left = int((moment.result.tokens[0] == moment.mask).sum())  # alike for all: the path is certain
        if left == 0:
            return self
        here = slice(view.first, view.first + view.count)
        counts = moment.drawn & moment.result.committed[:, here]
        row, log_p = counts.nonzero()[:, 0], moment.log_p[counts]
        of_draws = torch.zeros(len(row), CLASSES, dtype=torch.float64, device=device)
        of_draws.scatter_add_(1, rarity_class(log_p, left), log_p.exp().double())
        chance = torch.zeros_like(self.chance[:, 0]).index_add(0, row, of_draws)[:, None]
        made = rarity_class(moment.draws.log_probability, left).masked_fill(~counts, -1).amax(1, keepdim=True)
        orders = torch.tensor([view.step == 0, True], device=device)
        return RareDraws(
            self.chance + chance * orders[:, None],
            self.open_after + left * chance * orders[:, None],
            torch.maximum(self.rarest, torch.where(orders, made, -1)),
        )

    def by_group(self, group: Int[Tensor, " groups"], groups: int) -> RareDraws:
        """The sums of larger groups. `group`: which of these each of the present ones belongs to."""
        empty = RareDraws.empty(groups, self.chance.device)
        return RareDraws(
            empty.chance.index_add(0, group, self.chance),
            empty.open_after.index_add(0, group, self.open_after),
            empty.rarest.scatter_reduce(0, group[:, None].expand(-1, ORDERS), self.rarest, "amax"),
        )

    def __add__(self, other: RareDraws) -> RareDraws:
        """The sums over the samples of both; their groups are the same."""
        rarest = torch.maximum(self.rarest, other.rarest)
        return RareDraws(self.chance + other.chance, self.open_after + other.open_after, rarest)

    def cpu(self) -> RareDraws:
        return RareDraws(self.chance.cpu(), self.open_after.cpu(), self.rarest.cpu())

    def rarer_than_own(self, strata: Strata) -> RarerDraws:
        """The draws rarer than all that the samples of the same prompt made. The groups of these sums are `strata`."""
        of_prompts = self.by_group(strata.prompt, int(strata.prompt.max()) + 1)
        return of_prompts.rarer_than(of_prompts.rarest, strata.sums(strata.count))

    def rarer_than_all(self, strata: Strata) -> RarerDraws:
        """The draws rarer than all that the samples of any prompt made. The groups of these sums are `strata`."""
        of_prompts = self.by_group(strata.prompt, int(strata.prompt.max()) + 1)
        rarest = of_prompts.rarest.amax(0).expand(len(of_prompts.rarest), -1)
        return of_prompts.rarer_than(rarest, strata.sums(strata.count))

    def rarer_than(self, rarest: Int[Tensor, "groups orders"], samples: Float[Tensor, " groups"]) -> RarerDraws:
        rarer = torch.arange(CLASSES) > rarest[..., None]
        sums = ((part * rarer).sum(2) / samples[:, None] for part in (self.chance, self.open_after))
        return RarerDraws(*(part.amax(1).numpy() for part in sums))


@dataclass(frozen=True)
class RarerDraws:
    """chance: that a sample of a prompt makes one of these draws. open_after: the mean number of positions that are
    open after such a draw, 0 where a sample makes none. Both in the order of rarity in which they are more."""

    chance: Float[np.ndarray, " prompts"]
    open_after: Float[np.ndarray, " prompts"]


def rarity_class(log_p: Float[Tensor, "*any"], left: int) -> Int[Tensor, "*any"]:
    """The classes of draws with these natural log-probabilities, after which `left` positions are open. The rarer a
    draw is, the higher is its class."""
    return ((math.log2(left) - log_p * BITS) * PER_OCTAVE).clamp(max=CLASSES - 1).floor().long()
