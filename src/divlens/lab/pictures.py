"""From scenes to pictures: a sprite laid over a background of one colour."""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Int, UInt8

from divlens.lab.attributes import BACKGROUND, BACKGROUNDS, CONCEPT, MIRROR, PLACE, SIZE, STYLE
from divlens.lab.scenes import check_scenes

GRID = 8  # tokens along each side of a picture
TOKENS = (6, 4)  # tokens along each side of a large and of a small sprite
ATLAS = "sprites.npy.xz"


@dataclass(frozen=True)
class Atlas:
    """The sprites of every concept and style: red, green, blue and alpha, the colours multiplied by alpha.

    `large` is uint8 (concepts, styles, 6 p, 6 p, 4) and `small` (concepts, styles, 4 p, 4 p, 4), where p is the number
    of pixels along a token.
    """

    large: UInt8[np.ndarray, "concepts styles h w 4"]
    small: UInt8[np.ndarray, "concepts styles h2 w2 4"]

    @property
    def token_pixels(self) -> int:
        return self.large.shape[2] // TOKENS[0]

    @property
    def image_size(self) -> int:
        return GRID * self.token_pixels

    def to_bytes(self) -> bytes:
        """Compressed. The rows of pixels are stored as differences along a row, which compress better."""
        parts = [np.diff(part, axis=3, prepend=np.zeros_like(part[:, :, :, :1])) for part in (self.large, self.small)]
        buffer = io.BytesIO()
        for part in parts:
            np.save(buffer, np.moveaxis(part, 4, 2))  # one colour after the other
        return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)

    @classmethod
    def from_bytes(cls, content: bytes) -> Atlas:
        buffer = io.BytesIO(lzma.decompress(content))
        large, small = (np.moveaxis(np.load(buffer), 2, 4) for _ in TOKENS)
        return cls(*(np.cumsum(part, axis=3, dtype=np.uint8) for part in (large, small)))


@cache
def packaged_atlas() -> Atlas:
    return Atlas.from_bytes(files("divlens.lab").joinpath("assets", ATLAS).read_bytes())


def corners(
    scenes: Int[np.ndarray, "n attributes"], token_pixels: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Row and column of the sprite's upper left pixel, multiples of a token: moving a sprite moves its tokens."""
    step = (GRID - np.array(TOKENS)[scenes[:, SIZE]]) // 2 * token_pixels
    return scenes[:, PLACE] // 3 * step, scenes[:, PLACE] % 3 * step


def compose(scenes: Int[np.ndarray, "n attributes"], atlas: Atlas | None = None) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures of scenes, each a pure function of its scene: uint8 (n, 48, 48, 3).

    Where the sprite's colour, already times alpha, is c and alpha is a (of 255), the picture is c + (1 - a / 255) times
    the background, rounded to the nearest. Raises DivlensError for a value that an attribute does not have.
    """
    check_scenes(scenes)
    atlas = packaged_atlas() if atlas is None else atlas
    colours = np.array(list(BACKGROUNDS.values()), np.uint8)[scenes[:, BACKGROUND]]
    pictures = np.tile(colours[:, None, None], (1, atlas.image_size, atlas.image_size, 1))
    top, left = corners(scenes, atlas.token_pixels)
    for size, sprites in enumerate((atlas.large, atlas.small)):
        rows = np.flatnonzero(scenes[:, SIZE] == size)
        drawn = sprites[scenes[rows, CONCEPT], scenes[rows, STYLE]]
        mirrored = scenes[rows, MIRROR] == 1
        drawn[mirrored] = drawn[mirrored, :, ::-1]
        veil = (255 - drawn[..., 3:].astype(np.uint32)) * colours[rows, None, None]
        mixed = drawn[..., :3] + (veil + 127) // 255
        along = np.arange(sprites.shape[2])
        y, x = top[rows, None] + along, left[rows, None] + along
        pictures[rows[:, None, None], y[:, :, None], x[:, None, :]] = np.minimum(mixed, 255)
    return pictures
