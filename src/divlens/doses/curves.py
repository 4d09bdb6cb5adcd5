"""A curve: what is left of a figure at each dose, and the dose at which half of it is. Pure functions of the values of
every prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from divlens.experiment.measures import Measure
from divlens.statistics import Interval, relative_change

HALF = 0.5
ALL = Interval.exactly(1.0)


@dataclass(frozen=True)
class Halving:
    """The dose at which half of a figure is left, as `halving` finds it.

    dose: with its 95% interval, whose ends are NaN where no dose of the sweep is that end; NaN where the figure never
    halves. why_not: the reason then, else empty. again: the first dose beyond at which more than half is left again,
    NaN where there is none.
    """

    dose: Interval
    why_not: str = ""
    again: float = math.nan


def share_left(
    measure: Measure,
    values: Float[np.ndarray, " prompts"],
    baseline: Float[np.ndarray, " prompts"],
    n: int,
    seed: int,
) -> Interval:
    """Mean of values / mean of baseline, over the prompts that have both, with its interval: 1 + the `relative_change`
    of the probe's table.

    A share of `n` samples that is 1 of every prompt is not known to be 1 of all others. So its interval holds that of
    its change, too, as a part of the baseline.
    """
    found = relative_change(values, baseline, seed) + ALL
    both = ~(np.isnan(values) | np.isnan(baseline))
    if measure.is_share and both.any() and (scale := float(baseline[both].mean())) > 0:
        return found.hull(measure.change(values, baseline, n, seed) * (1 / scale) + ALL).within(0.0)
    return found


def halving(doses: Sequence[float], left: Sequence[Interval]) -> Halving:
    """Where what is `left` first falls to a half, on the way from the weakest dose to the strongest.

    Between two doses what is left is taken to be on a straight line, and so are the ends of its intervals. The interval
    of the dose reaches from where the lower ends first fall to a half to where the upper ends do: before it more than
    half is left at 95%, at its end half is gone at 95%. A curve need not fall all the way: its first crossing counts.
    Doses at which nothing is known are left out.
    """
    known = [(dose, one) for dose, one in zip(doses, left, strict=True) if not math.isnan(one.value)]
    if not known:
        return Halving(Interval(math.nan), "undefined")
    where = [dose for dose, _ in known]
    lower, middle, upper = (
        first_crossing(where, [getattr(one, end) for _, one in known]) for end in ("low", "value", "high")
    )
    ends = (upper, lower) if where[0] > where[-1] else (lower, upper)
    dose = Interval(middle, *ends)
    if not math.isnan(middle):
        return Halving(dose, again=above_again([(at, one.value) for at, one in known], middle))
    if known[0][1].value <= HALF:
        return Halving(dose, f"at {where[0]:g}, the weakest dose, {100 * known[0][1].value:.0f}% is left already")
    return Halving(dose, f"at {where[-1]:g}, the strongest dose, {100 * known[-1][1].value:.0f}% is left")


def first_crossing(doses: Sequence[float], values: Sequence[float], level: float = HALF) -> float:
    """The first dose at which values that begin above `level` are down to it, interpolated between the doses; NaN where
    they never are, do not begin above it, or are not known on the way."""
    for (dose, value), (next_dose, next_value) in pairwise(zip(doses, values, strict=True)):
        if not value > level:
            break
        if next_value <= level:
            return dose + (next_dose - dose) * (value - level) / (value - next_value)
    return math.nan


def above_again(points: Sequence[tuple[float, float]], crossing: float) -> float:
    """The first of the doses beyond a crossing at which more than half is left; NaN where there is none."""
    sign = math.copysign(1.0, points[-1][0] - points[0][0])
    return next((dose for dose, value in points if sign * dose > sign * crossing and value > HALF), math.nan)
