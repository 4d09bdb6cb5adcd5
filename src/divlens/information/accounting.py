"""Causal accounting: what each step adds to path and execution, and running sums of it over samples.

Along a sample, H(P||Z|X) is the sum over steps of H(V_s | past) and H(Z||P|X) that of H(z_{V_s} | V_s, past): the path
event first, then its tokens. Where a step's conditional entropy is known it is added itself, else -log of the
probability of what happened; the mean over samples is unbiased either way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws import law_of
from divlens.information.records import BITS, Estimate, Moments, estimate, unless_alike
from divlens.information.strata import Strata, Sums, moments_of
from divlens.interventions import Settings
from divlens.noise import Noise
from divlens.sampler import Moment

QUANTITIES = ("path", "execution", "joint", "trajectory_path", "trajectory_execution", "trajectory_joint")
UNKNOWN_RULE = (
    "divlens knows no law for the path rule {}; its execution bits are the entropies of the draws that were committed, "
    "which is H(Z||P|X) only if the rule does not look at the drawn tokens"
)


@dataclass
class BatchAccount:
    """An observer of one batch. `sums`: bits per sample of QUANTITIES, (batch, 6); `path_map`, `execution_map`: sums
    over the batch of the bits per step and position, (steps, n)."""

    noise: Noise
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    path_map: list[Tensor] = field(default_factory=list)
    execution_map: list[Tensor] = field(default_factory=list)

    def __call__(self, moment: Moment) -> None:
        settings = moment.settings
        has_choice = not (settings.greedy or "execution" in settings.frozen)
        step = law_of(settings.rule).entropies(moment, None if has_choice else moment.draws.tokens, self.noise)
        if not len(self.sums):
            self.sums = torch.zeros(len(step.path), len(QUANTITIES), dtype=torch.float64, device=step.path.device)
        path, execution, state = (part.sum(1) * BITS for part in (step.path, step.execution, step.state))
        last = moment.view.step == settings.rule.steps - 1
        trajectory = (torch.zeros_like(state), state) if last else (state, torch.zeros_like(state))
        self.sums += torch.stack([path, execution, path + execution, *trajectory, state], dim=1)
        self.path_map.append(step.path.sum(0) * BITS)
        self.execution_map.append(step.execution.sum(0) * BITS)


@dataclass
class Tally:
    """Running sums over samples, whose size does not depend on how many samples there were.

    sums: of QUANTITIES, a group per wording of a prompt, which `strata` lists; path_map, execution_map: (steps, n) sums
    over all samples.
    """

    strata: Strata
    sums: Sums
    path_map: Float[Tensor, "steps n"]
    execution_map: Float[Tensor, "steps n"]

    @classmethod
    def empty(cls, strata: Strata, steps: int, positions: int) -> Tally:
        sums = Sums.empty(len(strata), len(QUANTITIES))
        return cls(strata, sums, *(torch.zeros(steps, positions, dtype=torch.float64) for _ in range(2)))

    @classmethod
    def of_batch(cls, account: BatchAccount, stratum: Int[Tensor, " batch"], strata: Strata) -> Tally:
        """`stratum`: the one of each row of the batch."""
        sums = Sums.of(account.sums.cpu()).gathered(stratum, len(strata))
        return cls(strata, sums, *(torch.stack(rows).cpu() for rows in (account.path_map, account.execution_map)))

    def merged(self, other: Tally) -> Tally:
        """The tally of both together; it does not matter in which order."""
        maps = self.path_map + other.path_map, self.execution_map + other.execution_map
        return Tally(self.strata, self.sums.merged(other.sums), *maps)

    def moments(self, quantity: int, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> Moments:
        """Of one of QUANTITIES, with `extra` added to the means."""
        moments = moments_of(self.strata, self.sums.of_quantity(quantity))
        return replace(moments, mean=moments.mean + extra)


def account(
    tally: Tally,
    name: str,
    settings: Settings,
    most: float,
    note: str,
    extra: Float[np.ndarray, " prompts"] | float = 0.0,
) -> Estimate:
    """One of QUANTITIES, with `extra` added. Where the path has no noise of its own samples may take the same way and
    have the same bits; with one step there is one way, and the path of AR is certain."""
    moments = tally.moments(QUANTITIES.index(name), extra)
    found = estimate(moments, note)
    certain_path = law_of(settings.rule).path_is_certain and name == "path"
    if certain_path or settings.rule.steps == 1 or "path" not in settings.without_noise | settings.frozen:
        return found
    return unless_alike(found, moments, tally.moments(QUANTITIES.index("trajectory_joint")).mean, most)
