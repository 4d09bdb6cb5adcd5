"""Methods that spread the samples of a prompt over what the model would draw anyway."""

from __future__ import annotations

from dataclasses import dataclass, replace

from divlens.errors import DivlensError, is_whole, shown
from divlens.interventions import Frequencies, Settings

MOST_STRATA = 4096


@dataclass(frozen=True)
class StratifiedNoise:
    """The execution noise of the samples of a prompt is spread evenly; every sample alone has exactly the law it has.

    Of each `strata` consecutive samples, at every step and position the uniform of the draw falls once into each of
    `strata` equal parts of (0, 1), in a random order that is another everywhere (Latin hypercube sampling, McKay,
    Beckman and Conover, 1979; 2 is a form of antithetic noise). So the samples of such a block are not independent of
    each other: what is common to all of them varies less than by chance. A sample does not depend on n. The path keeps
    its noise. `strata` from 1, which changes nothing, to 4096; n should be a multiple of it.
    """

    strata: int = 8

    def __post_init__(self) -> None:
        if not (is_whole(self.strata) and 1 <= self.strata <= MOST_STRATA):
            raise DivlensError(
                f"StratifiedNoise expects a whole number of strata from 1 to {MOST_STRATA}, got {shown(self.strata)}"
            )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, strata=int(self.strata))
