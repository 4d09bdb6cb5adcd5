"""What of a run's pictures stands in a page: rows of pictures, whose columns are aligned by the number of the sample.

Sample 3 of a prompt has the same noise under every condition, so what differs down a column is what the condition did
to the very same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from divlens.conditions import BASELINE
from divlens.pages.distances import Pair
from divlens.pages.embedding import BYTES, NOTHING, Embedded, Extent, columns_within, extent_of
from divlens.statistics import Interval

UNKNOWN = Interval(float("nan"))


@dataclass(frozen=True)
class Picture:
    """One sample. `image`: its number among the embedded ones. `tokens`: the hash of its tokens (`hash_of`). `judged`:
    what the judge reads in it. `right`: whether that is all that the prompt names; None where nobody knows. `twin`:
    the first sample of the row with the same tokens, where that is another one or has others."""

    sample: int
    image: int
    wording: str
    path: int
    execution: int
    seed: str
    cell: str
    tokens: str
    judged: str = ""
    right: bool | None = None
    twin: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """The pictures of a prompt under a condition, in the order of their samples.

    mean, change: LPIPS diversity of exactly these pictures, and its change against baseline, each with its interval
    over samples; NaN where it is not known. nearest, farthest: places in the row.
    """

    model: str
    condition: str
    prompt: str
    place: int
    pictures: tuple[Picture, ...]
    mean: Interval = UNKNOWN
    change: Interval = UNKNOWN
    nearest: Pair | None = None
    farthest: Pair | None = None

    @property
    def distinct(self) -> int:
        """How many different pictures there are."""
        return len({picture.tokens for picture in self.pictures})


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """`rows` by model, prompt and condition, in this order. `extent`: how much is here of `prompts` and `n` samples.
    `missing`: why pictures are not here, a sentence each."""

    rows: tuple[Row, ...] = ()
    images: tuple[str, ...] = ()
    extent: Extent = NOTHING
    prompts: int = 0
    n: int = 0
    missing: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every sample that was asked for is here, so that figures are of exactly these pictures."""
        return self.extent == Extent(self.prompts, self.n)


@dataclass
class Budget:
    """How much of a run is shown; what a picture takes is known once there are some."""

    prompts: int
    n: int
    rows_each: int
    most: int
    embedded: Embedded = field(default_factory=Embedded)
    seen: int = 0

    @property
    def extent(self) -> Extent:
        fitting = BYTES * self.seen / self.embedded.size if self.embedded.size else self.most
        return extent_of(self.prompts, self.n, self.rows_each, min(self.most, fitting))


def reference_of(conditions: Sequence[str]) -> str:
    """The condition that others are held against: baseline or, of `enhance`, before."""
    return BASELINE if BASELINE in conditions else conditions[0]


def trimmed(rows: Sequence[Row], budget: Budget, missing: Sequence[str]) -> Gallery:
    """What fits: all prompts that were looked at, and as many columns as the bytes allow."""
    addresses, extent = budget.embedded.addresses, budget.extent
    seen: set[int] = set()
    sizes = []
    for row in rows:
        new = [0 if picture.image in seen else len(addresses[picture.image]) for picture in row.pictures]
        seen.update(picture.image for picture in row.pictures)
        sizes.append(new)
    columns = min(extent.samples, columns_within(sizes, BYTES))
    kept = [cut(row, columns) for row in rows]
    used = sorted({picture.image for row in kept for picture in row.pictures})
    number = {image: place for place, image in enumerate(used)}
    renumbered = [
        replace(row, pictures=tuple(replace(picture, image=number[picture.image]) for picture in row.pictures))
        for row in kept
    ]
    return Gallery(
        rows=tuple(renumbered),
        images=tuple(addresses[image] for image in used),
        extent=Extent(extent.prompts, columns) if kept else NOTHING,
        prompts=budget.prompts,
        n=budget.n,
        missing=tuple(missing),
    )


def cut(row: Row, columns: int) -> Row:
    """The first samples of a row. Its pairs stay only where both pictures do."""
    if len(row.pictures) <= columns:
        return row

    def within(pair: Pair | None) -> Pair | None:
        return pair if pair is not None and max(pair[:2]) < columns else None

    return replace(row, pictures=row.pictures[:columns], nearest=within(row.nearest), farthest=within(row.farthest))
