"""Methods that change in which order a masked model fills the grid, and how much chance there is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from divlens import paths
from divlens.errors import DivlensError, is_number, shown
from divlens.interventions import Frequencies
from divlens.settings import Settings

MaskedRule = paths.ConfidenceUnmasking | paths.ChooseThenSample | paths.RandomOrder | paths.FixedOrder
PathSchedule = Literal["constant", "linear", "running product"]
Order = Literal["halton", "raster"]


def masked_rule(settings: Settings, name: str) -> MaskedRule:
    """The rule. Raises DivlensError for one of a model that is not masked."""
    if not isinstance(settings.rule, MaskedRule):
        raise DivlensError(f"{name} expects a masked model, got one whose path is {type(settings.rule).__name__}")
    return settings.rule


@dataclass(frozen=True)
class PathTemperature:
    """The temperature tau of the noise that decides, beside confidence, which draws of a masked model stay.

    `schedule`: "constant"; "linear", from `tau` to 0 at the last step, as aMUSEd has it; or "running product", `tau`
    times the product of 1 - r / steps over the steps so far, as Show-o and MMaDA have it. `tau` in [0, 1e6]; what the
    model has already changes nothing.
    """

    tau: float
    schedule: PathSchedule = "linear"

    def __post_init__(self) -> None:
        if not (is_number(self.tau) and 0 <= self.tau <= 1e6):
            raise DivlensError(f"PathTemperature expects a number from 0 to 1e6, got {shown(self.tau)}")
        if self.schedule not in get_args(PathSchedule):
            known = ", ".join(f'"{name}"' for name in get_args(PathSchedule))
            raise DivlensError(f"PathTemperature(schedule=...) expects one of {known}, got {self.schedule!r}")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        rule = masked_rule(settings, "PathTemperature")
        if not isinstance(rule, paths.ConfidenceUnmasking | paths.ChooseThenSample):
            raise DivlensError(
                f"PathTemperature expects a path that has one, got {type(rule).__name__}, which does not look at draws"
            )
        last = self.tau if self.schedule == "constant" else 0.0
        cooling = "running product" if self.schedule == "running product" else "linear"
        changed = replace(rule, temperature=(float(self.tau), float(last)), cooling=cooling)
        return replace(settings, rule=changed)


@dataclass(frozen=True)
class RandomOrder:
    """A masked model fills positions in random order, in place of those of which it is most confident; as many at each
    step as before. All sets of open positions are alike, so the path has as much entropy as there can be."""

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        rule = masked_rule(settings, "RandomOrder")
        if isinstance(rule, paths.RandomOrder):
            return settings
        return replace(settings, rule=paths.RandomOrder(rule.steps, rule.schedule))


@dataclass(frozen=True)
class FixedOrder:
    """A masked model fills positions in a given order, as many at each step as before.

    `order`: "halton", which keeps positions of one step far apart (Besnier et al., 2025, arXiv 2503.17076), "raster",
    or every position of the grid once. `roll`: each sample begins at a random place of the order; without it the path
    has no noise.
    """

    order: Order | tuple[int, ...] = "halton"
    roll: bool = True

    def __post_init__(self) -> None:
        if not (self.order in get_args(Order) or isinstance(self.order, tuple)):
            raise DivlensError(
                f'FixedOrder(order=...) expects "halton", "raster" or a tuple of positions, got {shown(self.order):.60}'
            )
        if isinstance(self.order, tuple):
            paths.FixedOrder(self.order)  # which refuses what is no order
        if not isinstance(self.roll, bool):
            raise DivlensError(f"FixedOrder(roll=...) expects True or False, got {shown(self.roll)}")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        rule, grid = masked_rule(settings, "FixedOrder"), settings.grid
        assert grid is not None, "whoever plans a run knows the grid"
        positions = math.prod(grid)
        order = paths.halton_order(grid) if self.order == "halton" else tuple(range(positions))
        if isinstance(self.order, tuple):
            order = self.order
        if len(order) != positions:
            raise DivlensError(f"FixedOrder expects an order of {positions} positions, got {len(order)}")
        return replace(settings, rule=paths.FixedOrder(order, rule.steps, self.roll, rule.schedule))


@dataclass(frozen=True)
class ChooseThenSample:
    """A masked model chooses positions by how certain it is of them, and then draws their tokens from its law.

    As published, tokens are drawn first and those that came out probable stay, which makes the picture's tokens more
    probable, and less diverse, than the model says (Hayakawa et al., 2025, arXiv 2510.04525; see
    `paths.ChooseThenSample`). Temperature and number of positions at each step stay as they are.
    """

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        rule = masked_rule(settings, "ChooseThenSample")
        if isinstance(rule, paths.ConfidenceUnmasking):
            rule = paths.ChooseThenSample(rule.steps, rule.temperature, rule.schedule, rule.cooling)
        elif not isinstance(rule, paths.ChooseThenSample):
            raise DivlensError(f"ChooseThenSample expects a path with a temperature, got {type(rule).__name__}")
        return replace(settings, rule=rule)
