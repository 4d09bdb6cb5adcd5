"""A generator written against the public protocol only: any number of positions and codes, any path rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from divlens.models.toy import word_key
from divlens.paths import PathRule
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
