"""The path of masked generators: the most confident draws stay (MaskGIT, Chang et al., 2022; aMUSEd)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.noise import Noise
from divlens.paths.rule import Advance, Draws
from divlens.paths.schedule import (
    Cooling,
    Schedule,
    check_schedule,
    check_temperature,
    masked_share,
    still_masked,
    temperature_at,
    without_the_last,
)
from divlens.types import View, written


@final
@dataclass(frozen=True, repr=False)
class ConfidenceUnmasking:
    """Commit the most confident draws: score = log p(token) + tau * Gumbel; the rest is masked again.

    `temperature` (first, last): at step s of 0, ..., S - 1 tau is first + (last - first) s / (S - 1). `cooling`: that
    way from first to last, "linear", or the "running product" of Show-o and MMaDA, see `schedule.temperature_at`.
    `schedule`: of N positions floor(N share((s + 1) / S)) stay masked, see `schedule.masked_share`, but fewer than
    before, and always at least one; the last step fills all. p(token) is that of the draw, after guidance and filters.

    Agrees with `diffusers.AmusedScheduler.step` token for token when the noise source makes the reference's calls
    (`divlens.noise.TorchNoise`); a single number t given to the reference means (t, 0.01) here. Where scores tie
    exactly the reference commits more than the schedule says; this rule keeps the count.
    """

    steps: int = 12
    temperature: tuple[float, float] = (2.0, 0.0)
    schedule: Schedule = "cosine"
    cooling: Cooling = "linear"

    def __post_init__(self) -> None:
        check_schedule("ConfidenceUnmasking", self.steps, self.schedule)
        check_temperature("ConfidenceUnmasking", self.temperature, self.cooling)

    def __repr__(self) -> str:
        return written(self, "cooling")

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=0, count=tokens.shape[1], time=self.steps - 1 - step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return view.tokens == mask

    def tau(self, step: int) -> float:
        return temperature_at(self.temperature, self.cooling, step, self.steps)

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        unknown = view.tokens == mask
        proposed = torch.where(unknown, draws.tokens, view.tokens)
        if view.step == self.steps - 1:
            exact = torch.zeros(len(proposed), dtype=torch.float64, device=proposed.device)
            return Advance(proposed, unknown, exact)
        tau = self.tau(view.step)
        positions = proposed.shape[1]
        # Drawn even where tau is 0, as the reference does: a shared generator must stay in step with it.
        score = draws.log_probability.double() + tau * noise.path_gumbel(view.step, positions, proposed.device)
        share = masked_share(self.schedule, torch.tensor((view.step + 1) / self.steps))  # float32, as the reference's
        count = still_masked(share, unknown.sum(1, keepdim=True), positions)
        committed = without_the_last(score, unknown, count)
        nothing = math.nan if tau > 0 else 0.0
        path = torch.full((len(proposed),), nothing, dtype=torch.float64, device=proposed.device)
        return Advance(proposed.masked_fill(unknown & ~committed, mask), committed, path)

    def silenced(self) -> ConfidenceUnmasking:
        return replace(self, temperature=(0.0, 0.0))
