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
    """A figure of this name passes from `least` on; both are shares in [0, 1]."""

    name: str
    least: float

    def passed_by(self, value: float) -> bool:
        """NaN does not pass: a bar is there to be measured."""
        return value >= self.least


BARS: tuple[Bar, ...] = (
    Bar("respect of concept", 0.85),
    Bar("respect of background", 0.90),
    Bar("respect of size", 0.90),
    Bar("respect of place", 0.90),
    Bar("openness of style", 0.75),
    Bar("openness of background", 0.85),
    Bar("openness of place", 0.85),
)


@dataclass(frozen=True)
class Row:
    """A figure with its bar; bar and `passed` are None for a figure that is reported only: total variation beside its
    floor, near copies beside their null."""

    figure: Figure
    bar: Bar | None
    passed: bool | None


def table_rows(figures: Sequence[Figure], bars: Sequence[Bar] = BARS) -> list[Row]:
    """A row for each figure in its order, then one for each bar without a figure, which is not passed.

    Raises DivlensError for two figures of one name.
    """
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        raise DivlensError(f"expected one figure of each name, got {', '.join(names)}")
    missing = [Figure(bar.name, Interval(math.nan), "not measured") for bar in bars if bar.name not in names]
    by_name = {bar.name: bar for bar in bars}
    rows = []
    for figure in (*figures, *missing):
        bar = by_name.get(figure.name)
        rows.append(Row(figure, bar, None if bar is None else bar.passed_by(figure.interval.value)))
    return rows
