"""Mask-and-replace diffusion: entropies and probabilities of one reverse step, per position, in closed form.

A step draws x_0 ~ p and then x_{t-1} ~ q(x_{t-1} | x_t, x_0). Given the state, positions are independent. The
outcome of a step can be described in two ways (docs/theory.md derives both):

schedule: at each position one of three events happens: the token stays, x_0 is revealed, or the token is replaced by a
    random code w. The code w is drawn with the noise of the path, so it counts as part of the path. After a reveal the
    token is x_0. In the other events x_0 has no effect, and the probabilities sum over it.
state: only x_{t-1} is described, and not the event that produced it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.law import StepEntropies
from divlens.paths.mask_replace_diffusion import MaskReplaceDiffusion, Outcome
from divlens.paths.reverse_step import coefficients


def xlogx(values: Tensor) -> Tensor:
    return torch.special.xlogy(values, values)


def total_xlogx(slope: Tensor, p: Tensor, constant: Tensor) -> Float[Tensor, "batch n"]:
    """The sum over codes of y log y, where y = slope * p + constant. y is clamped to a positive value so that its
    logarithm is finite. It is computed in the precision of p, because that adds no more rounding than p already has."""
    y = torch.addcmul(constant.to(p.dtype).unsqueeze(-1), slope.to(p.dtype).unsqueeze(-1), p)
    y.clamp_(min=torch.finfo(p.dtype).tiny)
    return torch.linalg.vecdot(y, y.log()).double()


def step_entropies(
    rule: MaskReplaceDiffusion, time: int, state: Int[Tensor, "batch n"], mask: int, p: Float[Tensor, "batch n codes"]
) -> StepEntropies:
    """The entropies of the step from x_time to x_{time - 1}. `p` is the distribution of x_0, and `state` is x_time."""
    drawn = -total_xlogx(torch.ones_like(p[..., 0]), p, torch.zeros_like(p[..., 0]))
    if time == 1:  # the result is x_0 itself, so the path has no entropy
        return StepEntropies(torch.zeros_like(drawn), drawn, drawn)
    masked = state == mask
    here = p.gather(-1, state.masked_fill(masked, 0).unsqueeze(-1)).squeeze(-1)
    c = coefficients(rule, time, masked, here)
    p_here = c.certain
    differ = torch.where(masked, 1.0, (1 - p_here).clamp(min=0))
    # A revealed x_0 differs from x_t, so the distribution given a reveal leaves out x_t and is normalized again.
    rest = drawn + xlogx(p_here)
    given = torch.where(differ > 0, rest / differ.clamp(min=1e-300) + differ.clamp(min=1e-300).log(), 0.0).clamp(min=0)
    execution = c.reveal * given
    # Rounding may make a probability slightly negative when p(x_t) is close to 1.
    path = -xlogx(c.stay) - xlogx(c.reveal)
    outcome = -xlogx(c.stay)
    if bool((c.other > 0).any()):
        skipped = torch.where(masked, 0.0, xlogx((c.other - c.less * p_here).clamp(min=0)))
        path = path - total_xlogx(-c.less, p, c.other) + skipped
        skipped = torch.where(masked, 0.0, xlogx((c.taken * p_here + c.other).clamp(min=0)))
        outcome = outcome - total_xlogx(c.taken, p, c.other) + skipped
    else:
        outcome = path + execution
    return StepEntropies(path.clamp(min=0), execution, outcome.clamp(min=0))


def state_log_probability(
    rule: MaskReplaceDiffusion,
    time: int,
    before: Int[Tensor, "batch n"],
    after: Int[Tensor, "batch n"],
    mask: int,
    log_p: Float[Tensor, "batch n codes"],
) -> Float[Tensor, " batch"]:
    """The natural logarithm of p(x_{time - 1} = after | x_time = before), where x_0 is summed over, in float64."""
    log_p = log_p.double()
    masked, still = before == mask, after == mask
    arrived = log_p.gather(-1, after.masked_fill(still, 0).unsqueeze(-1)).squeeze(-1)
    if time == 1:
        return arrived.sum(1)
    here = log_p.gather(-1, before.masked_fill(masked, 0).unsqueeze(-1)).squeeze(-1).exp()
    c = coefficients(rule, time, masked, here)
    chance = torch.where(after == before, c.stay, (c.taken * arrived.exp() + c.other).clamp(min=0))
    return chance.masked_fill(still & ~masked, 0.0).log().sum(1)  # a reverse step never masks a token


def known_events(
    rule: MaskReplaceDiffusion,
    time: int,
    state: Int[Tensor, "batch n"],
    codes: int,
    mask: int,
    uniform: Float[Tensor, "batch n two"],
) -> Outcome:
    """The outcome of the step for every possible x_0, (batch, n, codes), given the noise of the path."""
    now = state.unsqueeze(-1).expand(*state.shape, codes)
    origin = torch.arange(codes, device=state.device).expand_as(now)
    return rule.outcome(time, now, origin, mask, uniform.unsqueeze(-2).expand(*now.shape, 2))


def known_noise_entropies(
    rule: MaskReplaceDiffusion,
    time: int,
    state: Int[Tensor, "batch n"],
    p: Float[Tensor, "batch n codes"],
    mask: int,
    uniform: Float[Tensor, "batch n two"],
) -> StepEntropies:
    """The entropies of `step_entropies` when the noise of the path is known, because it is frozen or the rule is
    silenced. The event and x_{t-1} are then functions of x_0."""
    p = p.double()
    drawn = -xlogx(p).sum(-1)
    if time == 1:
        return StepEntropies(torch.zeros_like(drawn), drawn, drawn)
    known = known_events(rule, time, state, p.shape[-1], mask, uniform)
    taken, replaced, result = known.taken, known.replaced, known.tokens
    last = p.shape[-1]  # the index at which the mask is counted, whatever its token id is

    def outcome_chances(which: Tensor, result: Tensor) -> Tensor:
        """The probability of each outcome, (batch, n, codes + 1): the total probability of the x_0 that lead to it."""
        weight = torch.where(which, p, 0.0)
        empty = torch.zeros(*p.shape[:-1], last + 1, dtype=p.dtype, device=p.device)
        return empty.scatter_add(-1, torch.where(result == mask, last, result), weight)

    revealed = torch.where(taken, p, 0.0).sum(-1)
    path = -xlogx(torch.where(~taken & ~replaced, p, 0.0).sum(-1)) - xlogx(revealed)
    path = path - xlogx(outcome_chances(replaced, result)).sum(-1)
    execution = xlogx(revealed) - xlogx(torch.where(taken, p, 0.0)).sum(-1)
    outcome = -xlogx(outcome_chances(torch.ones_like(taken), result)).sum(-1)
    return StepEntropies(path.clamp(min=0), execution.clamp(min=0), outcome.clamp(min=0))
