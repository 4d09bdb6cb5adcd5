"""Causal accounting: what each step adds to path and execution, and running sums of it over samples.

Along a sample, H(P||Z|X) is the sum over steps of H(V_s | past) and H(Z||P|X) that of H(z_{V_s} | V_s, past): the path
event first, then its tokens. Where a step's conditional entropy is known it is added itself, else -log of the
probability of what happened; the mean over samples is unbiased either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TypeGuard, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.diffusion import StepEntropies, known_noise_entropies, step_entropies
from divlens.information.records import BITS, Estimate, Moments, estimate, unless_alike
from divlens.information.strata import Strata, Sums, moments_of
from divlens.information.unmasking import event_log_probabilities, scores_of
from divlens.interventions import Settings
from divlens.noise import Noise
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster
from divlens.sampler import Moment

QUANTITIES = ("path", "execution", "joint", "trajectory_path", "trajectory_execution", "trajectory_joint")
UNKNOWN_RULE = (
    "divlens knows no law for the path rule {}; its execution bits are the entropies of the draws that were committed, "
    "which is H(Z||P|X) only if the rule does not look at the drawn tokens"
)

Known = Raster | ConfidenceUnmasking | MaskReplaceDiffusion


def is_known(rule: PathRule) -> TypeGuard[Known]:
    """Whether the law of the rule is known. A subclass that overrides what a known rule does may have another law."""
    for base in get_args(Known):
        if isinstance(rule, base):
            kinds = type(rule).__mro__
            below = [item for kind in kinds[: kinds.index(base)] for item in vars(kind).items()]
            return not any(name in vars(base) and is_behaviour(part) for name, part in below)
    return False


def is_behaviour(part: object) -> bool:
    """A method or property of a class; not a field, nor what `dataclass` writes anew for every subclass."""
    name = getattr(part, "__name__", "")
    return isinstance(part, property) or (callable(part) and not name.startswith("__"))


def step_of(moment: Moment, noise: Noise) -> StepEntropies:
    """What the step adds, nats per position of the grid (batch, n); NaN where the rule is not known.

    `noise` is what the loop drew from; it is asked only where the path is frozen. The entropies are then given the
    frozen stream. For confidence unmasking a step has one number for its path and one for its tokens; they are divided
    over the committed positions, the path evenly and the tokens in proportion to -log p of each.
    """
    rule, view, log_p = moment.settings.rule, moment.view, moment.log_p
    certain = moment.draws.tokens if moment.settings.greedy or "execution" in moment.settings.frozen else None
    known = is_known(rule)
    if known and isinstance(rule, ConfidenceUnmasking):
        return unmasking_step(rule, moment, certain, noise)
    if known and isinstance(rule, MaskReplaceDiffusion):
        return diffusion_step(rule, moment, certain, noise)
    zero = torch.zeros(view.tokens.shape, dtype=torch.float64, device=log_p.device)
    execution = zero.clone()
    here = slice(view.first, view.first + view.count)
    if certain is None:
        entropy = torch.special.entr(log_p.exp()).sum(-1).double()
        execution[:, here] = entropy.masked_fill(~(moment.drawn & moment.result.committed[:, here]), 0.0)
    path = zero if known else torch.full_like(zero, math.nan)
    return StepEntropies(path, execution, path + execution)


def diffusion_step(
    rule: MaskReplaceDiffusion, moment: Moment, certain: Int[Tensor, "batch n"] | None, noise: Noise
) -> StepEntropies:
    view, time = moment.view, moment.view.time + 1
    if certain is None:
        p = moment.log_p.exp()
    else:
        p = torch.zeros_like(moment.log_p).scatter(-1, certain.unsqueeze(-1), 1.0)
    if rule.silent or "path" in moment.settings.frozen:
        step = known_noise_entropies(rule, time, view.tokens, p, moment.mask, rule.uniforms(view, noise))
    else:
        step = step_entropies(rule, time, view.tokens, moment.mask, p)
    if certain is None:
        return step
    none = torch.zeros_like(step.execution)  # exactly, without the logarithm's rounding
    return replace(step, execution=none, state=none if time == 1 else step.state)


def unmasking_step(
    rule: ConfidenceUnmasking, moment: Moment, certain: Int[Tensor, "batch n"] | None, noise: Noise
) -> StepEntropies:
    view, log_p, committed = moment.view, moment.log_p, moment.result.committed
    zero = torch.zeros(view.tokens.shape, dtype=torch.float64, device=log_p.device)
    if view.step == rule.steps - 1:  # all that is open is committed: the conditional entropy itself is known
        entropy = zero if certain is not None else torch.special.entr(log_p.exp()).sum(-1).double()
        execution = entropy.masked_fill(~moment.drawn, 0.0)
        return StepEntropies(zero, execution, execution)
    tau, shift = rule.tau(view.step), None
    if tau > 0 and "path" in moment.settings.frozen:
        gumbel = noise.path_gumbel(view.step, view.tokens.shape[1], log_p.device)
        shift = tau * gumbel[moment.drawn]
    scores = scores_of(log_p, moment.drawn, committed, moment.draws.tokens, certain)
    log_path, log_joint = event_log_probabilities(scores, len(log_p), tau, shift)
    surprise = torch.where(committed, -moment.draws.log_probability.double(), 0.0)
    count = committed.sum(1, keepdim=True).clamp(min=1)
    total = surprise.sum(1, keepdim=True)
    share = torch.where(total > 0, surprise / total.clamp(min=1e-300), committed / count)
    path = -log_path[:, None] * (committed / count)
    execution = zero if certain is not None else (log_path - log_joint)[:, None] * share
    return StepEntropies(path, execution, path + execution)


@dataclass
class BatchAccount:
    """An observer of one batch. `sums`: bits per sample of QUANTITIES, (batch, 6); `path_map`, `execution_map`: sums
    over the batch of the bits per step and position, (steps, n)."""

    noise: Noise
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    path_map: list[Tensor] = field(default_factory=list)
    execution_map: list[Tensor] = field(default_factory=list)

    def __call__(self, moment: Moment) -> None:
        step = step_of(moment, self.noise)
        if not len(self.sums):
            self.sums = torch.zeros(len(step.path), len(QUANTITIES), dtype=torch.float64, device=step.path.device)
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
    certain_path = isinstance(settings.rule, Raster) and name == "path"
    if certain_path or settings.rule.steps == 1 or "path" not in settings.without_noise | settings.frozen:
        return found
    return unless_alike(found, moments, tally.moments(QUANTITIES.index("trajectory_joint")).mean, most)
