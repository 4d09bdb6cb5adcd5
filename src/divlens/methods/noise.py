"""Methods that spread the samples of a prompt over what the model would draw anyway."""

from __future__ import annotations

from dataclasses import dataclass, replace

from divlens.errors import DivlensError, is_number, is_whole, shown
from divlens.interventions import Frequencies
from divlens.settings import Settings
from divlens.types import Repulsion, written

MOST_STRATA = 4096
STRONGEST = 1e4  # nats: no published logits differ by as much, and in float32 such a difference is exact to 0.001


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


@dataclass(frozen=True, repr=False)
class RepulseTokens:
    """What earlier samples of the same prompt hold at a place is drawn there less often: for each of them that holds a
    code, at that step, its probability is multiplied by exp(-strength), and all are scaled to sum to 1 again, before
    any top-k, temperature and top-p. Ours.

    `among`: of so many consecutive samples of a prompt each keeps apart from those before it; the first of them has the
    law that it has anyway. So a sample depends on those before it in its block, but not on n. The samples are joint,
    and the law of each is known given the others only: `information` and `decompose` refuse them. The network is asked
    as often as without. `strength`: nats, from 0, which changes nothing, to 10,000.
    """

    strength: float = 1.0
    among: int = 8

    def __post_init__(self) -> None:
        if not (is_number(self.strength) and 0 <= self.strength <= STRONGEST):
            raise DivlensError(
                f"RepulseTokens expects a strength from 0 to {STRONGEST:,.0f} nats, got {shown(self.strength)}"
            )
        if not (is_whole(self.among) and 2 <= self.among <= MOST_STRATA):
            raise DivlensError(
                f"RepulseTokens(among=...) expects a whole number of samples from 2 to {MOST_STRATA}, "
                f"got {shown(self.among)}"
            )

    def __repr__(self) -> str:
        return written(self, "among")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        repulsion = Repulsion(float(self.strength), int(self.among)) if self.strength else None
        return replace(settings, repulsion=repulsion)
