"""Where and when the bits of a generation fall, as pictures, and the folder that `divlens information` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from divlens.experiment import store
from divlens.experiment.probe import BASELINE
from divlens.information import Information

if TYPE_CHECKING:
    import pandas as pd

# Dark to bright, even in lightness, and readable without colour.
HEAT = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], float)
TILE, GAP, TITLE = 64, 6, 16  # pixels
STAGES = 8  # the steps of a generation, in so many groups of equal length


def heat(values: Float[np.ndarray, "h w"], most: float) -> Image.Image:
    """A map from 0 to `most` as a picture of TILE pixels a side, or nearly."""
    place = np.clip(values / most if most > 0 else np.zeros_like(values), 0, 1) * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    colours = HEAT[low] + (place - low)[..., None] * (HEAT[low + 1] - HEAT[low])
    pixels = colours.round().astype(np.uint8)
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)


def stages(part: Float[np.ndarray, "steps h w"]) -> list[Float[np.ndarray, "h w"]]:
    """Bits of each group of consecutive steps, at most STAGES groups."""
    return [group.sum(0) for group in np.array_split(part, min(STAGES, len(part)))]


def entropy_sheet(results: Sequence[Information]) -> Image.Image:
    """Two rows per result, path above execution: all steps together, then stage by stage.

    One scale for all first tiles and one for all stages, each from 0 to the largest. Of a diffusion's readings, maps
    are of the schedule.
    """
    named = [
        (" ".join((result.model, *(result.interventions or [BASELINE]))), kind, part)
        for result in results
        for kind, part in (("path", result.path_map), ("execution", result.execution_map))
    ]
    most = max(float(part.sum(0).max()) for _, _, part in named)
    most_of_stage = max(float(stage.max()) for _, _, part in named for stage in stages(part))
    width = GAP + (TILE + GAP) * (1 + STAGES) + GAP
    sheet = Image.new("RGB", (width, len(named) * (TILE + TITLE + GAP) + GAP), "white")
    top = GAP
    for name, kind, part in named:
        title = f"{name}: {kind}, {part.sum():.0f} bits. All of them, then in the order of the steps"
        ImageDraw.Draw(sheet).text((GAP, top), title, fill=(60, 60, 60))
        sheet.paste(heat(part.sum(0), most), (GAP, top + TITLE))
        for index, stage in enumerate(stages(part)):
            sheet.paste(heat(stage, most_of_stage), (3 * GAP + TILE + index * (TILE + GAP), top + TITLE))
        top += TILE + TITLE + GAP
    return sheet


def write_information(results: Sequence[tuple[str, Information]], request: store.Record, folder: Path) -> None:
    """table, per_prompt, steps, maps and tightness (see `store.write_tables`), maps.png and run.json.

    `results`: each with the name of its condition, which is a column of every table. `request`: what was asked for (see
    `store.request_of`). Raises DivlensError as `store.write_output` does.
    """

    def named(table: str) -> list[pd.DataFrame]:
        tables = [(condition, getattr(result, table)) for condition, result in results]
        for condition, rows in tables:
            rows.insert(1, "condition", condition)
        return [rows for _, rows in tables]

    def write(partial: Path) -> None:
        tables = ("table", "per_prompt_table", "steps_table", "maps_table", "tightness_table")
        store.write_tables({name.removesuffix("_table"): named(name) for name in tables}, partial)
        entropy_sheet([result for _, result in results]).save(partial / "maps.png")

    used = [
        (result.model, condition, prompt, wording)
        for condition, result in results
        for prompt, wordings in zip(result.prompts, result.wordings, strict=True)
        for wording in wordings
    ]
    notes: dict[str, dict[str, dict[str, str]]] = {}
    for condition, result in results:
        notes.setdefault(result.model, {})[condition] = dict(result.wording_notes)
    drawn_with = {result.model: result.drawn_with for _, result in results}
    templated = list(dict.fromkeys(text for _, result in results for text in result.templated))
    found = store.found_of(used, drawn_with, wording_notes=notes, templated=templated)
    store.write_output(folder, request, found, write)
