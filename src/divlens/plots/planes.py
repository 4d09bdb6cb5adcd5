"""The planes of `information`: two entropies against each other, and two of what they tell, each between its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.plots.figures import number_at
from divlens.plots.rows import with_series
from divlens.plots.style import COLOURS, FAINT, INTERVALS, MARKS, QUIET, bars, dots, legend, new_figure, said, say

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Bracket:
    """A quantity between its bounds, in bits per image. `low`, `high`: the outer ends of the bounds' intervals."""

    least: float
    most: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.least + self.most) / 2


def plane(table: pd.DataFrame) -> Any:
    """Of `information`: left, H(Z) of all images against H(Z|X) of those of a prompt, which differ by at most the
    entropy of the prompts; right, the bottleneck plane: I(X;Z), what an image tells of its prompt, against I(Z;Y), what
    it tells at least of the thing that was asked for. `table`: that of `Information`, or several below each other."""
    table = with_series(table)
    figure, (left, right) = new_figure(3.6, 2, (1, 1))
    series = list(dict.fromkeys(table["series"]))
    missing: list[str] = []
    ceilings = [0.0]
    for place, name in enumerate(series):
        found = table[table["series"] == name].set_index("quantity")
        ceilings.append(number_at(found["bits_per_image"], "ceiling"))
        for axes, across, upright in ((left, "conditional", "sequence"), (right, "mutual", "relevant")):
            x, y = bracket(found, across), bracket(found, upright)
            if np.isnan([x.middle, y.middle]).any():
                missing.append(f"{name} ({TITLES[across]}, {TITLES[upright]})")
            else:
                draw(axes, x, y, place, name)
    ceiling = float(np.nanmax(ceilings))
    for axes, across, upright in ((left, "conditional", "sequence"), (right, "mutual", "relevant")):
        axes.set_xlabel(f"{TITLES[across]}, bits per image")
        axes.set_ylabel(f"{TITLES[upright]}{', at least' if upright == 'relevant' else ''}, bits per image")
        axes.grid(color=FAINT)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    ends = np.array([0, max(left.get_xlim()[1], left.get_ylim()[1] - ceiling)])
    left.fill_between(ends, ends, ends + ceiling, color=FAINT, zorder=0, label="what is possible")
    if ceiling:
        right.axvline(ceiling, color=QUIET, linestyle=":", linewidth=1)
    legend(left, True, "upper left")
    say(
        figure,
        f"thick: from bound to bound, with a mark in the middle; thin: {INTERVALS}, of the outer bounds",
        f"grey and dotted: I(X;Z) is at most {ceiling:.3g} bits over these prompts",
        said("left out, for a quantity is not known:", missing),
        "no figure of fidelity stands here: bits of broken pictures count, too",
    )
    return figure


TITLES = {"conditional": "H(Z|X)", "sequence": "H(Z)", "mutual": "I(X;Z)", "relevant": "I(Z;Y)"}


def bracket(found: pd.DataFrame, quantity: str) -> Bracket:
    """`found`: the rows of a series by their quantities. NaN where there is none; what has one bound only is that."""
    names = [f"{quantity}_{end}" for end in ("lower", "upper")] if quantity != "relevant" else [quantity] * 2
    least, most = (number_at(found["bits_per_image"], name) for name in names)
    low, high = (number_at(found[f"image_{end}"], name) for end, name in zip(("low", "high"), names, strict=True))
    return Bracket(least, most, low, high)


def draw(axes: Any, x: Bracket, y: Bracket, place: int, name: str) -> None:
    colour, thick = COLOURS[place % len(COLOURS)], {"linewidth": 5, "alpha": 0.45, "solid_capstyle": "butt"}
    bars(axes, *np.array([[x.low], [x.high], [y.middle]]), colour=colour)
    bars(axes, *np.array([[y.low], [y.high], [x.middle]]), colour=colour, upright=True)
    axes.plot([x.least, x.most], [y.middle] * 2, color=colour, **thick)
    axes.plot([x.middle] * 2, [y.least, y.most], color=colour, **thick)
    dots(axes, np.array([x.middle]), np.array([y.middle]), MARKS[place % len(MARKS)], colour, name)
