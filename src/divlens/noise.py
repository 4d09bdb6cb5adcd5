"""The random streams of a generation.

Path noise and execution noise are separate, per sample and counter based: the number at (stream, step, position) of a
sample is a pure function of (seed, prompt, sample). So a sample's noise does not depend on the batch it was drawn in,
the same seed under two interventions uses the same noise, and either stream can be frozen while the other varies. Two
methods have streams of their own: the noise of a condition, and which stratum a sample's execution noise falls into. A
decoder that has noise of its own gets it from a key of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Stream = Literal["path", "execution", "condition", "stratum"]
STREAMS: dict[Stream, int] = {"path": 0, "execution": 1, "condition": 2, "stratum": 3}
NUMBERS_AT_ONCE = 2**18  # of a condition's noise: it bounds memory


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox-4x32-10 (Salmon et al., 2011): uint32 (..., 4) counters under a (..., 2) key to four random words."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k = [key[..., i].astype(np.uint64) for i in range(2)]
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(product1 >> half) ^ c[1] ^ k[0], product1 & low, (product0 >> half) ^ c[3] ^ k[1], product0 & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(c, axis=-1).astype(np.uint32)


def prompt_key(text: str) -> int:
    """64 bits of a text, for a generator that is to follow the prompt, not its place in a list."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream_key(seed: int, text: str) -> int:
    """96 bits of (seed, prompt text). Some two of m such pairs share their noise with a chance below m^2 / 2^97: with a
    billion pairs, 7e-12."""
    digest = hashlib.blake2b(text.encode(), digest_size=12, key=int(seed).to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


@runtime_checkable
class Noise(Protocol):
    """Where a sampler's randomness comes from. Swapped in parity tests for one that makes a reference's own calls."""

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        """The execution draw: one token per position, at positions first, first + 1, ..."""
        ...

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        """Two uniforms in (0, 1) per position for the path draw, float64."""
        ...

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        """A standard Gumbel per position for the path draw, float64."""
        ...

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        """As many standard normal numbers for the condition of each row, float64."""
        ...


def draw_by_inversion(
    probabilities: Float[Tensor, "batch m codes"], uniform: Float[Tensor, "batch m"]
) -> Int[Tensor, "batch m"]:
    """Inverse-CDF draw: one uniform in (0, 1) and one cumulative sum per position.

    `probabilities` need not be normalised, but one must be above 0. They are summed in float64: sums in float32 step by
    6e-8, and codes that are rarer would be drawn too often or never. A code of probability 0 is never drawn: the search
    asks for the first cumulative sum that is strictly larger than a target below the total.
    """
    rows = rows_at_once(probabilities)
    parts = zip(probabilities.flatten(0, 1).split(rows), uniform.flatten().split(rows), strict=True)
    return torch.cat([inverted(part, targets) for part, targets in parts]).view(uniform.shape)


def rows_at_once(rows: Float[Tensor, "batch m codes"]) -> int:
    """How many distributions to handle at once: on the processor, as many as stay in its cache, so that what is
    computed on the way takes no memory of note; elsewhere as many as take half a gigabyte in float64."""
    numbers = 2**18 if rows.device.type == "cpu" else 2**26
    return max(1, min(rows.shape[0] * rows.shape[1], numbers // rows.shape[-1]))


def inverted(probabilities: Float[Tensor, "m codes"], uniform: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    if cumulative.device.type != "cpu":
        cumulative = rising(cumulative, probabilities)
    total = cumulative[..., -1]
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)


def entropy_of(log_p: Float[Tensor, "batch m codes"]) -> Float[Tensor, "batch m"]:
    """Entropy of each position's draw, nats; a few positions at a time, so that `log_p` is never copied whole."""
    parts = log_p.flatten(0, 1).split(rows_at_once(log_p))
    return torch.cat([torch.special.entr(part.exp()).sum(-1) for part in parts]).view(log_p.shape[:-1])


def rising(
    cumulative: Float[Tensor, "*rows codes"], probabilities: Float[Tensor, "*rows codes"]
) -> Float[Tensor, "*rows codes"]:
    """Cumulative sums that never fall and that rise only at codes of probability above 0.

    The processor adds in order and needs no help. A parallel scan rounds every sum in an order of its own, so that it
    can rise by a rounding error at a banned code, which could then be drawn.
    """
    return cumulative.masked_fill(probabilities == 0, 0).cummax(-1).values


@dataclass(frozen=True)
class CounterNoise:
    """The library's own noise: Philox words keyed by (seed, prompt text, index, stream, step, position).

    `keys` are those of `stream_key`, one per row of the batch; `path` and `execution` say which of a prompt's many
    paths and executions a row gets. Two rows with the same index share that stream, whatever the other does. A
    condition's noise goes with the larger of the two, which is the number of the sample while one of them varies.

    `strata`: of each block of so many executions of a prompt, at every step and position the uniforms of the draws fall
    one each into so many equal parts of (0, 1), in a random order that is another at every step and position (Latin
    hypercube sampling, McKay, Beckman and Conover, 1979). So each execution alone has independent uniforms, as ever.
    """

    keys: tuple[int, ...]
    path: tuple[int, ...]
    execution: tuple[int, ...]
    strata: int = 1

    @classmethod
    def of(
        cls, seed: int, prompts: Sequence[str], path: Sequence[int], execution: Sequence[int], strata: int = 1
    ) -> CounterNoise:
        key_of = {text: stream_key(seed, text) for text in set(prompts)}
        return cls(tuple(key_of[text] for text in prompts), tuple(path), tuple(execution), strata)

    def index(self, stream: Stream) -> Int[np.ndarray, " batch"]:
        """Which of its prompt's noises of a stream each row gets."""
        if stream == "condition":
            return np.maximum(self.path, self.execution)
        return np.array(self.path if stream == "path" else self.execution)

    def uniform(self, stream: Stream, step: int, first: int, positions: int, two: bool = False) -> np.ndarray:
        """Uniforms in (0, 1): float64 (batch, positions, 1 or 2), of 52 or twice 32 bits."""
        low, middle, high = (
            np.array([key >> bits & 0xFFFFFFFF for key in self.keys], np.uint32) for bits in (0, 32, 64)
        )
        counter = np.empty((len(self.keys), positions, 4), np.uint32)
        counter[..., 0] = np.arange(first, first + positions)
        counter[..., 1] = 4 * step + STREAMS[stream]
        counter[..., 2] = self.index(stream)[:, None]
        counter[..., 3] = high[:, None]
        words = philox4x32(counter, np.stack([low, middle], axis=-1)[:, None]).astype(np.float64)
        if two:
            return (words[..., :2] + 0.5) / 2.0**32
        return ((np.floor(words[..., :1] / 64) * 2.0**26 + np.floor(words[..., 1:2] / 64)) + 0.5) / 2.0**52

    def of_rows(self, rows: Sequence[int]) -> CounterNoise:
        """That of some rows of the batch."""
        keys, path, execution = (tuple(own[row] for row in rows) for own in (self.keys, self.path, self.execution))
        return CounterNoise(keys, path, execution, self.strata)

    def earlier_in_block(self, size: int) -> list[list[int]]:
        """Of each row the rows of all samples that come before its own among `size` consecutive ones of its prompt, in
        order: as many as its rank in that block, from 0. All of them must be there."""
        numbers = self.index("condition").tolist()
        row_of = {sample: row for row, sample in enumerate(zip(self.keys, numbers, strict=True))}
        samples = zip(self.keys, numbers, strict=True)
        return [[row_of[key, before] for before in range(number - number % size, number)] for key, number in samples]

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        uniform = self.uniform("execution", step, first, probabilities.shape[1])[..., 0]
        if self.strata > 1:
            uniform = (self.stratum(step, first, probabilities.shape[1]) + uniform) / self.strata
        return draw_by_inversion(probabilities, torch.from_numpy(uniform).to(probabilities.device))

    def stratum(self, step: int, first: int, positions: int) -> Int[np.ndarray, "batch positions"]:
        """Which of the strata each row's execution falls into, from 0: its rank among the numbers that the executions
        of its block have in the stream of the strata."""
        own = [(key, execution // self.strata) for key, execution in zip(self.keys, self.execution, strict=True)]
        blocks = {block: number for number, block in enumerate(dict.fromkeys(own))}
        members = [(key, block * self.strata + member) for key, block in blocks for member in range(self.strata)]
        keys, executions = zip(*members, strict=True)
        numbers = CounterNoise(keys, (), executions).uniform("stratum", step, first, positions)[..., 0]
        ranks = numbers.reshape(len(blocks), self.strata, positions).argsort(1).argsort(1)
        return ranks[[blocks[block] for block in own], np.array(self.execution) % self.strata]

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return torch.from_numpy(self.uniform("path", step, 0, positions, two=True)).to(device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        uniform = self.uniform("path", step, 0, positions)[..., 0]
        return torch.from_numpy(-np.log(-np.log(uniform))).to(device)

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        rows = max(1, NUMBERS_AT_ONCE // numbers)
        parts = (slice(start, start + rows) for start in range(0, len(self.keys), rows))
        some = (CounterNoise(self.keys[part], self.path[part], self.execution[part]) for part in parts)
        uniform = np.concatenate([noise.uniform("condition", step, 0, numbers)[..., 0] for noise in some])
        return torch.special.ndtri(torch.from_numpy(uniform)).to(device)


def decoder_normal(keys: Sequence[int], numbers: int) -> Float[Tensor, "keys numbers"]:
    """Standard normal numbers for a decoder, float64: of each key, of 96 bits as those of `stream_key`, as many."""
    first = (0,) * len(keys)
    return CounterNoise(tuple(keys), first, first).condition_normal(0, numbers, torch.device("cpu"))


@dataclass(frozen=True)
class TorchNoise:
    """For parity with a reference pipeline: the reference's own torch calls, in its own order, from one generator.

    The calls are those of `diffusers.AmusedScheduler.step`: `multinomial` for the draw, then `uniform_` to a float32
    Gumbel for the path. Both streams share `generator`, so a sample does depend on its batch here; `batch` is the
    number of rows.
    """

    generator: torch.Generator
    batch: int

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        flat = probabilities.float().to(self.generator.device).flatten(0, -2)
        drawn = torch.multinomial(flat, 1, generator=self.generator)
        return drawn.view(probabilities.shape[:-1]).to(probabilities.device)

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return self.rand(positions, 2).double().clamp(2.0**-25, 1 - 2.0**-25).to(device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        # The clamps are the reference's: they keep the two logarithms finite.
        uniform = self.rand(positions).clamp(1e-20)
        return (-torch.log((-torch.log(uniform)).clamp(1e-20))).double().to(device)

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        return torch.special.ndtri(self.rand(numbers).double().clamp(2.0**-25, 1 - 2.0**-25)).to(device)

    def rand(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        empty = torch.zeros(self.batch, *shape, device=self.generator.device)
        return empty.uniform_(0, 1, generator=self.generator)
