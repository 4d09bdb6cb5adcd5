"""Numbers of each step and position of a grid as pictures: the brighter, the more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

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


def stages(part: Float[np.ndarray, "steps h w"], most: int = STAGES) -> list[Float[np.ndarray, "h w"]]:
    """Bits of each group of consecutive steps, at most so many groups."""
    return [group.sum(0) for group in np.array_split(part, min(most, len(part)))]


def heat_sheet(rows: Sequence[tuple[str, Float[np.ndarray, "_ _ _"]]]) -> Image.Image:
    """A row for each title and its maps (steps, h, w), of any size: all steps together, then stage by stage.

    One scale for all first tiles and one for all stages, each from 0 to the largest.
    """
    most = max(float(part.sum(0).max()) for _, part in rows)
    most_of_stage = max(float(stage.max()) for _, part in rows for stage in stages(part))
    width = GAP + (TILE + GAP) * (1 + STAGES) + GAP
    sheet = Image.new("RGB", (width, len(rows) * (TILE + TITLE + GAP) + GAP), "white")
    top = GAP
    for title, part in rows:
        ImageDraw.Draw(sheet).text((GAP, top), title, fill=(60, 60, 60))
        sheet.paste(heat(part.sum(0), most), (GAP, top + TITLE))
        for index, stage in enumerate(stages(part)):
            sheet.paste(heat(stage, most_of_stage), (3 * GAP + TILE + index * (TILE + GAP), top + TITLE))
        top += TILE + TITLE + GAP
    return sheet
