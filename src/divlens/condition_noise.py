"""Noise on an encoded condition that fades from step to step (CADS: Sadat et al., 2023, arXiv 2310.17347)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FadingNoise:
    """y becomes sqrt(gamma) y + s sqrt(1 - gamma) n with n normal, anew at every step; then, by the share `psi`, it
    gets back the mean and the standard deviation that the numbers of y have.

    gamma is 0 while the time, which runs from 1 at the first step towards 0, is at least `tau2`, 1 once it is at most
    `tau1`, and linear between.
    """

    s: float
    psi: float
    tau1: float
    tau2: float

    def gamma(self, step: int, steps: int) -> float:
        time = 1 - step / steps
        if time <= self.tau1:
            return 1.0
        return max(0.0, (self.tau2 - time) / (self.tau2 - self.tau1)) if self.tau2 > self.tau1 else 0.0

    def on(
        self, conditions: Float[Tensor, "batch *shape"], normal: Float[Tensor, "batch numbers"], gamma: float
    ) -> Float[Tensor, "batch *shape"]:
        """Row by row, computed in float64."""
        before = conditions.flatten(1).double()
        noisy = gamma**0.5 * before + self.s * (1 - gamma) ** 0.5 * normal
        std_before, std = (rows.std(1, keepdim=True) for rows in (before, noisy))
        scaled = (noisy - noisy.mean(1, keepdim=True)) / std * std_before + before.mean(1, keepdim=True)
        scaled = torch.where(scaled.isfinite(), scaled, noisy)  # where all numbers are one
        return (self.psi * scaled + (1 - self.psi) * noisy).to(conditions.dtype).view_as(conditions)
