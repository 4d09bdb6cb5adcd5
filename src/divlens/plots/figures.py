"""Figures for papers, each a function of the table that a result has anyway; what is undefined is named, not drawn."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from divlens.errors import DivlensError
from divlens.plots.rows import GUIDED, OTHER, PARETO, kind_of, of_guidance, scales_of, with_series
from divlens.plots.style import (
    COLOURS,
    FAINT,
    MARKS,
    QUIET,
    ROW,
    bars,
    dots,
    intervals_said,
    legend,
    name_rows,
    new_figure,
    plain,
    said,
    say,
    shifts,
)

if TYPE_CHECKING:
    import pandas as pd

NO_FIDELITY = "no judge knows these prompts: what broke cannot be seen"


def changes(table: pd.DataFrame) -> Any:
    """Of a probe: the change of LPIPS diversity under each condition, percent of baseline, and beside it the fidelity
    there. `table`: that of `ProbeResult`."""
    reference = str(table["condition"].iloc[0])
    names = [name for name in dict.fromkeys(table["condition"]) if name != reference]
    if not names:
        raise DivlensError("plot.changes expects a condition beside baseline, got none")
    models = list(dict.fromkeys(table["model"]))
    figure, (left, right) = new_figure(1.3 + ROW * len(names) * max(1, len(models) / 2), 2, (3, 2))
    drawn = {"relative_change": (left, "change"), "fidelity": (right, "fidelity")}
    found: dict[str, list[tuple[str, float, float, float]]] = {column: [] for column in drawn}
    for place, (model, shift) in enumerate(zip(models, shifts(len(models)), strict=True)):
        of_model = table[table["model"] == model].set_index("condition")
        rows, colour = np.arange(len(names)) + shift, COLOURS[place % len(COLOURS)]
        for column, (axes, what) in drawn.items():
            value, low, high = with_ends(of_model.reindex(names), column)
            bars(axes, low, high, rows, colour)
            dots(axes, value, rows, MARKS[place % len(MARKS)], colour, model)
            whose = [f"{what} of {model} under {name}" for name in names]
            found[column] += zip(whose, value, low, high, strict=True)
        if not np.isnan(before := number_at(of_model["fidelity"], reference)):
            right.axvline(100 * before, color=colour, linestyle=":", linewidth=1)
    name_rows(left, names)
    name_rows(right, [""] * len(names))
    left.axvline(0, color=QUIET, linewidth=0.8)
    left.set_xlabel(f"change of LPIPS diversity against {plain(reference)}, %", parse_math=False)
    right.set_xlabel("fidelity, %")
    legend(left, len(models) > 1)
    known = bool(table["fidelity"].notna().any())
    if not known:
        right.text(0.5, 0.5, NO_FIDELITY, transform=right.transAxes, ha="center", va="center", wrap=True, fontsize=8)
    shown = [*found["relative_change"], *(found["fidelity"] if known else [])]
    dotted = f"dotted: fidelity under {reference}" if known else ""
    say(figure, intervals_said(shown), dotted, said("n/a:", (name for name, value, *_ in shown if np.isnan(value))))
    return figure


def shares(table: pd.DataFrame) -> Any:
    """Of `decompose`: which share of LPIPS diversity each source makes. `table`: that of `Decomposition`, or several
    below each other."""
    table = with_series(table)
    series, sources = (list(dict.fromkeys(table[column])) for column in ("series", "source"))
    figure, (axes,) = new_figure(1.1 + ROW * len(sources) * max(1, len(series) / 2))
    found: list[tuple[str, float, float, float]] = []
    for place, (name, shift) in enumerate(zip(series, shifts(len(series), 0.6), strict=True)):
        of_series = table[table["series"] == name].set_index("source").reindex(sources)
        share, low, high = with_ends(of_series, "share")
        rows, colour = np.arange(len(sources)) + shift, COLOURS[place % len(COLOURS)]
        known = ~np.isnan(share)
        axes.barh(rows[known], share[known], height=0.6 / len(series), color=colour, alpha=0.75, label=name)
        bars(axes, low, high, rows, "black")
        found += zip([f"{source} of {name}" for source in sources], share, low, high, strict=True)
    name_rows(axes, sources)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.set_xlabel("share of LPIPS diversity, %")
    legend(axes, len(series) > 1)
    missing = said("n/a:", (name for name, value, *_ in found if np.isnan(value)))
    no_fidelity = "no figure of fidelity stands here: shares add up whether pictures broke or not"
    say(figure, intervals_said(found), missing, no_fidelity)
    return figure


def frontier(settings: pd.DataFrame) -> Any:
    """Of `frontier`: diversity against fidelity of every setting, plain guidance as a curve, the Pareto set marked and
    named. `settings`: those of `Frontier`. Raises DivlensError where nobody can tell fidelity."""
    scales = scales_of(settings)
    if scales is None:
        raise DivlensError("plot.frontier expects a figure of fidelity, but nobody can tell it of these prompts")
    scale = 100 if scales.are_shares else 1
    (x, left, right), (y, low, high) = (with_ends(settings, name, scale) for name in ("fidelity", "diversity"))
    records = settings.to_dict("records")
    kinds, guided = np.array(list(map(kind_of, records))), np.array(list(map(of_guidance, records)), bool)
    best, others = kinds == PARETO, kinds == OTHER
    figure, (axes,) = new_figure(4.0)
    for kind, colour in ((kinds == GUIDED, COLOURS[1]), (best, COLOURS[0])):
        bars(axes, left[kind], right[kind], y[kind], colour)
        bars(axes, low[kind], high[kind], x[kind], colour, upright=True)
    curve = {"linestyle": "--", "color": COLOURS[1], "marker": "o", "markersize": 5}
    axes.plot(x[guided], y[guided], **curve, label=GUIDED)
    dots(axes, x[others], y[others], "^", QUIET, OTHER)
    dots(axes, x[best], y[best], "s", COLOURS[0], PARETO)
    axes.set_xlabel(scales.fidelity)
    axes.set_ylabel(scales.diversity)
    axes.grid(color=FAINT)
    legend(axes, True)
    names = list(settings["condition"])
    barred = np.flatnonzero(guided | best)
    ends = [
        (names[at], *of[at]) for of in (np.stack([x, left, right], 1), np.stack([y, low, high], 1)) for at in barred
    ]
    missing = [name for name, one, other in zip(names, x, y, strict=True) if np.isnan(one) or np.isnan(other)]
    say(
        figure,
        "over the prompts that report",
        f"{intervals_said(ends)}, of guidance and the Pareto set",
        "up and to the right is better",
        said("Pareto set:", (name for name, is_best in zip(names, best, strict=True) if is_best)),
        said("n/a:", missing),
    )
    return figure


def replay(
    picture: Float[np.ndarray, "3 H W"], since: Int[np.ndarray, "h w"], bits: Float[np.ndarray, " steps"], title: str
) -> Any:
    """How one picture was filled in: the picture, since which step each token stands (from 0; -1 is never), and the
    bits of each step, -log2 of the probability of the tokens that it drew and kept."""
    figure, (left, middle, right) = new_figure(2.6, 3, (1, 1.15, 1.6))
    from matplotlib.ticker import MaxNLocator

    left.imshow(picture.transpose(1, 2, 0).clip(0, 1))
    left.set_axis_off()
    steps = np.arange(1, len(bits) + 1)
    shown = middle.imshow(np.where(since < 0, np.nan, since + 1), cmap="viridis", vmin=1, vmax=max(2, len(bits)))
    middle.set_axis_off()
    bar = figure.colorbar(shown, ax=middle, shrink=0.8)
    bar.set_label("stands since step", fontsize=8)
    bar.locator = MaxNLocator(integer=True)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8)
    right.bar(steps, bits, width=0.9, color=COLOURS[0])
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("step")
    right.set_ylabel("bits")
    figure.suptitle(plain(textwrap.shorten(title, 100, placeholder="...")), fontsize=9, parse_math=False)
    say(
        figure,
        f"{bits.sum():.4g} bits in all: -log2 of the probability of the tokens that a step drew and kept, of each once "
        "more where a later step drew it anew",
        "one sample, so no interval and no figure of fidelity",
    )
    return figure


def with_ends(table: pd.DataFrame, column: str, scale: float = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column of a table and the ends of its intervals, in percent where `scale` is that."""
    value, low, high = (scale * table[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    return value, low, high


def number_at(column: Any, name: str) -> float:
    """A value of a column by the name of its row; NaN where there is none."""
    return float(column.get(name, np.nan))
