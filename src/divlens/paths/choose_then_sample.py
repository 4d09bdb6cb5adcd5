"""Positions chosen by how certain the model is of them, and then their tokens: the choice does not see the draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.noise import Noise, rows_at_once
from divlens.paths.rule import Advance, Draws
from divlens.paths.schedule import (
    Cooling,
    Schedule,
    check_schedule,
    check_temperature,
    left_masked,
    temperature_at,
    without_the_last,
)
from divlens.types import View, written


@final
@dataclass(frozen=True, repr=False)
class ChooseThenSample:
    """Commit the positions with the highest score tau log sum_x p(x)^(1 + 1/tau) + tau Gumbel; the rest stays masked.

    It is how `ConfidenceUnmasking` chooses, as if positions were many, but for the token that was drawn: there a
    position is committed because its draw was probable, which makes committed tokens more probable than the model says
    they are. Here tokens follow the model's law whichever positions are chosen. The choice is that of the moment
    sampler (Hayakawa et al., 2025, arXiv 2510.04525), which then draws from p^(1 + 1/tau) in place of p, to do what
    confidence unmasking does. At tau = 0 the score is log max p. `steps`, `temperature`, `cooling`: as of
    `ConfidenceUnmasking`; `schedule`: see `schedule.masked_share`.
    """

    steps: int = 12
    temperature: tuple[float, float] = (2.0, 0.0)
    schedule: Schedule = "cosine"
    cooling: Cooling = "linear"

    def __post_init__(self) -> None:
        check_schedule("ChooseThenSample", self.steps, self.schedule)
        check_temperature("ChooseThenSample", self.temperature, self.cooling)

    def __repr__(self) -> str:
        return written(self, "cooling")

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=0, count=tokens.shape[1], time=self.steps - 1 - step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return view.tokens == mask

    def tau(self, step: int) -> float:
        return temperature_at(self.temperature, self.cooling, step, self.steps)

    def score(self, log_p: Float[Tensor, "batch m codes"], step: int) -> Float[Tensor, "batch m"]:
        """The score of each position without the noise, float64."""
        tau = self.tau(step)
        if tau == 0:
            return log_p.amax(-1).double()
        parts = log_p.flatten(0, 1).split(rows_at_once(log_p))
        moments = torch.cat([(part.double() * (1 + 1 / tau)).logsumexp(-1) for part in parts])
        return tau * moments.view(log_p.shape[:-1])

    def chosen(
        self, score: Float[Tensor, "batch n"], unknown: Bool[Tensor, "batch n"], step: int
    ) -> Bool[Tensor, "batch n"]:
        """The positions that are committed at a step that is not the last, by their scores with the noise."""
        return without_the_last(score, unknown, left_masked(self.schedule, step, self.steps, unknown))

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        committed = unknown = view.tokens == mask
        path = torch.zeros(len(unknown), dtype=torch.float64, device=unknown.device)
        if view.step < self.steps - 1:
            if draws.log_p is None:
                raise DivlensError("ChooseThenSample expects draws that say which law they are from, got none")
            gumbel = noise.path_gumbel(view.step, unknown.shape[1], unknown.device)
            score = self.score(draws.log_p, view.step) + self.tau(view.step) * gumbel
            committed = self.chosen(score, unknown, view.step)
            path = path + (torch.nan if self.tau(view.step) > 0 else 0.0)
        return Advance(torch.where(committed, draws.tokens, view.tokens), committed, path)

    def silenced(self) -> ChooseThenSample:
        return replace(self, temperature=(0.0, 0.0))
