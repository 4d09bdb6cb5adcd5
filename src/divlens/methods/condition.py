"""A method that changes what the model is told: noise on the encoded condition."""

from __future__ import annotations

from dataclasses import dataclass, replace

from divlens.condition_noise import FadingNoise
from divlens.errors import DivlensError, is_number, shown
from divlens.interventions import Frequencies
from divlens.paths import Raster
from divlens.settings import Settings


@dataclass(frozen=True)
class ConditionNoise:
    """The encoded condition gets noise that fades from step to step (CADS: Sadat et al., 2023, arXiv 2310.17347).

    y becomes sqrt(gamma) y + s sqrt(1 - gamma) n with n standard normal, and by the share `psi` it gets back the mean
    and standard deviation of its numbers. Time runs from 1 at the first step towards 0; gamma is 0 from `tau2` up, 1
    from `tau1` down, and linear between. Published: psi = 1, tau1 = 0.6, tau2 = 0.9. tau1 = 1 changes nothing; s = 0
    does, for the condition fades in all the same. The unconditional branch is as ever.

    The noise is a function of (seed, prompt, index of the sample, step), a stream of its own: `Freeze` of either stream
    alone does not hold it. For models that read their condition at every step anew: an autoregressive one reads it
    once, so nothing could fade, and is refused.
    """

    s: float = 0.25
    psi: float = 1.0
    tau1: float = 0.6
    tau2: float = 0.9

    def __post_init__(self) -> None:
        if not (is_number(self.s) and 0 <= self.s <= 1e6):
            raise DivlensError(f"ConditionNoise(s=...) expects a number from 0 to 1e6, got {shown(self.s)}")
        if not (is_number(self.psi) and 0 <= self.psi <= 1):
            raise DivlensError(f"ConditionNoise(psi=...) expects a share in [0, 1], got {shown(self.psi)}")
        times = is_number(self.tau1) and is_number(self.tau2)
        if not (times and 0 <= self.tau1 <= 1 and self.tau1 <= self.tau2 <= 1):
            raise DivlensError(
                f"ConditionNoise expects times 0 <= tau1 <= tau2 <= 1, got {shown(self.tau1)} and {shown(self.tau2)}"
            )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        if isinstance(settings.rule, Raster):
            raise DivlensError(
                "ConditionNoise expects a model that reads its condition at every step, got an autoregressive one"
            )
        if self.tau1 == 1:
            return replace(settings, condition_noise=None)
        return replace(settings, condition_noise=FadingNoise(*map(float, (self.s, self.psi, self.tau1, self.tau2))))
