"""Tables that fit an 80-column terminal. Every mean has its interval, or a note says why not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from divlens.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

    from divlens.enhance import Enhanced

UNKNOWN = "n/a"


def interval_text(value: float, low: float, high: float, digits: int = 3, sign: bool = False) -> str:
    """`0.215 [0.198, 0.231]`; the mean alone where no interval is known; `n/a` where there is no mean."""
    if math.isnan(value):
        return UNKNOWN
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(low) or math.isnan(high):
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def percent_text(value: float, low: float, high: float, sign: bool = False) -> str:
    if math.isnan(value):
        return UNKNOWN
    mark = "+" if sign else ""
    if math.isnan(low) or math.isnan(high):
        return f"{100 * value:{mark}.0f}"
    return f"{100 * value:{mark}.0f} [{100 * low:{mark}.0f}, {100 * high:{mark}.0f}]"


def three(row: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def probe_tables(table: pd.DataFrame) -> Group:
    """One block per model: diversity, its change against baseline in percent, styles, fidelity, duplicates."""
    blocks: list[Table | Text] = []
    for model, rows in table.groupby("model", sort=False):
        block = Table(title=str(model), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        block.add_column("condition", no_wrap=True)
        for heading in ("LPIPS diversity", "change %", "styles %", "fidelity %", "dup"):
            block.add_column(heading, justify="right", no_wrap=True)
        records: list[dict[str, Any]] = rows.to_dict("records")  # pyright: ignore[reportAssignmentType]
        for row in records:
            base = row["condition"] == "baseline"
            block.add_row(
                row["condition"],
                interval_text(*three(row, "diversity")),
                "-" if base else percent_text(*three(row, "relative_change"), sign=True),
                percent_text(*three(row, "coverage")),
                percent_text(*three(row, "fidelity")),
                str(row["duplicates"]),
            )
        blocks.append(block)
    return Group(*blocks, Text("\n".join(notes(table)), style="dim"))


def notes(table: pd.DataFrame) -> list[str]:
    """What the numbers are, and why some are missing."""
    prompts, n = int(table["prompts"].iloc[0]), int(table["n"].iloc[0])
    lines = [
        f"Means over {prompts} prompts, {n} samples each; [95% interval, bootstrap-t over prompts].",
        "change: paired with baseline, same noise. styles: existing styles that come out.",
        "fidelity: samples the judge names right. dup: repeated token grids, all prompts.",
        f"Noise floor of LPIPS diversity (one grey level): {table['noise_floor'].max():.4f}.",
    ]
    if n < 2:
        lines.append("LPIPS diversity is undefined (NaN) for fewer than 2 samples.")
    if prompts < 2:
        lines.append("No intervals: they need at least 2 prompts.")
    if table["fidelity"].isna().any():
        lines.append("n/a: the judge knows no concept for these models or prompts.")
    return lines


def enhance_table(result: Enhanced) -> Group:
    """Before and after, and the paired change."""
    block = Table(title=result.before.samples[0].model, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "before", "after", "change"):
        block.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name, label in (("diversity", "LPIPS diversity"), ("coverage", "styles"), ("fidelity", "fidelity")):
        sides = (result.before.mean(name), result.after.mean(name))
        texts = [text_of(interval) for interval in sides]
        block.add_row(label, *texts, text_of(result.change(name), sign=True))
    prompts = len(result.before.figures)
    said = f"Means over {prompts} prompts [95% interval]." if prompts > 1 else "One prompt: no interval over prompts."
    n = len(result.before.generation.samples)
    return Group(block, Text(f"{said} {n} samples each, before and after from the same noise.", style="dim"))


def text_of(interval: Interval, sign: bool = False) -> str:
    return interval_text(interval.value, interval.low, interval.high, sign=sign)
