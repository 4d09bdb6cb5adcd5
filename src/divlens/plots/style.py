"""How all figures look: sizes, error bars, and colours that any colour vision tells apart (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = ("o", "s", "^", "D", "P", "v")
QUIET, FAINT = "#6b6b6b", "#dddddd"
ROW, WIDTH = 0.36, 7.2  # inches: of a row of a chart, and of a page's two columns
INTERVALS = "95% intervals over prompts"


def new_figure(height: float, columns: int = 1, widths: Sequence[float] | None = None) -> tuple[Any, list[Any]]:
    """A figure of its own, of which pyplot knows nothing, and its axes from left to right.

    Raises DivlensError where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise DivlensError("figures need matplotlib: pip install 'divlens[plots]'")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    found = figure.subplots(1, columns, squeeze=False, width_ratios=widths)
    axes = list(found[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
        one.xaxis.label.set_size(8.5)
        one.yaxis.label.set_size(8.5)
    return figure, axes


Values = Float[np.ndarray, " n"]


def dots(axes: Any, x: Values, low: Values, high: Values, y: Any, **how: Any) -> Any:
    """Points with their intervals from left to right; what is NaN is not drawn."""
    ends = np.array([x - low, high - x])
    ends = np.where(np.isnan(ends), 0.0, ends).clip(min=0)
    return axes.errorbar(x, y, xerr=ends, linestyle="none", capsize=2, markersize=5, elinewidth=1.2, **how)


def say(figure: Any, text: str) -> None:
    """A line below a figure: what its bars are, and what is missing."""
    figure.supxlabel(text, fontsize=7.5, color=QUIET, x=0.01, ha="left")


def shifts(count: int, most: float = 0.5) -> Float[np.ndarray, " count"]:
    """How far the marks of several series stand from the middle of a row."""
    return np.linspace(-most / 2, most / 2, count) if count > 1 else np.zeros(1)


def legend(axes: Any, several: bool) -> None:
    if several:
        axes.legend(fontsize=8, frameon=False, loc="best")
