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

from divlens.information.estimates import BITS, Estimate, Moments, Sides, estimate, extended, widened
from divlens.information.laws import law_of
from divlens.information.rare import RareDraws
from divlens.information.strata import Strata, Sums, moments_of
from divlens.interventions import Settings
from divlens.loop import Moment
from divlens.statistics import unseen

QUANTITIES = ("path", "execution", "joint", "trajectory_path", "trajectory_execution", "trajectory_joint")
UNKNOWN_RULE = (
    "divlens knows no law for the path rule {}; its execution bits are the entropies of the draws that were committed, "
    "which is H(Z||P|X) only if the rule does not look at the drawn tokens"
)


@dataclass
class BatchAccount:
    """What the steps of a batch add up to.

    sums: bits per sample of QUANTITIES, (batch, 6). path_map, execution_map: sums over the batch of the bits per step
    and position, (steps, n). rare: the draws that were possible, where there is one path only.
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
    """Running sums over samples, whose size does not depend on how many samples there were.

    sums: of QUANTITIES, a group per wording of a prompt, which `strata` lists; path_map, execution_map: (steps, n) sums
    over all samples; rare: the draws that were possible, where there is one path only.
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
        """`stratum`: the one of each row of the batch."""
        sums = Sums.of(account.sums.cpu()).gathered(stratum, len(strata))
        rare = account.rare.cpu().gathered(stratum, len(strata))
        maps = (torch.stack(rows).cpu() for rows in (account.path_map, account.execution_map))
        return cls(strata, sums, rare, *maps)

    def merged(self, other: Tally) -> Tally:
        """The tally of both together; it does not matter in which order."""
        maps = self.path_map + other.path_map, self.execution_map + other.execution_map
        return Tally(self.strata, self.sums.merged(other.sums), self.rare.merged(other.rare), *maps)

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
    """One of QUANTITIES, with `extra` added, and with intervals that allow for ways that no sample took, where the path
    has no noise of its own."""
    moments = tally.moments(QUANTITIES.index(name), extra)
    found = estimate(moments, note)
    if law_of(settings.rule).path_is_certain:
        return found if name == "path" else beyond_rare_draws(found, tally, moments.mean, most)
    if "path" not in settings.without_noise | settings.frozen:
        return found
    joint = tally.moments(QUANTITIES.index("trajectory_joint")).mean
    return beyond_unseen(found, moments, joint, most)


def beyond_rare_draws(found: Estimate, tally: Tally, means: Float[np.ndarray, " prompts"], most: float) -> Estimate:
    """Where there is one path only: with intervals that reach further by what draws rarer than any that a sample made
    would add, if no bits came after them, or as many as a grid of `most` has room for.

    Of all prompts together by what all their samples drew, or of the one where that is more by what its own drew.
    """
    allowance = tally.rare.allowance(tally.strata)
    bits = most / tally.path_map.shape[1]
    own = allowance.own * means, allowance.own_room * bits
    pooled = allowance.pooled * means, allowance.pooled_room * bits
    return extended(found, together(pooled, own), own, most)


def beyond_unseen(found: Estimate, moments: Moments, joint: Float[np.ndarray, " prompts"], most: float) -> Estimate:
    """With intervals that reach at least as far as states would move the mean that no sample visited, if they had no
    bits, or `most`.

    Their chance is at most that of what all samples miss, of each prompt by itself or of all together. It is also at
    most the nats of a way, from `joint`, the mean bits of whole records: a draw of entropy H takes another than its
    likeliest outcome with a chance of at most H.
    """
    nats, sides = joint / BITS, (moments.mean, np.maximum(most - moments.mean, 0.0))
    each = np.minimum([unseen(count) for count in moments.count.tolist()], nats)
    every = np.minimum(unseen(int(moments.count.sum())), nats)
    own, pooled = ((chance * sides[0], chance * sides[1]) for chance in (each, every))
    return widened(found, together(pooled, own), own)


def together(pooled: Sides, own: Sides) -> Sides:
    """Of the mean over prompts: by what all samples tell, or by what those of the one prompt do where that is more."""
    down, up = (
        max(float(np.mean(every)), float(np.max(each)) / np.size(each)) for each, every in zip(own, pooled, strict=True)
    )
    return down, up
