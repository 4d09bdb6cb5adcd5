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
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import BITS, PromptMeans
from divlens.information.laws import law_of
from divlens.information.rare import RareDraws
from divlens.information.strata import Strata, Sums, prompt_means
from divlens.loop import Moment

QUANTITIES = ("path", "execution", "joint", "trajectory_path", "trajectory_execution", "trajectory_joint")
UNKNOWN_RULE = (
    "divlens knows no law for the path rule {}; its execution bits are the entropies of the draws that were committed, "
    "which is H(Z||P|X) only if the rule does not look at the drawn tokens"
)


@dataclass
class BatchAccount:
    """The sums over the steps of a batch.

    sums: the bits of each sample, (batch, 6), with a column for each of QUANTITIES. path_map, execution_map: the bits
    of each position in each step, (n,), summed over the batch. rare: the draws that were possible for the samples, by
    rarity; it is filled only if there is only one path.
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
        self.path_map.append(step.path.sum(0) * BITS)
        self.execution_map.append(step.execution.sum(0) * BITS)


@dataclass
class Tally:
    """Running sums over samples, whose size does not depend on the number of samples.

    sums: the sums of QUANTITIES, in one group for each of `strata`, which are the wordings of the prompts. rare: the
    draws that were possible for the samples, by rarity, in the same groups; it is filled only if there is only one
    path. path_map, execution_map: the bits of each step and position, summed over all samples.
    """

    strata: Strata
    sums: Sums
    rare: RareDraws
    path_map: Float[Tensor, "steps n"]
    execution_map: Float[Tensor, "steps n"]

    @classmethod
    def empty(cls, strata: Strata, steps: int, positions: int) -> Tally:
        sums = Sums.empty(len(strata), len(QUANTITIES))
        maps = (torch.zeros(steps, positions, dtype=torch.float64) for _ in range(2))
        return cls(strata, sums, RareDraws.empty(len(strata)), *maps)

    @classmethod
    def of_batch(cls, account: BatchAccount, stratum: Int[Tensor, " batch"], strata: Strata) -> Tally:
        """The sums of one batch. `stratum`: the index of the stratum of each row of the batch."""
        sums = Sums.of(account.sums.cpu(), stratum, len(strata))
        rare = account.rare.cpu().by_group(stratum, len(strata))
        maps = (torch.stack(rows).cpu() for rows in (account.path_map, account.execution_map))
        return cls(strata, sums, rare, *maps)

    def __add__(self, other: Tally) -> Tally:
        """The sums over the samples of both, which must have the same strata."""
        maps = self.path_map + other.path_map, self.execution_map + other.execution_map
        return Tally(self.strata, self.sums + other.sums, self.rare + other.rare, *maps)

    def means(self, name: str, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> PromptMeans:
        """The means over the samples of each prompt of one of QUANTITIES, with `extra` bits added."""
        means = prompt_means(self.strata, self.sums.quantity(QUANTITIES.index(name)))
        return replace(means, mean=means.mean + extra)
