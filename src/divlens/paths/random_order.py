"""Positions in random order, and then their tokens: choose, then draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.noise import Noise
from divlens.paths.rule import Advance, Draws
from divlens.paths.schedule import Schedule, check_schedule, left_masked, without_the_last
from divlens.types import View

GOLDEN = (5**0.5 - 1) / 2  # fractional parts of its multiples scatter evenly


@final
@dataclass(frozen=True)
class RandomOrder:
    """At each step the schedule's number of masked positions is chosen uniformly at random, and their tokens are drawn.

    The choice does not look at the tokens, as it does in `ConfidenceUnmasking`: all sets of masked positions of the
    right size are alike, so the chance of one is 1 / C(masked, committed). `schedule`: see `schedule.masked_share`;
    with "linear" and as many steps as positions, one position is filled a step. `silent`: a fixed order that scatters
    positions evenly over the grid takes the place of the random one.
    """

    steps: int = 12
    schedule: Schedule = "cosine"
    silent: bool = False

    def __post_init__(self) -> None:
        check_schedule("RandomOrder", self.steps, self.schedule)

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=0, count=tokens.shape[1], time=self.steps - 1 - step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return view.tokens == mask

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        committed = unknown = view.tokens == mask
        if view.step < self.steps - 1:
            committed = without_the_last(self.score(view, noise), unknown, self.left(view.step, unknown))
        tokens = torch.where(committed, draws.tokens, view.tokens)
        return Advance(tokens, committed, -self.log_choices(view.step, unknown))

    def left(self, step: int, unknown: Bool[Tensor, "batch n"]) -> Int[Tensor, "batch 1"]:
        """How many positions stay masked after a step that is not the last."""
        return left_masked(self.schedule, step, self.steps, unknown)

    def score(self, view: View, noise: Noise) -> Float[Tensor, "batch n"]:
        """The order in which positions would be committed, the highest first."""
        batch, positions = view.tokens.shape
        if not self.silent:
            return noise.path_gumbel(view.step, positions, view.tokens.device)
        place = torch.arange(positions, dtype=torch.float64, device=view.tokens.device)
        return (place * GOLDEN).frac().expand(batch, positions)

    def log_choices(self, step: int, unknown: Bool[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        """log of how many sets of positions may be committed, all alike, natural, float64; 0 where there is one."""
        if self.silent or step == self.steps - 1:
            return torch.zeros(len(unknown), dtype=torch.float64, device=unknown.device)
        opened, left = (count.double() for count in (unknown.sum(1), self.left(step, unknown)[:, 0]))
        return torch.lgamma(opened + 1) - torch.lgamma(left + 1) - torch.lgamma(opened - left + 1)

    def silenced(self) -> RandomOrder:
        return replace(self, silent=True)
