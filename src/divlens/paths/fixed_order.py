"""Positions in an order that is given: any permutation, a Halton sequence, or reading order, several at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, is_whole
from divlens.noise import Noise
from divlens.paths.rule import Advance, Draws
from divlens.paths.schedule import Schedule, check_schedule, left_masked, without_the_last
from divlens.types import View


@final
@dataclass(frozen=True)
class FixedOrder:
    """Positions are filled in the order `order`, the schedule's number of them at each step.

    `order`: every position of the grid once, in raster numbering, the first to be filled first; `halton_order` and
    `range` give two. `roll`: each sample begins at a random place of the order and goes on from its end to its
    beginning, as the published Halton scheduler does when it is randomised (Besnier et al., 2025, arXiv 2503.17076);
    so one of as many paths as there are positions is chosen, all alike, at the first step. `schedule`: see
    `schedule.masked_share`; the published one is "arccos".
    """

    order: tuple[int, ...]
    steps: int = 12
    roll: bool = False
    schedule: Schedule = "cosine"

    def __post_init__(self) -> None:
        check_schedule("FixedOrder", self.steps, self.schedule)
        listed = isinstance(self.order, Sequence) and all(is_whole(place) for place in self.order)
        if not listed or not self.order or sorted(self.order) != list(range(len(self.order))):
            raise DivlensError(
                "FixedOrder(order=...) expects every position of the grid once, 0, 1, ... in any order, "
                f"got {shortened(self.order)}"
            )
        object.__setattr__(self, "order", tuple(self.order))

    @property
    def positions(self) -> int:
        return len(self.order)

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=0, count=tokens.shape[1], time=self.steps - 1 - step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return view.tokens == mask

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        committed = unknown = view.tokens == mask
        if view.step < self.steps - 1:
            count = left_masked(self.schedule, view.step, self.steps, unknown)
            committed = without_the_last(-self.turn(view, noise), unknown, count)
        tokens = torch.where(committed, draws.tokens, view.tokens)
        return Advance(tokens, committed, -self.log_choices(view.step, unknown))

    def turn(self, view: View, noise: Noise) -> Float[Tensor, "batch n"]:
        """When each position's turn is. The roll is that of the first step's noise, at every step."""
        device, positions = view.tokens.device, self.positions
        turn = torch.tensor(self.order, device=device).argsort().double()
        if not self.roll:
            return turn.expand(view.tokens.shape)
        rolled = (noise.path_uniform(0, 1, device)[..., 0] * positions).floor()
        return (turn + rolled) % positions

    def log_choices(self, step: int, unknown: Bool[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        """log of how many sets of positions may be committed, given the steps before, all alike, natural, float64.

        The first step commits a stretch of the rolled order, which tells where it begins, unless it commits all.
        """
        chosen = math.log(self.positions) if self.roll and step == 0 and self.steps > 1 else 0.0
        return torch.full((len(unknown),), chosen, dtype=torch.float64, device=unknown.device)

    def silenced(self) -> FixedOrder:
        return replace(self, roll=False)


def halton_order(grid: tuple[int, int]) -> tuple[int, ...]:
    """The positions of an (h, w) grid in the order in which the Halton sequence of bases 2 and 3 first meets them.

    Base 2 counts rows, base 3 columns, as in the Halton scheduler (Besnier et al., 2025, arXiv 2503.17076): its points
    spread evenly over the grid, so that positions filled at one step are far from each other.
    """
    height, width = grid
    found: dict[int, None] = {}
    index = 1  # as published: the sequence without its origin
    while len(found) < height * width:
        row, column = (int(radical_inverse(index, base) * side) for base, side in ((2, height), (3, width)))
        found.setdefault(row * width + column)
        index += 1
    return tuple(found)


def radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in this base, mirrored at the point: in [0, 1)."""
    value, scale = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digit * scale
        scale /= base
    return value
