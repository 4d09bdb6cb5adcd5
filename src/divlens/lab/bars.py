"""What a generator must reach in the laboratory, and the rows of the table that says whether it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from divlens.errors import DivlensError
from divlens.lab.evaluation import Figure
from divlens.statistics import Interval


@dataclass(frozen=True)
class Bar:
    """A figure of this name passes from `least` to `most`."""

    name: str
    least: float = -math.inf
    most: float = math.inf

    def passed_by(self, value: float) -> bool:
        """NaN does not pass: a bar is there to be measured."""
        return self.least <= value <= self.most

    def __str__(self) -> str:
        ends = (("at least", self.least), ("at most", self.most))
        return ", ".join(f"{words} {end:g}" for words, end in ends if math.isfinite(end))


# Of combinations that are held out, as the tokenizer draws them.
TOKENIZER_BARS = (Bar("signal to noise (dB)", least=28), Bar("signal to noise, worst style (dB)", least=26))
JUDGE_BARS = (
    Bar("concept read right", least=0.95),
    Bar("style read right", least=0.85),
    Bar("background read right", least=0.98),
    Bar("size read right", least=0.98),
    Bar("place read right", least=0.98),
)
# Of what a generator draws: shares in [0, 1].
BARS = (
    Bar("respect of concept", least=0.85),
    Bar("respect of background", least=0.90),
    Bar("respect of size", least=0.90),
    Bar("respect of place", least=0.90),
    Bar("openness of style", least=0.75),
    Bar("openness of background", least=0.85),
    Bar("openness of place", least=0.85),
)
LIKELIHOOD_BARS = (Bar("bits, held out over trained", most=1.3),)
# Of several generators: the highest respect less the lowest.
FAMILY_BARS = tuple(Bar(f"{bar.name}, apart", most=0.05) for bar in BARS if bar.name.startswith("respect"))


@dataclass(frozen=True)
class Row:
    """A figure with its bar; bar and `passed` are None for a figure that is reported only, such as total variation.

    `real`: the same figure of real pictures, as the tokenizer draws them, where it was measured. It is what there is
    to reach: the floor of a distance, the null of near copies.
    """

    figure: Figure
    bar: Bar | None
    passed: bool | None
    real: Figure | None = None


def table_rows(figures: Sequence[Figure], bars: Sequence[Bar] = BARS, real: Sequence[Figure] = ()) -> list[Row]:
    """A row for each figure in its order, then one for each bar without a figure, which is not passed. `real`: see
    `Row`, by the same names.

    Raises DivlensError for two figures of one name.
    """
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        raise DivlensError(f"expected one figure of each name, got {', '.join(names)}")
    missing = [Figure(bar.name, Interval(math.nan), "not measured") for bar in bars if bar.name not in names]
    by_name, of_real = {bar.name: bar for bar in bars}, {figure.name: figure for figure in real}
    rows = []
    for figure in (*figures, *missing):
        bar = by_name.get(figure.name)
        passed = None if bar is None else bar.passed_by(figure.interval.value)
        rows.append(Row(figure, bar, passed, of_real.get(figure.name)))
    return rows
