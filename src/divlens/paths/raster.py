"""The path of autoregressive models: one position after the other, in reading order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.noise import Noise
from divlens.paths.rule import Advance, Draws
from divlens.types import View


@final
@dataclass(frozen=True)
class Raster:
    """Position s at step s: no path draw, so the path entropy is 0 exactly."""

    positions: int

    @property
    def steps(self) -> int:
        return self.positions

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=step, count=1, time=step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return torch.ones_like(view.tokens[:, :1], dtype=torch.bool)

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        tokens = view.tokens.clone()
        tokens[:, view.first : view.first + 1] = draws.tokens
        committed = torch.zeros_like(tokens, dtype=torch.bool)
        committed[:, view.first] = True
        return Advance(tokens, committed, torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device))

    def silenced(self) -> Raster:
        return self
