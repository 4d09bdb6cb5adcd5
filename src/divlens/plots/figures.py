"""Figures for papers, each a function of the table that a result has anyway; what is undefined is named, not drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from divlens.errors import DivlensError
from divlens.plots.style import (
    COLOURS,
    FAINT,
    INTERVALS,
    MARKS,
    QUIET,
    ROW,
    dots,
    legend,
    new_figure,
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
    for place, (model, shift) in enumerate(zip(models, shifts(len(models)), strict=True)):
        of_model = table[table["model"] == model].set_index("condition")
        rows = np.arange(len(names)) + shift
        how = {"color": COLOURS[place % len(COLOURS)], "fmt": MARKS[place % len(MARKS)], "label": model}
        for axes, column, scale in ((left, "relative_change", 100), (right, "fidelity", 100)):
            shown = of_model.reindex(names)
            value, low, high = (scale * shown[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            dots(axes, value, low, high, rows, **how)
        if not np.isnan(before := number_at(of_model["fidelity"], reference)):
            right.axvline(100 * before, color=how["color"], linestyle=":", linewidth=1)
    for axes in (left, right):
        axes.set_ylim(len(names) - 0.4, -0.6)
    left.axvline(0, color=QUIET, linewidth=0.8)
    left.set_yticks(range(len(names)), names)
    right.set_yticks(range(len(names)), [""] * len(names))
    left.set_xlabel(f"change of LPIPS diversity against {reference}, %")
    right.set_xlabel("fidelity, %")
    legend(left, len(models) > 1)
    known = bool(table["fidelity"].notna().any())
    if not known:
        right.text(0.5, 0.5, NO_FIDELITY, transform=right.transAxes, ha="center", va="center", wrap=True, fontsize=8)
    unknown = [
        f"{model} under {name}"
        for model, name, change in zip(table["model"], table["condition"], table["relative_change"], strict=True)
        if np.isnan(change)
    ]
    said = [INTERVALS, f"dotted: fidelity under {reference}" if known else "", *(f"n/a: {name}" for name in unknown)]
    say(figure, "; ".join(filter(None, said)))
    return figure


def shares(table: pd.DataFrame) -> Any:
    """Of `decompose`: which share of LPIPS diversity each source makes. `table`: that of `Decomposition`, or several
    below each other."""
    table = table.assign(series=series_of(table))
    series, sources = (list(dict.fromkeys(table[column])) for column in ("series", "source"))
    figure, (axes,) = new_figure(1.1 + ROW * len(sources) * max(1, len(series) / 2))
    for place, (name, shift) in enumerate(zip(series, shifts(len(series), 0.6), strict=True)):
        of_series = table[table["series"] == name].set_index("source").reindex(sources)
        share, low, high = (100 * of_series[f"share{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        rows, colour = np.arange(len(sources)) + shift, COLOURS[place % len(COLOURS)]
        axes.barh(rows, np.nan_to_num(share), height=0.6 / len(series), color=colour, alpha=0.75, label=name)
        dots(axes, share, low, high, rows, color="black", fmt="none")
    axes.set_yticks(range(len(sources)), sources)
    axes.set_ylim(len(sources) - 0.4, -0.6)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.set_xlabel("share of LPIPS diversity, %")
    legend(axes, len(series) > 1)
    say(figure, f"{INTERVALS}. No figure of fidelity stands here: shares add up whether pictures broke or not")
    return figure


def plane(table: pd.DataFrame) -> Any:
    """Of `information`: the bottleneck plane: how much an image tells of its prompt, I(X;Z), from bound to bound, and
    at least of the thing that was asked for, I(Z;Y). `table`: that of `Information`, or several below each other."""
    table = table.assign(series=series_of(table))
    figure, (axes,) = new_figure(3.6)
    series, missing = list(dict.fromkeys(table["series"])), []
    for place, name in enumerate(series):
        found = table[table["series"] == name].set_index("quantity")
        bits = found["bits_per_image"]
        least, most, told = (number_at(bits, key) for key in ("mutual_lower", "mutual_upper", "relevant"))
        if np.isnan([least, most, told]).any():
            missing.append(name)
            continue
        colour = COLOURS[place % len(COLOURS)]
        low, high = (number_at(found[f"image_{end}"], "relevant") for end in ("low", "high"))
        ends = [told - low, high - told]
        axes.plot([least, most], [told, told], color=colour, linewidth=4, alpha=0.6, solid_capstyle="round")
        axes.errorbar(
            least,
            told,
            yerr=np.nan_to_num(np.array(ends)[:, None]).clip(min=0),
            color=colour,
            capsize=2,
            fmt=MARKS[place % len(MARKS)],
            label=name,
        )
    axes.set_xlabel("I(X;Z), bits: what an image tells of its prompt, from bound to bound")
    axes.set_ylabel("I(Z;Y), bits, at least")
    axes.grid(color=FAINT)
    legend(axes, len(series) > len(missing))
    left_out = f"; left out, for a quantity is not known: {', '.join(missing)}" if missing else ""
    say(figure, f"upright bars: {INTERVALS}{left_out}")
    return figure


def frontier(settings: pd.DataFrame) -> Any:
    """Of `frontier`: diversity against fidelity of every setting, plain guidance as a curve, the Pareto set marked.
    `settings`: those of `Frontier`. Raises DivlensError where nobody can tell fidelity."""
    if "fidelity" not in settings:
        raise DivlensError("plot.frontier expects a figure of fidelity, but nobody can tell it of these prompts")
    shares = "law_distance" in settings
    scale, titles = (100, ("fidelity, %", "openness, %")) if shares else (1, ("fidelity", "LPIPS diversity"))
    x, y = (scale * settings[name].to_numpy(float) for name in ("fidelity", "diversity"))
    of_guidance = settings["method"].isin(["", "guidance"]).to_numpy()
    best = settings["in_pareto_set"].to_numpy(bool)
    figure, (axes,) = new_figure(4.0)
    others = ~of_guidance & ~best
    axes.plot(
        x[of_guidance],
        y[of_guidance],
        linestyle="--",
        color=COLOURS[1],
        marker="o",
        markersize=5,
        label="baseline and plain guidance",
    )
    axes.plot(x[others], y[others], linestyle="none", marker="^", color=QUIET, markersize=5, label="other settings")
    bars = [
        np.nan_to_num(np.array([of - scale * settings[f"{name}_low"], scale * settings[f"{name}_high"] - of]))
        for name, of in (("fidelity", x), ("diversity", y))
    ]
    across, upright = (bar[:, best].clip(min=0) for bar in bars)
    axes.errorbar(
        x[best],
        y[best],
        xerr=across,
        yerr=upright,
        fmt="s",
        color=COLOURS[0],
        markersize=6,
        capsize=2,
        elinewidth=1,
        label="Pareto set",
    )
    if best.any():
        named = int(np.flatnonzero(best)[np.argmax(x[best])])
        axes.annotate(
            settings["condition"].iloc[named],
            (x[named], y[named]),
            fontsize=8,
            ha="right",
            va="bottom",
            xytext=(-5, 5),
            textcoords="offset points",
        )
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.grid(color=FAINT)
    legend(axes, True)
    say(figure, f"over the prompts that report; {INTERVALS}, of the Pareto set; up and to the right is better")
    return figure


def replay(
    picture: Float[np.ndarray, "3 H W"], fixed: Int[np.ndarray, "h w"], bits: Float[np.ndarray, " steps"], title: str
) -> Any:
    """How one picture was filled in: the picture, at which step each token was fixed (from 0; -1 is never), and the
    bits of these tokens, -log2 of their probability, added up from step to step."""
    figure, (left, middle, right) = new_figure(2.6, 3, (1, 1.15, 1.6))
    left.imshow(picture.transpose(1, 2, 0).clip(0, 1))
    left.set_axis_off()
    shown = middle.imshow(np.where(fixed < 0, np.nan, fixed), cmap="viridis", vmin=0, vmax=max(1, len(bits) - 1))
    middle.set_axis_off()
    bar = figure.colorbar(shown, ax=middle, shrink=0.8)
    bar.set_label("step", fontsize=8)
    from matplotlib.ticker import MaxNLocator

    bar.locator = MaxNLocator(integer=True)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.step(np.arange(1, len(bits) + 1), np.cumsum(bits), where="post", color=COLOURS[0])
    right.set_xlabel("steps taken")
    right.set_ylabel("bits of the fixed tokens")
    right.grid(color=FAINT)
    figure.suptitle(title, fontsize=9)
    say(figure, "one sample, so no interval; bits: -log2 of the probability with which each fixed token was drawn")
    return figure


def number_at(column: Any, name: str) -> float:
    """A value of a column by the name of its row; NaN where there is none."""
    return float(column.get(name, np.nan))


def series_of(table: pd.DataFrame) -> list[str]:
    """Whose each row is: the model, and the condition where it is not the model as it is."""
    pairs = zip(table["model"], table["condition"], strict=True)
    return [str(model) if condition == "baseline" else f"{model}, {condition}" for model, condition in pairs]
