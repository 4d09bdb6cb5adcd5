"""How many samples a device holds at once, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from divlens.types import is_out_of_memory

Result = TypeVar("Result")


@dataclass
class Room:
    """`fits`: how many samples the device holds at once, as far as is known. `asked_for`: that size is to be kept."""

    fits: int
    asked_for: bool = False

    def parts(self, count: int, work: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """`work` on all of `count` samples, part by part. Whenever the device runs out of memory the part is halved and
        done again, and later parts are no larger. The error is raised for a single sample, and for a size that was
        asked for."""
        done = 0
        while done < count:
            part = slice(done, min(done + self.fits, count))
            size = part.stop - part.start
            try:
                result = work(part)
            except Exception as error:
                if self.asked_for or size == 1 or not is_out_of_memory(error):
                    raise
                self.fits = size // 2
                continue
            yield part, result
            done = part.stop


@dataclass(frozen=True)
class Rooms:
    """For drawing and for decoding. What one run of a model finds out, its next run begins with."""

    drawing: Room
    decoding: Room

    @classmethod
    def of(cls, size: int, *, asked_for: bool) -> Rooms:
        return cls(Room(size, asked_for), Room(size, asked_for))
