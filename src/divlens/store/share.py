"""A share of a run: what one of several machines draws of it, which know nothing of each other (`--shard 3/16`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from divlens.errors import DivlensError


@dataclass(frozen=True)
class Share:
    """The share with the number `number`, from 1 on, of as many as `of`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def recorded(self) -> list[int]:
        """As run.json holds it."""
        return [self.number, self.of]


def share_from(text: str) -> Share:
    """The share that "3/16" names. Raises DivlensError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise DivlensError(f"--shard expects K/N, such as 3/16, with K from 1 to N, got {text!r:.60}")
    return Share(int(found[1]), int(found[2]))
