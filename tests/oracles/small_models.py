"""A generator written against the public protocol only: any number of positions and codes, any path rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from divlens.models.toy import word_key
from divlens.paths import PathRule, Raster
from divlens.types import View


@dataclass(frozen=True)
class Small:
    """Logits are a fixed random table of the prompt and the whole state; `sharpness` 0 is uniform."""

    rule: PathRule
    codes: int = 2
    positions: int = 3
    sharpness: float = 1.0
    guidance: float = 1.5
    seed: int = 0
    stateless: bool = False  # logits of the prompt alone
    name: str = "small"

    @property
    def mask(self) -> int:
        return self.codes

    @property
    def grid(self) -> tuple[int, int]:
        return 1, self.positions

    def encode(self, wordings: Sequence[str]) -> Tensor:
        return torch.tensor([[float(word_key(wording))] for wording in wordings], dtype=torch.float64)

    def predictor(self, conditions: Tensor, guided: bool):
        def table(key: float, state: tuple[int, ...]) -> np.ndarray:
            random = np.random.default_rng([int(key), self.seed, *(() if self.stateless else state)])
            return random.normal(size=(self.positions, self.codes)) * self.sharpness

        cache: dict[tuple, Tensor] = {}

        def logits(keys: list[float], view: View) -> Tensor:
            rows = []
            for key, state in zip(keys, view.tokens.tolist(), strict=True):
                if (key, *state) not in cache:
                    cache[key, *state] = torch.from_numpy(table(key, tuple(state)))
                rows.append(cache[key, *state])
            return torch.stack(rows)[:, view.first : view.first + view.count]

        def call(view: View):
            keys = conditions[:, 0].tolist()
            return logits(keys, view), logits([0.0] * len(keys), view) if guided else None

        return call

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].repeat(1, 3, 1, 1).float() / self.codes

    def frequencies(self) -> Tensor:
        return torch.arange(self.codes, 0, -1).double() / sum(range(self.codes + 1))

    def calibration_prompts(self) -> Sequence[str]:
        return ("a",)


def with_entropy(bits: float, codes: int) -> list[float]:
    """A law of one likely code and others alike that has this entropy, by bisection."""
    low, high = 1 / codes, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        rest = (1 - middle) / (codes - 1)
        entropy = -middle * math.log2(middle) - (codes - 1) * rest * math.log2(rest) if rest > 0 else 0.0
        low, high = (middle, high) if entropy > bits else (low, middle)
    return [high] + [(1 - high) / (codes - 1)] * (codes - 1)


@dataclass(frozen=True)
class RareFirst:
    """AR of two tokens: the first has the chances `first`, and `after` are the bits of the second, by the first.

    The same for every prompt. With the numbers as they stand samples of the first two are nearly alike.
    """

    first: tuple[float, ...] = (0.795, 0.2, 0.005)
    after: tuple[float, ...] = (0.22, 0.2202, 1.58)
    rule: PathRule = field(default_factory=lambda: Raster(2))
    guidance: float = 1.0
    name: str = "rare first"
    grid: tuple[int, int] = (1, 2)

    @property
    def codes(self) -> int:
        return len(self.first)

    @property
    def mask(self) -> int:
        return self.codes

    def encode(self, wordings: Sequence[str]) -> Tensor:
        return torch.zeros(len(wordings), 1)

    def predictor(self, conditions: Tensor, guided: bool):
        first = torch.tensor(self.first, dtype=torch.float64).log()
        second = torch.tensor([with_entropy(bits, self.codes) for bits in self.after], dtype=torch.float64).log()

        def call(view: View):
            after = second[view.tokens[:, 0].clamp(max=self.codes - 1)]
            both = torch.stack([first.expand_as(after), after], 1)[:, view.first : view.first + view.count]
            return both, both if guided else None

        return call

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].repeat(1, 3, 1, 1).float() / self.codes

    def frequencies(self) -> None:
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return ("a",)
