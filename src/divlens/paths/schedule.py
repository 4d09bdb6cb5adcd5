"""How many positions stay masked after each step, for the rules that fill the whole grid in a number of steps."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, check_whole, is_number

Schedule = Literal["cosine", "linear", "arccos"]
Cooling = Literal["linear", "running product"]


def check_schedule(rule: str, steps: object, schedule: object) -> None:
    """Raises DivlensError for a number of steps below 1 and for an unknown schedule."""
    check_whole(f"{rule}(steps=...)", steps, 1)
    if schedule not in get_args(Schedule):
        known = ", ".join(f'"{name}"' for name in get_args(Schedule))
        raise DivlensError(f"{rule}(schedule=...) expects one of {known}, got {schedule!r}")


def check_temperature(rule: str, ends: object, cooling: object) -> None:
    """Raises DivlensError for what are no two temperatures, and for an unknown way from one to the other."""
    if not (isinstance(ends, tuple | list) and len(ends) == 2 and all(is_number(tau) and tau >= 0 for tau in ends)):
        raise DivlensError(f"{rule}(temperature=...) expects two numbers of at least 0, (first, last), got {ends!r}")
    if cooling not in get_args(Cooling):
        raise DivlensError(f'{rule}(cooling=...) expects "linear" or "running product", got {cooling!r}')
    if cooling == "running product" and ends[1] != 0:
        raise DivlensError(f'{rule}(cooling="running product") ends at 0, but temperature expects {ends[1]!r} there')


def temperature_at(ends: tuple[float, float], cooling: Cooling, step: int, steps: int) -> float:
    """The temperature of the path's noise at a step.

    linear: from ends[0] at the first step to ends[1] at the last, in float32 as `diffusers.AmusedScheduler` has it.
    running product: ends[0] times the product of 1 - r / steps over r = 1, ..., step + 1, as in Show-o and MMaDA,
    where the temperature is multiplied by what is left of the steps at every step anew.
    """
    if cooling == "linear":
        return float(torch.linspace(*ends, steps)[step])
    return ends[0] * math.prod(1 - done / steps for done in range(1, step + 2))


def masked_share(schedule: Schedule, ratio: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The share of the grid that stays masked when the share `ratio` of the steps is done.

    cosine: cos(pi/2 ratio), of MaskGIT (Chang et al., 2022). linear: 1 - ratio. arccos: 2/pi arccos(ratio), of the
    Halton scheduler (Besnier et al., 2025, arXiv 2503.17076).
    """
    if schedule == "cosine":
        return torch.cos(ratio * math.pi / 2)
    return 1 - ratio if schedule == "linear" else torch.arccos(ratio) / (math.pi / 2)


def exact_share(schedule: Schedule, step: int, steps: int) -> Float[Tensor, ""]:
    """The share that stays masked after `step`, float64, a little above: a whole number of positions that a rounding
    error brings below stays whole."""
    return masked_share(schedule, torch.tensor((step + 1) / steps, dtype=torch.float64)) + 1e-12


def still_masked(share: Float[Tensor, ""], unknown: Int[Tensor, "batch 1"], positions: int) -> Int[Tensor, "batch 1"]:
    """How many positions stay masked: that share of all, rounded down, but fewer than now, and at least one."""
    wanted = (positions * share).floor().long().to(unknown.device)
    return torch.minimum(unknown - 1, wanted).clamp(min=1)


def left_masked(schedule: Schedule, step: int, steps: int, unknown: Bool[Tensor, "batch n"]) -> Int[Tensor, "batch 1"]:
    """How many positions stay masked after a step that is not the last."""
    return still_masked(exact_share(schedule, step, steps), unknown.sum(1, keepdim=True), unknown.shape[1])


def without_the_last(
    score: Float[Tensor, "batch n"], unknown: Bool[Tensor, "batch n"], count: Int[Tensor, "batch 1"]
) -> Bool[Tensor, "batch n"]:
    """The unknown positions but the `count` of lowest score, which stay masked.

    By ranks, not by a threshold: equal scores must not change the count. Of equal scores the one further back in the
    grid is committed first.
    """
    rank = score.masked_fill(~unknown, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return unknown & (rank >= count)
