"""Methods that change the law of a token draw: what may be drawn, how even the law is, and where guidance acts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from divlens.errors import DivlensError, is_number, shown
from divlens.interventions import Frequencies
from divlens.settings import Settings

LEAST, MOST = 1e-6, 1e6  # of the numbers of a temperature: far beyond what is of use, far inside what float32 holds


@dataclass(frozen=True)
class MinP:
    """Only codes whose probability is at least `p` times that of the most probable one (Nguyen et al., 2024, arXiv
    2407.01082), after temperature and top-p; those with exactly that much stay.

    `p` in [0, 1]: 0 changes nothing, 1 leaves the most probable code.
    """

    p: float

    def __post_init__(self) -> None:
        if not (is_number(self.p) and 0 <= self.p <= 1):
            raise DivlensError(f"MinP expects a share in [0, 1], got {shown(self.p)}")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, min_p=float(self.p))


@dataclass(frozen=True)
class EntropyTemperature:
    """The temperature of each draw follows its entropy: T = t0 exp(-H / alpha) + theta (Ma et al., 2025, arXiv
    2510.09012): draws that are nearly certain become more even, uncertain ones sharper.

    H is in nats, of the law after guidance, banned codes and top-k, as in the published code; it multiplies what
    `Temperature` sets. The published numbers are t0 = 2.5 and alpha = 3, with theta = 0.6 for autoregressive models
    and 0.7 for masked ones, whose published sampler also multiplies the noise of the path by T, which this does not.
    `theta` and `alpha` are from a millionth to a million, `t0` from 0; t0 = 0 with theta = 1 changes nothing.
    """

    theta: float = 0.6
    t0: float = 2.5
    alpha: float = 3.0

    def __post_init__(self) -> None:
        for name, least in (("theta", LEAST), ("t0", 0.0), ("alpha", LEAST)):
            value = getattr(self, name)
            if not (is_number(value) and least <= value <= MOST):
                raise DivlensError(
                    f"EntropyTemperature({name}=...) expects a number from {least:g} to {MOST:g}, got {shown(value)}"
                )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        if (self.t0, self.theta) == (0, 1):
            return replace(settings, by_entropy=None)
        return replace(settings, by_entropy=(float(self.t0), float(self.alpha), float(self.theta)))


@dataclass(frozen=True)
class GuidanceInterval:
    """Guidance acts in a part of the steps only, in the others its scale is 1 (Kynkäänniemi et al., 2024, arXiv
    2404.07724).

    `first`, `last`: that part begins and ends after these shares of the steps, in [0, 1], rounded to whole steps.
    (0, 1) changes nothing, and where both are equal there is no guidance. The unconditional branch is asked at all
    steps, for a model may remember what it was asked before: so it costs as many network passes as guidance
    everywhere, unless no step is guided.
    """

    first: float = 0.0
    last: float = 1.0

    def __post_init__(self) -> None:
        numbers = is_number(self.first) and is_number(self.last)
        if not (numbers and 0 <= self.first <= self.last <= 1):
            raise DivlensError(
                "GuidanceInterval expects two shares of the steps, 0 <= first <= last <= 1, "
                f"got {shown(self.first)} and {shown(self.last)}"
            )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, guided=(float(self.first), float(self.last)))
