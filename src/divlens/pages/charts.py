"""The charts of a page, as Vega-Lite. The page gives them their rows, and colours by the names that begin with @.

Text of any origin stands in rows only, never in an expression, so that a chart shows it and does nothing else with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from divlens.pages.verdicts import ALL, RIGHT

ROWS = "rows"
INK, QUIET, FAINT, FIRST, SECOND, BAND = "@ink", "@quiet", "@faint", "@first", "@second", "@band"
SERIES = ("@first", "@second", "@third", "@fourth", "@fifth", "@sixth")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
LABEL_WIDTH = 220  # pixels
Spec = dict[str, Any]
Cycled = TypeVar("Cycled")


def changes(conditions: int, margin: float | None, both: bool) -> Spec:
    """The change under each of so many conditions of a model, with its interval and what was decided of it.

    `margin`: the share of baseline below which a change counts as none; None where nothing is decided. `both`: of all
    pictures and of those that are right.
    """
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    y = alt.Y("condition:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, ticks=False, domain=False))
    kinds = [ALL, RIGHT] if both else [ALL]
    x = alt.X(
        "change:Q",
        title="change of LPIPS diversity against baseline, %",
        axis=alt.Axis(format="+d", tickCount=5),
        scale=alt.Scale(padding=10),
    )
    place: Spec = {"yOffset": alt.YOffset("pictures:N", sort=kinds)} if both else {}
    tooltip = [
        alt.Tooltip("condition:N"),
        alt.Tooltip("pictures:N"),
        alt.Tooltip("outcome:N"),
        *numbers({"change": "change %", "low": "from %", "high": "to %"}, "+.1f"),
        *numbers({"fidelity": "fidelity %", "openness": "openness %"}, ".0f"),
    ]
    none = base.transform_aggregate(n="count()").mark_rule(color=QUIET).encode(x=alt.datum(0))
    layers = [none]
    if margin is not None:
        around = base.transform_aggregate(n="count()").mark_rect(color=BAND)
        layers = [around.encode(x=alt.datum(-100 * margin), x2=alt.datum(100 * margin)), none]
    fill = alt.Fill("pictures:N", legend=None, scale=alt.Scale(domain=[ALL, RIGHT], range=["@paper", FIRST]))
    layers += [
        base.mark_rule(color=FIRST, strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y, **place),
        base.mark_point(color=FIRST, size=70, strokeWidth=2, filled=False, opacity=1).encode(
            x=x, y=y, fill=fill if both else alt.value(FIRST), tooltip=tooltip, **place
        ),
        base.mark_text(align="left", dx=10, color=INK, limit=150).encode(
            x=alt.value("width"), y=y, text="outcome:N", **place
        ),
    ]
    return finished(alt.layer(*layers), conditions * (44 if both else 30))


def prompts(count: int) -> Spec:
    """The diversity of each of so many prompts at baseline and under a condition, sorted by change."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    order = alt.EncodingSortField("change", op="min", order="descending")
    y = alt.Y("prompt:N", sort=order, title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, ticks=False, domain=False))
    tooltip = [
        alt.Tooltip("prompt:N"),
        *numbers({"baseline": "baseline", "diversity": "condition"}, ".3f"),
        *numbers({"change": "change", "change_low": "from", "change_high": "to"}, "+.3f"),
        *numbers({"baseline_fidelity": "fidelity % before", "fidelity": "fidelity % after"}, ".0f"),
        *numbers({"baseline_openness": "openness % before", "openness": "openness % after"}, ".0f"),
    ]
    title = "LPIPS diversity"
    layers = [
        base.mark_bar(color=BAND, height=14).encode(
            x=alt.X("baseline:Q", title=title, axis=alt.Axis(tickCount=8)), x2="diversity:Q", y=y
        ),
    ]
    for value, colour, filled, shift in (("baseline", QUIET, False, -5), ("diversity", FIRST, True, 5)):
        layers += [
            base.mark_rule(color=colour, strokeWidth=1.5, yOffset=shift).encode(
                x=alt.X(f"{value}_low:Q"), x2=f"{value}_high:Q", y=y
            ),
            base.mark_point(
                color=colour, fill=colour if filled else "@paper", size=80, opacity=1, yOffset=shift, cursor="pointer"
            ).encode(x=alt.X(f"{value}:Q", title=title), y=y, tooltip=tooltip),
        ]
    return finished(alt.layer(*layers), 34 * count)


def shares(series: Sequence[str], sources: Sequence[str]) -> Spec:
    """How much of LPIPS diversity each source makes, of every model and condition."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    y = alt.Y("source:N", sort=list(sources), title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, ticks=False))
    offset = alt.YOffset("series:N", sort=list(series))
    x = alt.X("share:Q", title="share of LPIPS diversity, %", axis=alt.Axis(tickCount=8))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        alt.Tooltip("source:N"),
        *numbers({"share": "share %", "low": "from %", "high": "to %"}, ".1f"),
        *numbers({"component": "LPIPS"}, ".4f"),
    ]
    layers = [
        base.mark_bar(opacity=0.75).encode(x=x, y=y, yOffset=offset, color=coloured(series), tooltip=tooltip),
        base.mark_rule(color=INK, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset),
    ]
    return finished(alt.layer(*layers), len(sources) * (16 * len(series) + 14))


def bits(series: Sequence[str], quantities: Sequence[str]) -> Spec:
    """Between which bits per image each quantity is: a bar from bound to bound, a dot where it is known exactly, and
    the outer ends of the intervals over prompts."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    y = alt.Y("quantity:N", sort=list(quantities), title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH + 60, ticks=False))
    offset = alt.YOffset("series:N", sort=list(series))
    x = alt.X("least:Q", title="bits per image", axis=alt.Axis(tickCount=8))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        alt.Tooltip("quantity:N"),
        *numbers({"least": "at least", "most": "at most", "low": "interval from", "high": "interval to"}, ".1f"),
    ]
    layers = [
        base.mark_rule(color=QUIET, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset),
        base.mark_rule(strokeWidth=6, strokeCap="round").encode(
            x=x, x2="most:Q", y=y, yOffset=offset, color=coloured(series), tooltip=tooltip
        ),
    ]
    for end in ("least", "most"):
        layers.append(
            base.mark_point(filled=True, size=60, opacity=1).encode(
                x=alt.X(f"{end}:Q", title="bits per image"),
                y=y,
                yOffset=offset,
                color=coloured(series),
                shape=shaped(series),
                tooltip=tooltip,
            )
        )
    return finished(alt.layer(*layers), len(quantities) * (18 * len(series) + 14))


def doses(series: Sequence[str], field: str, falling: bool) -> Spec:
    """What is left of a figure at each dose, of each model, with its intervals. `field`: what the dose is. `falling`:
    whether a smaller dose is the stronger one, so that the weakest stands at the left."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    x = alt.X("dose:Q", title=field, scale=alt.Scale(reverse=falling, zero=False, nice=False, padding=12))
    y = alt.Y("left:Q", title="% of baseline", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5, grid=True))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        *numbers({"dose": field}, "g"),
        *numbers({"left": "left %", "low": "from %", "high": "to %"}, ".1f"),
        *numbers({"prompts": "prompts"}, "d"),
    ]
    half = base.transform_aggregate(n="count()").mark_rule(color=QUIET, strokeDash=[4, 3]).encode(y=alt.datum(50))
    layers = [
        half,
        base.mark_area(opacity=0.14).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", color=coloured(series), detail="curve:N"
        ),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=coloured(series), detail="curve:N"),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=x, y=y, color=coloured(series), shape=shaped(series), tooltip=tooltip
        ),
    ]
    return finished(alt.layer(*layers), 220)


def replay(series: Sequence[str]) -> Spec:
    """The bits that were decided until each step of a sample of each model; the upright line is where the page's slider
    stands (`at`, percent of all steps)."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    x = alt.X("done:Q", title="% of the steps", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    y = alt.Y("bits:Q", title="bits of path and execution", axis=alt.Axis(tickCount=5, grid=True))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        *numbers({"step": "step"}, "d"),
        *numbers({"path": "path, bits", "execution": "execution, bits", "bits": "both"}, ".1f"),
    ]
    at = alt.param(name="at", value=100)
    here = alt.Chart(alt.NamedData(ROWS)).transform_aggregate(n="count()").transform_calculate(here="at")
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=coloured(series)),
        base.mark_point(filled=True, size=34, opacity=1).encode(
            x=x, y=y, color=coloured(series), shape=shaped(series), tooltip=tooltip
        ),
        here.mark_rule(color=INK).encode(x=alt.X("here:Q")),
    ]
    return finished(alt.layer(*layers).add_params(at), 200)


def law(series: Sequence[str], values: Sequence[str]) -> Spec:
    """How often each value of an attribute is read in the pictures of each model, with its interval, and how often it
    would be if they came from the true law: the upright strokes."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    y = alt.Y("value:N", sort=list(values), title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, ticks=False))
    offset = alt.YOffset("series:N", sort=list(series))
    x = alt.X("read:Q", title="share of pictures, %", axis=alt.Axis(tickCount=6), scale=alt.Scale(domainMin=0))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        alt.Tooltip("value:N"),
        *numbers({"read": "read %", "low": "from %", "high": "to %", "true": "by the law %"}, ".1f"),
        *numbers({"prompts": "prompts"}, "d"),
    ]
    layers = [
        base.mark_bar(opacity=0.75).encode(x=x, y=y, yOffset=offset, color=coloured(series), tooltip=tooltip),
        base.mark_rule(color=INK, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset),
        base.mark_tick(color=INK, thickness=2.5).encode(x=alt.X("true:Q"), y=y, yOffset=offset, tooltip=tooltip),
    ]
    return finished(alt.layer(*layers), len(values) * (12 * len(series) + 12))


def plane(series: Sequence[str]) -> Spec:
    """The bottleneck plane: what an image tells of its prompt, from bound to bound, and of the thing that is asked for,
    at least; a point for each model."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    title = "I(X;Z), bits: what an image tells of its prompt"
    x = alt.X("least:Q", title=title, scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(tickCount=6))
    y = alt.Y("relevant:Q", title="I(Z;Y), bits, at least", scale=alt.Scale(zero=False, padding=16))
    tooltip = [
        alt.Tooltip("series:N", title="model"),
        *numbers({"least": "I(X;Z) at least", "most": "I(X;Z) at most", "relevant": "I(Z;Y) at least"}, ".2f"),
        *numbers({"relevant_low": "I(Z;Y) from", "relevant_high": "I(Z;Y) to"}, ".2f"),
    ]
    layers = [
        base.mark_rule(strokeWidth=4, strokeCap="round").encode(
            x=x, x2="most:Q", y=y, color=coloured(series), tooltip=tooltip
        ),
        base.mark_rule(color=QUIET).encode(x=x, y=alt.Y("relevant_low:Q"), y2="relevant_high:Q"),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x=x, y=y, color=coloured(series), shape=shaped(series), tooltip=tooltip
        ),
    ]
    return finished(alt.layer(*layers), 240)


def frontier(diversity: str, fidelity: str, kinds: Sequence[str]) -> Spec:
    """Diversity against fidelity of each setting; plain guidance is a curve, in the order of its settings, and the
    most faithful setting that no other beats in both is named. `kinds`: what guidance, the Pareto set and the others
    are called."""
    import altair as alt

    base = alt.Chart(alt.NamedData(ROWS))
    pareto = kinds[1]
    space: Spec = {"zero": False, "padding": 14}
    x = alt.X("fidelity:Q", title=fidelity, scale=alt.Scale(**space), axis=alt.Axis(tickCount=6, grid=True))
    y = alt.Y("diversity:Q", title=diversity, scale=alt.Scale(**space), axis=alt.Axis(tickCount=6, grid=True))
    scale = alt.Scale(domain=list(kinds), range=[SECOND, FIRST, QUIET])
    colour = alt.Color("kind:N", scale=scale, legend=legend_of(kinds))
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=list(kinds), range=list(SHAPES[:3])), legend=legend_of(kinds))
    tooltip = [
        alt.Tooltip("condition:N", title="setting"),
        alt.Tooltip("done:N", title="what is done"),
        *numbers({"diversity": diversity, "diversity_low": "from", "diversity_high": "to"}, ".3~r"),
        *numbers({"fidelity": fidelity, "fidelity_low": "from ", "fidelity_high": "to "}, ".3~r"),
        *numbers({"passes": "passes of the network"}, "d"),
    ]
    named = base.transform_filter(alt.FieldEqualPredicate(field="kind", equal=pareto))
    curve = base.transform_filter(alt.FieldEqualPredicate(field="curve", equal=True))
    layers = [
        curve.mark_line(color=SECOND, strokeWidth=2, strokeDash=[5, 3]).encode(x=x, y=y, order="place:Q"),
        named.mark_rule(color=FIRST, opacity=0.5).encode(x=alt.X("fidelity_low:Q"), x2="fidelity_high:Q", y=y),
        named.mark_rule(color=FIRST, opacity=0.5).encode(x=x, y=alt.Y("diversity_low:Q"), y2="diversity_high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
        base.mark_text(align="right", dx=-8, dy=-9, color=INK, limit=200).encode(x=x, y=y, text="label:N"),
    ]
    return finished(alt.layer(*layers), 320)


def numbers(fields: Mapping[str, str], form: str) -> list[Any]:
    """What a tooltip says of some fields, by their titles."""
    import altair as alt

    return [alt.Tooltip(f"{field}:Q", title=title, format=form) for field, title in fields.items()]


def coloured(series: Sequence[str]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(series), range=cycled(SERIES, series))
    return alt.Color("series:N", scale=scale, legend=legend_of(series))


def shaped(series: Sequence[str]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(series), range=cycled(SHAPES, series))
    return alt.Shape("series:N", scale=scale, legend=legend_of(series))


def legend_of(series: Sequence[str]) -> Any:
    """None where there is one only."""
    import altair as alt

    if len(series) < 2:
        return None
    return alt.Legend(title=None, orient="top", direction="horizontal", labelLimit=300, symbolOpacity=1)


def cycled(values: Sequence[Cycled], series: Sequence[str]) -> list[Cycled]:
    return [values[place % len(values)] for place in range(len(series))]


def finished(chart: Any, height: int) -> Spec:
    """As wide as the place that it gets, and so many pixels high."""
    spec = chart.properties(width="container", height=height).to_dict()
    spec.pop("config", None)
    return spec | {"autosize": {"type": "fit-x", "contains": "padding"}, "background": None}
