"""Which codes a run drew, and where in the grid and when their bits fell, as rows for charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from divlens.heat_maps import stages
from divlens.output import Record
from divlens.pages.verdicts import number, percent
from divlens.plots.rows import series_of
from divlens.store.reader import StoredRun
from divlens.store.schemas import SAMPLES
from divlens.store.views import literal

if TYPE_CHECKING:
    import pandas as pd

MOST_SAMPLES = 2000  # of a prompt: the shares of codes no longer move
RANKS = 60  # points of a curve
STAGES = 4  # groups of consecutive steps
SIDE = 16  # cells of a map, at most: of a larger grid they are means over neighbours
KINDS = ("path", "execution")


def usage_rows(run: StoredRun, request: Record, conditions: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By model, of some conditions how many of all tokens the most used codes are: a row for each of some ranks, with
    the `share` of the tokens that the codes up to this `rank` make, in percent; how many `codes` came out at all; and
    how many equally used ones would have the same entropy (`effective`)."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in request["models"]:
        for condition in conditions:
            if len(counts := counts_of(run, model, condition, min(request["n"], MOST_SAMPLES))):
                found.setdefault(model, []).extend(curve_of(condition, counts))
    return found


def counts_of(run: StoredRun, model: str, condition: str, samples: int) -> Int[np.ndarray, " codes"]:
    """How often each code came out that did, the most used first, in the first samples of each prompt."""
    of_condition = f"condition = {literal(condition)} AND {run.numbered(model, condition)}"
    table = run.sql(
        f"SELECT count(*) AS drawn FROM (SELECT unnest(tokens) AS code FROM {SAMPLES} WHERE model = {literal(model)} "
        f"AND {of_condition} AND sample < {samples}) GROUP BY code ORDER BY drawn DESC"
    )
    return table["drawn"].to_numpy(dtype=np.int64)


def curve_of(condition: str, counts: Int[np.ndarray, " codes"]) -> Iterator[dict[str, Any]]:
    """`counts`: how often each code came out, the most used first."""
    shares = counts / counts.sum()
    effective = float(np.exp(-(shares * np.log(shares)).sum()))
    for rank in np.unique(np.geomspace(1, len(counts), RANKS).round().astype(int)):
        yield {
            **{"series": condition, "rank": int(rank), "share": percent(shares[:rank].sum())},
            **{"codes": len(counts), "effective": number(effective)},
        }


def step_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Of the table of steps of `information`: the bits that path and execution decide in each step, a row for each."""
    rows = []
    for series, steps in by_series(table):
        last = max(int(steps["step"].max()), 1)
        rows += [
            {"series": series, "kind": kind, "step": int(step) + 1, "done": 100 * step / last, "bits": number(bits)}
            for kind in KINDS
            for step, bits in zip(steps["step"], steps[kind], strict=True)
        ]
    return rows


def map_rows(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Of the table of maps of `information`, by model and condition: a row for each cell of the grid, of path and of
    execution, over all steps (stage 0) and over each group of consecutive ones, with its `bits`, and these as a share
    of the most that any cell has (`of_most`): of all steps, or of any group."""
    found = {}
    for series, cells in by_series(table):
        steps, height, width = (int(cells[name].max()) + 1 for name in ("step", "row", "column"))
        ordered = cells.sort_values(["step", "row", "column"])
        maps = {kind: pooled(ordered[kind].to_numpy(float).reshape(steps, height, width)) for kind in KINDS}
        found[series] = list(rows_of_maps(maps))
    return found


def rows_of_maps(maps: dict[str, Float[np.ndarray, "steps h w"]]) -> Iterator[dict[str, Any]]:
    parts = {kind: [of.sum(0), *stages(of, STAGES)] for kind, of in maps.items()}
    most_of_all = max(float(whole.max()) for whole, *_ in parts.values())
    most_of_stage = max(float(part.max()) for _, *staged in parts.values() for part in staged)
    for kind, of_kind in parts.items():
        for stage, part in enumerate(of_kind):
            most = most_of_stage if stage else most_of_all
            for (row, column), bits in np.ndenumerate(part):
                yield {
                    **{"kind": kind, "stage": stage, "row": row, "column": column, "bits": number(bits)},
                    "of_most": number(bits / most) if most > 0 else 0.0,
                }


def pooled(of: Float[np.ndarray, "steps h w"]) -> Float[np.ndarray, "steps rows columns"]:
    """With at most SIDE cells a side, each the mean of a square of neighbours; those at an edge may be smaller."""
    for axis in (1, 2):
        size = of.shape[axis]
        starts = np.arange(0, size, -(-size // SIDE))
        counts = np.diff([*starts, size])
        of = np.add.reduceat(of, starts, axis=axis) / (counts[:, None] if axis == 1 else counts)
    return of


def by_series(table: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """The rows of each model and condition."""
    for _, rows in table.groupby(["model", "condition"], sort=False):
        yield series_of(rows.iloc[0].to_dict()), rows
