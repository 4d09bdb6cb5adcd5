"""How all figures look: sizes, error bars, and colours that any colour vision tells apart (Okabe and Ito, 2008)."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError
from divlens.showing import visible

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = ("o", "s", "^", "D", "P", "v")
QUIET, FAINT = "#6b6b6b", "#dddddd"
ROW, WIDTH = 0.36, 7.2  # inches: of a row of a chart, and of a page's two columns
CHARACTERS = 125  # of a line below a figure
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


def dots(axes: Any, x: Values, y: Values, marker: str, colour: str, label: str = "") -> Any:
    """Points without a line; what is NaN is not drawn."""
    return axes.plot(x, y, linestyle="none", marker=marker, markersize=5, color=colour, label=label)


def bars(axes: Any, low: Values, high: Values, where: Values, colour: str, upright: bool = False) -> Any:
    """Intervals from end to end, from left to right or `upright`, whether their values are inside or not; those without
    ends are not drawn."""
    middle, half = (low + high) / 2, (high - low) / 2
    ends = {"x": where, "y": middle, "yerr": half} if upright else {"x": middle, "y": where, "xerr": half}
    return axes.errorbar(**ends, fmt="none", ecolor=colour, elinewidth=1.2, capsize=2)


def say(figure: Any, *sentences: str) -> None:
    """Lines below a figure: what its bars are, and what is missing."""
    text = "\n".join(textwrap.wrap(plain("; ".join(filter(None, sentences))), CHARACTERS))
    figure.supxlabel(text, fontsize=7.5, color=QUIET, x=0.01, ha="left", parse_math=False)


def intervals_said(named: Iterable[tuple[str, float, float, float]]) -> str:
    """What bars are, of names with value, low and high; those that have a value and no interval are named."""
    known = [(name, low, high) for name, value, low, high in named if not np.isnan(value)]
    without = [name for name, low, high in known if np.isnan(low) or np.isnan(high)]
    if not without:
        return INTERVALS
    if len(without) == len(known):
        return "no intervals: they are not known"
    return f"{INTERVALS}; {said('no interval of', without)}"


def said(what: str, names: Iterable[str]) -> str:
    """A phrase with the names of all that it holds for, each once; nothing where there are none."""
    found = ", ".join(dict.fromkeys(names))
    return f"{what} {found}" if found else ""


def plain(text: str) -> str:
    """A text in one line, of which nobody knows what it is: characters that hide are written out, and those that the
    font lacks are named ("[rocket]")."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(
        one if ord(one) in known else f"[{unicodedata.name(one, f'U+{ord(one):04X}').lower()}]" for one in visible(text)
    )


def shifts(count: int, most: float = 0.5) -> Float[np.ndarray, " count"]:
    """How far the marks of several series stand from the middle of a row."""
    return np.linspace(-most / 2, most / 2, count) if count > 1 else np.zeros(1)


def legend(axes: Any, several: bool, loc: str = "best") -> None:
    if several:
        for text in axes.legend(fontsize=8, frameon=False, loc=loc).get_texts():
            text.set_text(plain(text.get_text()))
            text.set_parse_math(False)


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """The rows of a chart, from above to below."""
    axes.set_yticks(range(len(names)), [plain(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
