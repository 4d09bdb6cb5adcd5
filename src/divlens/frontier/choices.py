"""Which settings of a method are chosen, by the means over the prompts that choose.

All that is chosen is fixed before the other prompts are looked at. So what these report of it is not the better for
having been chosen, and is a mean over prompts like any other, whatever the choice was made by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from divlens.conditions import BASELINE
from divlens.frontier.figures import Half, Shares, Values

Means = Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """Of a method, by the names of settings; baseline is a setting of every method.

    most_diverse: of those that lose no fidelity against baseline. most_faithful: of those that lose no diversity.
    shares: of all losses of fidelity that are allowed, from none to the most, the share for which a setting is the most
    diverse one. nearest: of those that lose no fidelity the one nearest to the true law; None where that is not known.
    """

    most_diverse: str
    most_faithful: str
    shares: Shares
    nearest: str | None


def means_of(values: Values) -> Means:
    return {name: float(np.mean(column)) for name, column in values.items()}


def choice_of(half: Half, settings: Sequence[str], most_loss: float) -> Choice:
    """`half`: the prompts that choose. `most_loss` of fidelity is allowed at most, above 0."""
    names = [BASELINE, *settings]
    diversity, fidelity = means_of(half.diversity), means_of(half.fidelity)
    kept = [name for name in names if fidelity[name] >= fidelity[BASELINE]]
    as_diverse = [name for name in names if diversity[name] >= diversity[BASELINE]]
    distance = None if half.distance is None else means_of(half.distance)
    return Choice(
        most_diverse=max(kept, key=lambda name: diversity[name]),
        most_faithful=max(as_diverse, key=lambda name: fidelity[name]),
        shares=shares_of(names, diversity, fidelity, most_loss),
        nearest=None if distance is None else min(kept, key=lambda name: distance[name]),
    )


def shares_of(names: Sequence[str], diversity: Means, fidelity: Means, most_loss: float) -> dict[str, float]:
    """The frontier of some settings as a staircase over the loss of fidelity against baseline, from 0 to `most_loss`:
    of which part of it each setting is the step. Their diversity, weighted so, is the area below, per unit of loss."""
    loss = {name: max(0.0, fidelity[BASELINE] - fidelity[name]) for name in names}
    steps = sorted({one for one in loss.values() if one < most_loss} | {most_loss})
    found: dict[str, float] = {}
    for begin, end in pairwise(steps):
        best = max((name for name in names if loss[name] <= begin), key=lambda name: diversity[name])
        found[best] = found.get(best, 0.0) + (end - begin) / most_loss
    return found


def pareto_set(half: Half) -> list[str]:
    """The settings that no other beats in diversity or fidelity without being beaten in the other; of `half`, the
    prompts that choose. The most faithful first."""
    diversity, fidelity = means_of(half.diversity), means_of(half.fidelity)

    def is_beaten(name: str) -> bool:
        return any(
            diversity[other] >= diversity[name]
            and fidelity[other] >= fidelity[name]
            and (diversity[other] > diversity[name] or fidelity[other] > fidelity[name])
            for other in diversity
        )

    return sorted((name for name in diversity if not is_beaten(name)), key=lambda name: -fidelity[name])
