"""The sprites of EmojiScenes: the art of `art.py` with its transparency, in two sizes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from divlens.lab.attributes import CONCEPTS
from divlens.lab.attributes import STYLES as STYLE_WORDS
from divlens.lab.pictures import TOKENS, Atlas
from divlens.zoo.art import NAMES, STYLES, IconSet, check_tools, fetch

EDGE = 1  # transparent pixels on each side of the longer axis
VISIBLE = 16  # alpha, of 255, from which a pixel belongs to the drawing


def sprite(svg: str, side: int) -> UInt8[np.ndarray, "side side 4"]:
    """Cropped to the drawing and fitted to a square; colours times alpha."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    drawing = Image.open(io.BytesIO(bytes(svg_to_bytes(svg_string=svg)))).convert("RGBA")
    visible = drawing.getchannel("A").point([255 * (alpha > VISIBLE) for alpha in range(256)])
    drawing = drawing.crop(visible.getbbox())
    scale = (side - 2 * EDGE) / max(drawing.size)
    width, height = (max(1, round(length * scale)) for length in drawing.size)
    # Premultiplied alpha: otherwise the invisible colour of transparent pixels bleeds into the edges.
    fitted = np.asarray(drawing.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS))
    square = np.zeros((side, side, 4), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = fitted
    square[..., :3] = np.minimum(square[..., :3], square[..., 3:])  # the filter overshoots at sharp edges
    return square


def make_atlas(folder: Path, token_pixels: int = 6) -> Atlas:
    """Fetch the art into `folder` with npm, once, and draw every concept in every style.

    Raises DivlensError where what fetches or renders is missing."""
    check_tools()
    entries = {e["label"]: e for e in json.loads((fetch(NAMES, folder) / "en" / "data.json").read_text())}
    sets = [IconSet(fetch(STYLES[name], folder)) for name in STYLE_WORDS.values()]
    drawings = [[icons.svg(entries[name]) for icons in sets] for name in CONCEPTS.values()]
    return Atlas(
        *(np.array([[sprite(svg or "", side * token_pixels) for svg in row] for row in drawings]) for side in TOKENS)
    )
