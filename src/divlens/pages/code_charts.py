"""Charts of codes and of where their bits fall; see `charts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divlens.heat_maps import HEAT
from divlens.pages.charted import names_in
from divlens.pages.charts import INK, ROWS, SERIES, Spec, coloured, cycled, finished, legend_of, numbers, shaped
from divlens.pages.codes import KINDS, map_rows, step_rows
from divlens.pages.page import Figure

if TYPE_CHECKING:
    import pandas as pd

CELL = 14  # pixels
DASHES = ([1, 0], [5, 4], [2, 2], [8, 3], [8, 2, 2, 2])  # one fewer than colours, so that 30 lines differ


def code_figures(
    usage: Mapping[str, list[dict[str, Any]]], of_steps: pd.DataFrame | None, of_maps: pd.DataFrame | None
) -> Iterator[Figure]:
    """`usage`: the rows of each model. `of_steps`, `of_maps`: tables of `information`, where the run has them."""
    for place, (model, rows) in enumerate(usage.items()):
        yield Figure(f"codes-{place}", f"Codes that are used, {model}", usage_chart(names_in(rows, "series")), rows)
    if of_steps is not None and (rows := step_rows(of_steps)):
        yield Figure("steps", "When bits are decided", steps_chart(names_in(rows, "series")), rows)
    if of_maps is not None:
        for place, (series, rows) in enumerate(map_rows(of_maps).items()):
            height, width, groups = (1 + max(row[name] for row in rows) for name in ("row", "column", "stage"))
            yield Figure(f"maps-{place}", f"Where bits fall, {series}", maps_chart(height, width, groups - 1), rows)


def usage_chart(conditions: Sequence[str]) -> Spec:
    """How many of all tokens the most used codes are, of each condition of a model."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    title = "codes, the most used first"
    x = alt.X("rank:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=5, format="~s"))
    y = alt.Y("share:Q", title="% of all tokens", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(grid=True))
    tooltip = [
        alt.Tooltip("series:N", title="condition"),
        *numbers({"rank": "this many codes"}, "d"),
        *numbers({"share": "are % of the tokens"}, ".1f"),
        *numbers({"codes": "codes that came out"}, "d"),
        *numbers({"effective": "effective number"}, ".1f"),
    ]
    # The names of conditions may be any text, so they stay in the rows: the domain of the scales is found there.
    legend, colours = legend_of(conditions), cycled(SERIES, conditions)
    colour = alt.Color("series:N", sort=None, scale=alt.Scale(range=colours), legend=legend)
    dashes = alt.Scale(range=cycled(DASHES, conditions))
    layers = [
        base.mark_line(strokeWidth=2).encode(
            x=x, y=y, color=colour, strokeDash=alt.StrokeDash("series:N", sort=None, scale=dashes, legend=legend)
        ),
        base.mark_point(filled=True, size=45, opacity=0).encode(x=x, y=y, tooltip=tooltip),  # to point at
    ]
    return finished(alt.layer(*layers), 240)


def steps_chart(series: Sequence[str]) -> Spec:
    """The bits that path (dashed) and execution decide in each step, of each model and condition."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    x = alt.X("done:Q", title="% of the steps", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    y = alt.Y("bits:Q", title="bits per image in a step", axis=alt.Axis(tickCount=5, grid=True))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        alt.Tooltip("kind:N", title="of"),
        *numbers({"step": "step"}, "d"),
        *numbers({"bits": "bits"}, ".2f"),
    ]
    domain = alt.Scale(domain=list(KINDS[::-1]), range=list(DASHES[:2]))
    dash = alt.StrokeDash("kind:N", scale=domain, legend=legend_of(KINDS))
    layers = [
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=coloured(series), strokeDash=dash),
        base.mark_point(filled=True, size=28, opacity=1).encode(
            x=x, y=y, color=coloured(series), shape=shaped(series), tooltip=tooltip
        ),
    ]
    return finished(alt.layer(*layers), 220)


def maps_chart(height: int, width: int, groups: int) -> Spec:
    """Of path, above, and execution, below: the bits of each of height x width cells, over all steps at the left and
    then over each of so many groups of consecutive steps."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    across, down = width + 1, height + 2
    # Where a map begins: those of consecutive steps stand a cell farther from the one of all steps.
    start = f"datum.stage * {across} + (datum.stage > 0 ? 1 : 0)"
    below = f"(datum.kind == '{KINDS[1]}' ? {down} : 0)"
    placed = base.transform_calculate(
        left=f"datum.column + {start}",
        right=f"datum.column + 1 + {start}",
        top=f"datum.row + {below}",
        bottom=f"datum.row + 1 + {below}",
    )
    tooltip = [
        alt.Tooltip("kind:N", title="of"),
        *numbers({"stage": "part of the steps (0: all)", "row": "row", "column": "column"}, "d"),
        *numbers({"bits": "bits"}, ".2f"),
    ]
    sides = {"scale": alt.Scale(domain=[0, across * (groups + 1) + 1], nice=False), "axis": None}
    depth = {"scale": alt.Scale(domain=[-2, 2 * down], nice=False, reverse=True), "axis": None}
    heat = alt.Scale(domain=[0, 1], range=["#{:02x}{:02x}{:02x}".format(*colour) for colour in HEAT.astype(int)])
    cells = placed.mark_rect(strokeWidth=0.7).encode(
        stroke=alt.Stroke("of_most:Q", scale=heat, legend=None),  # no seams
        x=alt.X("left:Q", **sides),
        x2="right:Q",
        y=alt.Y("top:Q", **depth),
        y2="bottom:Q",
        color=alt.Color("of_most:Q", scale=heat, legend=None),
        tooltip=tooltip,
    )
    firsts = base.transform_filter("datum.row == 0 && datum.column == 0")
    named = firsts.transform_calculate(
        left=start,
        top=f"{below} - 0.5",
        name="datum.stage == 0 ? datum.kind : 'part ' + datum.stage",
    )
    words = named.mark_text(align="left", baseline="bottom", color=INK, fontSize=11).encode(
        x=alt.X("left:Q", **sides), y=alt.Y("top:Q", **depth), text="name:N"
    )
    return finished(alt.layer(cells, words), CELL * (2 * down + 2))
