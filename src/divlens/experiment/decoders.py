"""The decoder's noise as a factor of `decompose`: pictures of one token grid under each level of that noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.answers import pictures_of
from divlens.models.protocol import Model, NoisyDecoding
from divlens.models.room import Room
from divlens.noise import stream_key
from divlens.run import Filled


def noise_key(seed: int, prompt: str, level: int) -> int:
    """The same for all pictures of the prompt at this level, as the levels of path and execution are: so the decoder's
    noise is crossed with them."""
    return stream_key(seed, f"{prompt} decoder {level}")


def pictures_by_level(filled: Filled[None], levels: int) -> Iterator[Float[Tensor, "some 3 H W"]]:
    """The pictures of a batch, all levels of the first row, then of the next; no more at once than a batch holds.

    Where the decoder draws no noise the one level is the picture itself.
    """
    run = filled.run
    tokens, prompts = filled.tokens.repeat_interleave(levels, 0), [row.prompt.text for row in filled.rows]
    numbers = [(prompt, level) for prompt in prompts for level in range(levels)]
    size = run.rooms.drawing.fits
    for first in range(0, len(tokens), size):
        part = slice(first, first + size)
        yield pictures_at(run.model, tokens[part], numbers[part], run.seed, run.rooms.decoding)


def pictures_at(
    model: Model, tokens: Int[Tensor, "batch h w"], numbers: Sequence[tuple[str, int]], seed: int, room: Room
) -> Float[Tensor, "batch 3 H W"]:
    """Pictures of token grids, each of its prompt, and at its level where the decoder draws noise."""
    noisy = isinstance(model, NoisyDecoding)
    keys = [noise_key(seed, prompt, level) for prompt, level in numbers] if noisy else None
    return pictures_of(model, tokens, room, keys)
