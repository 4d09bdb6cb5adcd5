"""What is drawn of a comparison in one go, and which of it is whose where several machines share a run.

A unit is a prompt under a condition of a model, in the order of the plan; unit u is of the share u mod N. Where there
are fewer units than shares, the samples of each prompt are parted in blocks of whole batches, and these are dealt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from divlens.experiment.measure import samples_each
from divlens.run import Rows, Run
from divlens.store.share import Share


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows `place` of a run: all samples of its prompts, which are measured, or a block of those of one prompt."""

    condition: str
    run: Run
    place: slice
    measured: bool

    def __len__(self) -> int:
        return self.place.stop - self.place.start


def pieces_of(runs: Mapping[str, Mapping[str, Run]], share: Share | None) -> list[Piece]:
    """What a share draws, or what is drawn where there is none. `runs`: by model and condition."""
    named = [(condition, run) for of_model in runs.values() for condition, run in of_model.items()]
    if share is None:
        return [Piece(*each, slice(0, len(each[1].rows)), measured=True) for each in named]
    units = [(which, prompt) for which, (_, run) in enumerate(named) for prompt in range(len(run.prompts))]
    if len(units) < share.of:
        blocks = [
            Piece(*named[which], block, measured=False)
            for which, prompt in units
            for block in blocks_of(named[which][1], prompt, share.of)
        ]
        return blocks[share.number - 1 :: share.of]
    prompts: dict[int, list[int]] = {}
    for which, prompt in units[share.number - 1 :: share.of]:
        prompts.setdefault(which, []).append(prompt)
    return [whole_piece(*named[which], chosen) for which, chosen in prompts.items()]


def whole_piece(condition: str, run: Run, prompts: Sequence[int]) -> Piece:
    """All samples of some prompts, by their places."""
    rows = run.rows
    assert isinstance(rows, Rows)  # as `planning.plans` makes them
    part = Rows(tuple(rows.groups[prompt] for prompt in prompts))
    return Piece(condition, replace(run, rows=part), slice(0, len(part)), measured=True)


def blocks_of(run: Run, prompt: int, most: int) -> list[slice]:
    """The samples of a prompt in up to `most` blocks, each of whole batches but for the last."""
    n, at_once = samples_each(run), run.rooms.drawing.fits
    batches = math.ceil(n / at_once)
    count = min(most, batches)
    ends = [prompt * n + min(n, at_once * (batches * number // count)) for number in range(count + 1)]
    return [slice(*ends_of_block) for ends_of_block in pairwise(ends)]
