"""Causal accounting: the bits that each step adds to path and execution, and running sums of them over samples.

Along a sample, H(P||Z|X) is the sum over steps of H(V_s | past), and H(Z||P|X) is the sum of H(z_{V_s} | V_s, past):
the step first decides which positions it commits, then their tokens. If there is a formula for the conditional entropy
of a step, this entropy is added. Otherwise -log of the probability of the outcome is added. The mean over samples is
unbiased in both cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.estimates import BITS, PromptMeans
from divlens.information.laws import law_of
from divlens.information.rare import RareDraws
from divlens.information.strata import Strata, Sums, prompt_means
from divlens.loop import Moment
from divlens.store.schemas import QUANTITIES

# Bits of a map are multiples of this. Such sums are exact, in whatever order, as long as they are below 2^53 of it.
GRAIN = 2.0**-34
UNKNOWN_RULE = (
    "divlens knows no law for the path rule {}; its execution bits are the entropies of the draws that were committed, "
    "which is H(Z||P|X) only if the rule does not look at the drawn tokens"
)


@dataclass
class BatchAccount:
    """The sums over the steps of a batch.

    sums: the bits of each sample, (batch, 6), with a column for each of QUANTITIES. path_map, execution_map: the bits
    of each position in each step, (n,), summed over the batch, in multiples of GRAIN. rare: the draws that were
    possible for the samples, by rarity; it is filled only if there is only one path.
    """

    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    path_map: list[Tensor] = field(default_factory=list)
    execution_map: list[Tensor] = field(default_factory=list)
    rare: RareDraws = field(default_factory=lambda: RareDraws.empty(0))

    def add(self, moment: Moment) -> None:
        law = law_of(moment.settings.rule)
        step = law.entropies(moment)
        if not len(self.sums):
            self.sums = torch.zeros(len(step.path), len(QUANTITIES), dtype=torch.float64, device=step.path.device)
            self.rare = RareDraws.empty(len(step.path), step.path.device)
        if law.path_is_certain and moment.certain is None:
            self.rare = self.rare.after(moment)
        path, execution, state = (part.sum(1) * BITS for part in (step.path, step.execution, step.state))
        last = moment.view.step == moment.settings.rule.steps - 1
        trajectory = (torch.zeros_like(state), state) if last else (state, torch.zeros_like(state))
        self.sums += torch.stack([path, execution, path + execution, *trajectory, state], dim=1)
        self.path_map.append(in_grains(step.path * BITS).sum(0))
        self.execution_map.append(in_grains(step.execution * BITS).sum(0))

    def maps(self) -> Float[Tensor, "two steps n"]:
        """The maps of path and of execution, on the CPU."""
        return torch.stack([torch.stack(rows).cpu() for rows in (self.path_map, self.execution_map)])


def in_grains(bits: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    return (bits / GRAIN).round() * GRAIN


@dataclass
class Tally:
    """Sums over samples, whose size does not depend on the number of samples.

    sums: the sums of QUANTITIES, in one group for each of `strata`, which are the wordings of the prompts. rare: the
    draws that were possible for the samples, by rarity, in the same groups; it is filled only if there is only one
    path. path_map, execution_map: the bits of each step and position, summed over all samples.
    """

    strata: Strata
    sums: Sums
    rare: RareDraws
    path_map: Float[Tensor, "steps n"]
    execution_map: Float[Tensor, "steps n"]

    def means(self, name: str, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> PromptMeans:
        """The means over the samples of each prompt of one of QUANTITIES, with `extra` bits added."""
        means = prompt_means(self.strata, self.sums.quantity(QUANTITIES.index(name)))
        return replace(means, mean=means.mean + extra)
