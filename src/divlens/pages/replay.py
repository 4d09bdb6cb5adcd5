"""How one picture was filled in, step by step, and what each step decided in bits.

A run stores the tokens at the end, not the steps. So the sample is drawn once more, alone, and its steps are watched:
that costs one picture by each model (and `divlens sample` says whether it is the same).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.errors import DivlensError
from divlens.information.laws import law_of
from divlens.loop import Moment
from divlens.models.answers import pictures_of
from divlens.models.protocol import Model
from divlens.models.room import Room
from divlens.output import Record
from divlens.pages.embedding import Embedded
from divlens.pages.gallery import reference_of
from divlens.pages.verdicts import number
from divlens.planning import BATCH_SIZE
from divlens.run import fill
from divlens.store.again import stored_single
from divlens.store.reader import StoredRun

BITS = 1 / math.log(2)
MOST_FRAMES = 48  # of a sample: of more steps several share a picture, and the bits of all of them are added up
OPEN = 0.5  # the grey of what holds nothing yet


@dataclass(frozen=True)
class Frame:
    """The grid after a step. `step`: how many steps are done. `image`: its number among the embedded pictures.
    `fixed`: the positions whose token these steps fixed. `held`: how many positions hold a token. `path`, `execution`:
    the bits that these steps decided, None where no law of the path is known."""

    step: int
    image: int
    fixed: list[int]
    held: int
    path: float | None
    execution: float | None


@dataclass(frozen=True)
class Replay:
    """`equal`: whether the tokens are those that the run has stored."""

    model: str
    condition: str
    prompt: str
    sample: int
    equal: bool
    steps: int
    grid: tuple[int, int]
    frames: list[Frame]


@dataclass(frozen=True)
class Seen:
    """What is kept of a step of a single sample: the state after it, what it fixed, and bits of path and execution."""

    state: Tensor
    committed: Tensor
    path: float
    execution: float


def replays_of(
    run: StoredRun,
    request: Record,
    models: Sequence[str],
    prompt: str,
    count: int,
    embedded: Embedded,
    first: int,
    device: str | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The first `count` samples of a prompt by some models, without a condition, drawn once more; and why others are
    missing, a sentence each. `first`: what is added to the numbers of `embedded`."""
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    for name in models:
        for sample in range(min(count, request["n"])):
            try:
                found.append(asdict(replay_of(run, request, name, prompt, sample, embedded, first, device)))
            except DivlensError as error:
                missing.append(f"No replay of {name}: {error}.")
                break
    return found, missing


def replay_of(
    run: StoredRun,
    request: Record,
    model: str,
    prompt: str,
    sample: int,
    embedded: Embedded,
    first: int,
    device: str | None,
) -> Replay:
    """Raises DivlensError for a sample that the run does not hold."""
    condition = reference_of(list(request["conditions"]))
    single, stored = stored_single(run, request, model, condition, prompt, sample, device)
    (filled,) = fill(single, lambda place, passing: tuple(seen(passing)))
    height, width = single.model.grid
    kept = last_of_each(len(filled.seen), MOST_FRAMES)
    states = torch.stack([filled.seen[step].state for step in kept])
    images = [first + embedded.add(picture) for picture in partly(single.model, states, filled.tokens.flatten())]
    frames, before = [], 0
    for image, step, state in zip(images, kept, states, strict=True):
        steps = filled.seen[before : step + 1]
        fixed = torch.stack([one.committed for one in steps]).any(0)
        frames.append(
            Frame(
                step=step + 1,
                image=image,
                fixed=fixed.nonzero().flatten().tolist(),
                held=int((state != single.model.mask).sum()),
                path=number(sum(one.path for one in steps)),
                execution=number(sum(one.execution for one in steps)),
            )
        )
        before = step + 1
    equal = torch.equal(filled.tokens.flatten().cpu(), stored)
    return Replay(model, condition, prompt, sample, equal, len(filled.seen), (height, width), frames)


def seen(passing: Iterator[Moment]) -> Iterator[Seen]:
    for moment in passing:
        law = law_of(moment.settings.rule)
        entropies = law.entropies(moment)
        path = float(entropies.path.sum()) * BITS if law.known else math.nan
        execution = float(entropies.execution.sum()) * BITS if law.known else math.nan
        yield Seen(moment.result.tokens[0], moment.result.committed[0], path, execution)


def last_of_each(steps: int, most: int) -> list[int]:
    """The last step of each of at most so many parts of all steps, as even as can be; the very last is one of them."""
    parts = min(steps, most)
    return [round(steps * (part + 1) / parts) - 1 for part in range(parts)]


def partly(model: Model, states: Tensor, final: Tensor) -> Float[Tensor, "states 3 h w"]:
    """The pictures of grids that are partly filled. Decoders need a whole grid: what holds nothing is decoded as it
    will be at the end, and its part of the picture is covered by grey."""
    nothing = states == model.mask
    whole = torch.where(nothing, final, states).view(-1, *model.grid)
    pictures = pictures_of(model, whole, Room(BATCH_SIZE))
    cover = nothing.view(-1, 1, *model.grid).float().cpu()
    return torch.where(torch.nn.functional.interpolate(cover, pictures.shape[-2:]) > 0, OPEN, pictures)


def bits_rows(replays: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each frame of the first sample of each model: how much of all steps is done, and the bits that were
    decided until then. Models whose path has no known law are left out."""
    rows: list[dict[str, Any]] = []
    for one in replays:
        if one["sample"] or any(frame["path"] is None for frame in one["frames"]):
            continue
        sums = np.cumsum([[frame["path"], frame["execution"]] for frame in one["frames"]], axis=0)
        rows += [
            {
                **{"series": one["model"], "step": frame["step"], "done": number(100 * frame["step"] / one["steps"])},
                **{"path": number(path), "execution": number(execution), "bits": number(path + execution)},
            }
            for frame, (path, execution) in zip(one["frames"], sums, strict=True)
        ]
    return rows
