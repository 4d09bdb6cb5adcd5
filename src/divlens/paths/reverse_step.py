"""One reverse step of mask-and-replace diffusion with x_0 ~ p summed over: chances of x_{t-1}, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.paths.mask_replace_diffusion import MaskReplaceDiffusion


@dataclass(frozen=True)
class Chances:
    """Of staying, taking x_0, and taking one given other code, for the three kinds of position; see
    `MaskReplaceDiffusion.events`. Each is (masked, x_t = x_0, x_t differs from x_0)."""

    stay: tuple[float, float, float]
    reveal: tuple[float, float, float]
    other: tuple[float, float, float]


def chances_of(rule: MaskReplaceDiffusion, time: int) -> Chances:
    kinds = torch.tensor([[True, False, False], [False, True, False]])
    stay, reveal, replaced, others = rule.events(time, *kinds)
    one, two, three = ([float(v) for v in values] for values in (stay, reveal, replaced / others))
    return Chances((one[0], one[1], one[2]), (two[0], two[1], two[2]), (three[0], three[1], three[2]))


@dataclass(frozen=True)
class Coefficients:
    """Of the chances at each position, (batch, n), float64. The chance of being replaced by w is other - less * p(w),
    of becoming v by any event taken * p(v) + other; `stay` is that of x_{t-1} = x_t; `certain` is p(x_t), 0 where
    masked; `reveal` the chance that x_0 is taken."""

    stay: Float[Tensor, "batch n"]
    reveal: Float[Tensor, "batch n"]
    other: Float[Tensor, "batch n"]
    less: Float[Tensor, "batch n"]
    taken: Float[Tensor, "batch n"]
    certain: Float[Tensor, "batch n"]


def coefficients(
    rule: MaskReplaceDiffusion, time: int, masked: Bool[Tensor, "batch n"], here: Float[Tensor, "batch n"]
) -> Coefficients:
    """`here`: p(x_t), anything where masked."""
    chance = chances_of(rule, time)

    def pick(if_masked: float, otherwise: Tensor) -> Tensor:
        return torch.where(masked, if_masked, otherwise)

    (stay_masked, stay_agree, stay_differ), (reveal_masked, _, reveal_differ) = chance.stay, chance.reveal
    other_masked, other_agree, other_differ = chance.other
    here = here.double()
    differ = (1 - here).clamp(min=0)
    less = pick(other_masked, torch.full_like(here, other_differ))
    return Coefficients(
        stay=pick(stay_masked, here * stay_agree + differ * stay_differ),
        reveal=pick(reveal_masked, differ * reveal_differ),
        other=pick(other_masked, here * other_agree + differ * other_differ),
        less=less,
        taken=pick(reveal_masked, torch.full_like(here, reveal_differ)) - less,
        certain=torch.where(masked, 0.0, here),
    )


def reverse_step(
    rule: MaskReplaceDiffusion, time: int, state: Int[Tensor, "batch n"], mask: int, p: Float[Tensor, "batch n codes"]
) -> Float[Tensor, "batch n classes"]:
    """Chances of x_{time - 1} given x_time = state, float64: of every code and, as the last, of the mask."""
    p, masked = p.double(), state == mask
    if time == 1:
        return torch.nn.functional.pad(p, (0, 1))
    here = state.masked_fill(masked, 0).unsqueeze(-1)
    c = coefficients(rule, time, masked, p.gather(-1, here).squeeze(-1))
    codes = c.taken.unsqueeze(-1) * p + c.other.unsqueeze(-1)
    stay = c.stay.unsqueeze(-1)
    codes = torch.where(masked.unsqueeze(-1), codes, codes.scatter(-1, here, stay)).clamp(min=0)
    return torch.cat([codes, stay * masked.unsqueeze(-1)], dim=-1)
