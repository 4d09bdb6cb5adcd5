"""Draws that are rarer than any that a sample made. Their probability is known, but not what would come after them.

If there is only one path, as in AR, samples differ only in their draws. At every state that a sample visited, the
distribution of the next draw is known, and so is the total probability of the draws that are rarer than the rarest draw
made. The scatter of the samples does not show how much such draws would change the mean of a prompt.

Draws of all steps are ranked together by rarity: by their probability divided by the number of positions that are open
after them, because an early draw affects more of the grid than a late one. In any such order, the rarest draw of one
more sample is rarer than all draws of the m samples with probability 1 / (m + 1). The draws of the first step are also
ranked on their own. All samples are in the same state there, so the distribution of these draws is known exactly, and
they affect the grid most.
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

ORDERS = 2  # the two rankings: of the draws of the first step, and of all draws
PER_OCTAVE, OCTAVES = 2, 64  # the number of classes of rarity, and how many there are for each factor of 2
CLASSES = PER_OCTAVE * OCTAVES


@dataclass(frozen=True)
class RareDraws:
    """Sums over the samples of each group, for each class of rarity.

    chance: the probability of the draws of a class at the states that the samples visited. open_after: this probability
    times the number of positions that are open after the draw. rarest: the class of the rarest draw that was made, or
    -1 if there was none. The last draw of a grid does not count, because nothing comes after it.
    """

    chance: Float[Tensor, "groups orders classes"]
    open_after: Float[Tensor, "groups orders classes"]
    rarest: Int[Tensor, "groups orders"]

    @classmethod
    def empty(cls, groups: int, device: torch.device | None = None) -> RareDraws:
        chance, open_after = torch.zeros(2, groups, ORDERS, CLASSES, dtype=torch.float64, device=device)
        return cls(chance, open_after, torch.full((groups, ORDERS), -1, device=device))

    def after(self, moment: Moment) -> RareDraws:
        """These sums with one more step added: the draws that were possible, and those that were made. Each sample of
        the batch is its own group."""
        view, device = moment.view, moment.log_p.device
        left = int((moment.result.tokens[0] == moment.mask).sum())  # equal for all samples, as they share one path
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
        """The sums over larger groups. `group`: the index of the larger group to which each present group belongs."""
        empty = RareDraws.empty(groups, self.chance.device)
        return RareDraws(
            empty.chance.index_add(0, group, self.chance),
            empty.open_after.index_add(0, group, self.open_after),
            empty.rarest.scatter_reduce(0, group[:, None].expand(-1, ORDERS), self.rarest, "amax"),
        )

    def add(self, samples: RareDraws, group: Int[Tensor, " samples"]) -> None:
        """Add samples in place, each of which is its own group in `samples`. They are added one by one, so that the
        sums do not depend on how many are added at a time. `group`: the index of the group of each."""
        np.add.at(self.chance.numpy(), group.numpy(), samples.chance.numpy())
        np.add.at(self.open_after.numpy(), group.numpy(), samples.open_after.numpy())
        np.maximum.at(self.rarest.numpy(), group.numpy(), samples.rarest.numpy())

    def cpu(self) -> RareDraws:
        return RareDraws(self.chance.cpu(), self.open_after.cpu(), self.rarest.cpu())

    def rarer_than_own(self, strata: Strata) -> RarerDraws:
        """The draws that are rarer than all draws of the samples of the same prompt. The groups must be `strata`."""
        of_prompts = self.by_group(strata.prompt, int(strata.prompt.max()) + 1)
        return of_prompts.rarer_than(of_prompts.rarest, strata.sums(strata.count))

    def rarer_than_all(self, strata: Strata) -> RarerDraws:
        """The draws that are rarer than all draws of the samples of any prompt. The groups must be `strata`."""
        of_prompts = self.by_group(strata.prompt, int(strata.prompt.max()) + 1)
        rarest = of_prompts.rarest.amax(0).expand(len(of_prompts.rarest), -1)
        return of_prompts.rarer_than(rarest, strata.sums(strata.count))

    def rarer_than(self, rarest: Int[Tensor, "groups orders"], samples: Float[Tensor, " groups"]) -> RarerDraws:
        rarer = torch.arange(CLASSES) > rarest[..., None]
        sums = ((part * rarer).sum(2) / samples[:, None] for part in (self.chance, self.open_after))
        return RarerDraws(*(part.amax(1).numpy() for part in sums))


@dataclass(frozen=True)
class RarerDraws:
    """chance: the probability that a sample of a prompt makes one of these draws, summed over its steps. open_after:
    the number of positions that are open after such a draw, on average over samples, where a sample without such a draw
    counts as 0. Both are the larger one of the values in the two rankings."""

    chance: Float[np.ndarray, " prompts"]
    open_after: Float[np.ndarray, " prompts"]


def rarity_class(log_p: Float[Tensor, "*any"], left: int) -> Int[Tensor, "*any"]:
    """The classes of draws with these natural log-probabilities, after which `left` positions are open. Rarer draws
    have higher classes."""
    return ((math.log2(left) - log_p * BITS) * PER_OCTAVE).clamp(max=CLASSES - 1).floor().long()
