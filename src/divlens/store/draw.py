"""The tokens of a run: found where they are stored, drawn where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.progress import OnBatch
from divlens.run import Filled, Run, fill
from divlens.store.folder import RunFolder

BATCHES = 8  # of a window: its last batch, which may be a small one, costs little then


def windows(run: Run, whole: int = 1, within: slice | None = None) -> Iterator[slice]:
    """The rows of a run, or those `within` a place of it, some batches of them at a time. `whole`: how many rows, such
    as those of a prompt, are never parted."""
    rows = max(1, math.ceil(BATCHES * run.rooms.drawing.fits / whole)) * whole
    first, end = (within.start, within.stop) if within else (0, len(run.rows))
    return (slice(start, min(start + rows, end)) for start in range(first, end, rows))


def drawn(
    run: Run, place: slice, folder: RunFolder | None, condition: str, on_batch: OnBatch
) -> Int[Tensor, "rows positions"]:
    """The tokens of some rows of a run, in integers as small as the codes allow, on the CPU. With a folder, those that
    it holds are read, and the others are stored as soon as their batch is drawn.

    `on_batch` is told how many more rows are there.
    """
    numbers = np.arange(place.start, place.stop)
    tokens = no_tokens_yet(run, len(numbers))
    stored = np.zeros(len(numbers), bool) if folder is None else read_stored(run, numbers, folder, condition, tokens)
    if stored.any():
        on_batch(int(stored.sum()))
    missing = np.flatnonzero(~stored)
    chosen = [run.rows[int(number)] for number in numbers[missing]]
    for batch in fill(run.part(chosen)):
        here = missing[batch.place]
        tokens[torch.from_numpy(here)] = batch.tokens.flatten(1).to("cpu", tokens.dtype)
        if folder is not None:
            folder.add(run, condition, run.samples(numbers[here]), batch.rows, batch.tokens)
        on_batch(len(here))
    return tokens


def read_stored(
    run: Run,
    numbers: Int[np.ndarray, " rows"],
    folder: RunFolder,
    condition: str,
    into: Int[Tensor, "rows positions"],
) -> Bool[np.ndarray, " rows"]:
    """Which rows of a run, by their numbers, the folder holds; their tokens are written into `into`. What it holds
    under another name of the same interventions is stored under this name, too, and not drawn."""
    rows = [run.rows[int(number)] for number in numbers]
    stored = folder.find(run, condition, rows, into)
    for other in folder.other_names(condition):
        missing = np.flatnonzero(~stored)
        if not len(missing):
            break
        tokens = into[torch.from_numpy(missing)]
        here = folder.find(run, other, [rows[int(i)] for i in missing], tokens)
        if here.any():
            shared, tokens = missing[here], tokens[torch.from_numpy(here)]
            into[torch.from_numpy(shared)] = tokens
            grids = tokens.view(-1, *run.model.grid)
            folder.add(run, condition, run.samples(numbers[shared]), [rows[int(i)] for i in shared], grids, new=False)
            stored[shared] = True
    return stored


def all_stored(run: Run, place: slice, folder: RunFolder, condition: str) -> Int[Tensor, "rows positions"]:
    """As `drawn`, of rows that the folder holds. Raises DivlensError where it lacks any: nothing is drawn."""
    tokens = no_tokens_yet(run, place.stop - place.start)
    if lacking := int((~folder.find(run, condition, run.rows[place], tokens)).sum()):
        raise DivlensError(
            f"{folder.place} lacks {lacking} of {len(tokens)} samples of {run.model.name} under {condition}: the "
            "command that began it draws them"
        )
    return tokens


def no_tokens_yet(run: Run, rows: int) -> Int[Tensor, "rows positions"]:
    """Room for tokens, in integers as small as the codes allow."""
    small = torch.int16 if run.model.codes <= 2**15 else torch.int32
    return torch.empty(rows, math.prod(run.model.grid), dtype=small)


def grids_of(run: Run, tokens: Int[Tensor, "rows positions"]) -> Int[Tensor, "rows h w"]:
    """Stored tokens as the model decodes them."""
    return tokens.to(run.device, torch.long).view(-1, *run.model.grid)


def batches(run: Run, folder: RunFolder | None, condition: str) -> Iterator[Filled[None]]:
    """The finished grids of a run, in the order of its rows."""
    for place in windows(run):
        tokens = drawn(run, place, folder, condition, lambda count: None)
        size = run.rooms.drawing.fits  # pictures are made of no more at once
        for first in range(place.start, place.stop, size):
            part = slice(first, min(first + size, place.stop))
            here = tokens[part.start - place.start : part.stop - place.start]
            yield Filled(run, part, grids_of(run, here), None)
