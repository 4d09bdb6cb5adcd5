"""Pictures as they stand in a page: each different one once, as a data address, within a number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from divlens.sheets import to_picture

SMALL = 96  # pixels: up to this size without loss
LARGEST = 256  # pixels: what is larger is made smaller
QUALITY = 90
BYTES = 9_000_000  # of all pictures of a page, which is to stay below 12 MB
FEWEST_COLUMNS = 4  # of a row; prompts are left out before rows are shorter


@dataclass
class Embedded:
    """The pictures of a page, each once. `addresses`: by their numbers."""

    addresses: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, picture: Float[Tensor, "3 h w"]) -> int:
        """Its number; that of the picture which is equal to it, where there is one."""
        address = data_address(to_picture(picture))
        if address not in self.numbers:
            self.numbers[address] = len(self.addresses)
            self.addresses.append(address)
        return self.numbers[address]

    @property
    def size(self) -> int:
        return sum(map(len, self.addresses))


def data_address(picture: Image.Image) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp_of(picture)).decode('ascii')}"


def webp_of(picture: Image.Image) -> bytes:
    """As WebP; small pictures as they are, others at most LARGEST pixels wide and high, and with loss."""
    if max(picture.size) <= SMALL:
        how = {"lossless": True, "quality": 80, "method": 4}
    else:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        how = {"quality": QUALITY}
    written = io.BytesIO()
    picture.save(written, "WEBP", **how)
    return written.getvalue()


@dataclass(frozen=True)
class Extent:
    """How much of a run a page shows: the first so many prompts, and the first so many samples of each."""

    prompts: int = 0
    samples: int = 0


NOTHING = Extent()


def extent_of(prompts: int, n: int, rows_each: int, most: float) -> Extent:
    """As many samples of every prompt as make at most so many pictures; fewer prompts where that would leave fewer
    than FEWEST_COLUMNS of each. `rows_each`: rows of a prompt, one for each model and condition."""
    if most < 1 or not (prompts and n and rows_each):
        return NOTHING
    columns = int(min(n, most // (prompts * rows_each)))
    if columns >= min(n, FEWEST_COLUMNS):
        return Extent(prompts, columns)
    columns = min(n, FEWEST_COLUMNS)
    return Extent(max(1, min(prompts, int(most // (columns * rows_each)))), columns)


def columns_within(sizes: Sequence[Sequence[int]], most: int) -> int:
    """How many columns of rows fit into so many bytes; at least one. `sizes`: of each row those of its pictures, 0 for
    one that stands somewhere else already."""
    widest = max(map(len, sizes), default=0)
    total = 0
    for column in range(widest):
        total += sum(row[column] for row in sizes if column < len(row))
        if total > most:
            return max(1, column)
    return widest
