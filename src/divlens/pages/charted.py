"""The charts of a page, each with the rows that it draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from divlens.doses import Doses
from divlens.doses.result import TITLES
from divlens.output import Record
from divlens.pages import charts
from divlens.pages.figures import bit_rows, dose_rows, frontier_rows, plane_rows, share_rows
from divlens.pages.page import Figure
from divlens.pages.replay import bits_rows
from divlens.pages.tables import Tables
from divlens.pages.verdicts import ALL, RIGHT
from divlens.plots.rows import FRONTIER_KINDS

if TYPE_CHECKING:
    import pandas as pd

DECOMPOSE, FRONTIER, INFORMATION = "decompose", "frontier", "information"


def figures_of(
    contrasts: list[dict[str, Any]],
    of_prompts: list[dict[str, Any]],
    found_doses: Doses | None,
    of_law: list[dict[str, Any]],
    replays: list[dict[str, Any]],
    tables: Tables,
    margin: float | None,
    request: Record,
) -> Iterator[Figure]:
    """The charts of a page; those that have no rows are left out. `contrasts`: the rows of the first screen."""
    for place, model in enumerate(request["models"]):
        rows = [row for row in contrasts if row["model"] == model]
        kinds = {row["pictures"] for row in rows}
        if rows:
            title = f"Change of LPIPS diversity, {model}"
            yield Figure(
                f"changes-{place}",
                title,
                charts.changes(len(names_in(rows, "condition")), margin, kinds == {ALL, RIGHT}),
                rows,
            )
    if of_prompts:
        yield Figure(
            "prompts", "Diversity of each prompt", charts.prompts(len(names_in(of_prompts, "prompt"))), of_prompts
        )
    yield from dose_figures(found_doses)
    if rows := bits_rows(replays):
        yield Figure("replay", "Bits decided so far", charts.replay(names_in(rows, "series")), rows)
    for place, (attribute, rows) in enumerate(grouped(of_law, "attribute").items()):
        spec = charts.law(names_in(rows, "series"), names_in(rows, "value"))
        yield Figure(f"law-{place}", attribute, spec, rows)
    yield from frontier_figures(tables.of(FRONTIER, "settings"))
    shares = tables.of(DECOMPOSE, "table")
    if shares is not None and (rows := share_rows(shares)):
        spec = charts.shares(names_in(rows, "series"), names_in(rows, "source"))
        yield Figure("sources", "Where LPIPS diversity comes from", spec, rows)
    bits = tables.of(INFORMATION, "table")
    if bits is not None and (rows := bit_rows(bits)):
        spec = charts.bits(names_in(rows, "series"), names_in(rows, "quantity"))
        yield Figure("bits", "Bits of an image", spec, rows)
    if bits is not None and (rows := plane_rows(bits)):
        yield Figure("plane", "The bottleneck plane", charts.plane(names_in(rows, "series")), rows)


def dose_figures(found: Doses | None) -> Iterator[Figure]:
    """A chart for each sweep and each measure that was taken."""
    if found is None:
        return
    for place, swept in enumerate(dict.fromkeys(curve.swept for curve in found.curves)):
        curves = [curve for curve in found.curves if curve.swept == swept]
        falling = all(curve.points[0].dose > curve.points[-1].dose for curve in curves)
        for measure, title in TITLES.items():
            if rows := dose_rows(curves, measure):
                spec = charts.doses(names_in(rows, "series"), swept.dose.field, falling)
                yield Figure(f"doses-{place}-{measure}", f"{swept.name}: {title}", spec, rows)


def frontier_figures(settings: pd.DataFrame | None) -> Iterator[Figure]:
    """Diversity against fidelity of every setting; nothing where there is no fidelity."""
    if settings is None:
        return
    diversity, fidelity, rows = frontier_rows(settings)
    if rows:
        spec = charts.frontier(diversity, fidelity, FRONTIER_KINDS)
        yield Figure("frontier", f"Diversity against fidelity, {rows[0]['series']}", spec, rows)


def grouped(rows: list[dict[str, Any]], column: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by what stands in a column, in the order in which it comes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found


def names_in(rows: list[dict[str, Any]], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))
