"""A generator small enough to enumerate: 3 positions, 3 codes, all three families.

Its logits are a fixed random but smooth function of the prompt and the whole state, so every estimator can be held
against brute force. `toy/mim:7` is the toy whose weights come from seed 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.fingerprint import all_but
from divlens.models.loading import CPU, Options
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster
from divlens.types import View

Family = Literal["ar", "mim", "diffusion"]
POSITIONS = 3
CODES = 3
WIDTH = 6  # of a condition and of the hidden layer
LONGEST = 32  # words of a prompt
DIGITS = 20  # of a seed
PIXELS = 32  # a token's patch
STEPS = 4  # of the diffusion
SHARPNESS = 0.7  # of the logits: high enough that codes differ in use, low enough that all are drawn


def diffusion_rule() -> MaskReplaceDiffusion:
    """Linear masking; of the unmasked tokens up to a third is random, so that every kind of event occurs."""
    times = [step / STEPS for step in range(STEPS + 1)]
    return MaskReplaceDiffusion(kept=tuple((1 - t) * (1 - t / 3) for t in times), masked=tuple(times), codes=CODES)


RULES: dict[Family, PathRule] = {
    "ar": Raster(POSITIONS),
    "mim": ConfidenceUnmasking(steps=3, temperature=(2.0, 0.0)),
    "diffusion": diffusion_rule(),
}


@dataclass(frozen=True)
class Weights:
    """states: what each position's token (the mask included) adds to the hidden layer; out: from there to logits."""

    states: Float[Tensor, "n codes_and_mask d"]
    out: Float[Tensor, "n codes d"]


@cache
def weights(seed: int) -> Weights:
    random = np.random.default_rng(seed)
    states = random.normal(size=(POSITIONS, CODES + 1, WIDTH))
    out = random.normal(size=(POSITIONS, CODES, WIDTH)) * SHARPNESS
    return Weights(torch.from_numpy(states), torch.from_numpy(out))


def word_key(word: str) -> int:
    """The seed of a word's vector, 32 bits. No key of the noise: the law of a toy stays when those change."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")


@dataclass(frozen=True)
class ToyPredictor:
    """logits = out . tanh(condition + sum of the states' vectors), float64; the unconditional branch has condition 0.

    Products and sums are taken row by row, never by a matrix product: a row's logits must not depend on its batch.
    """

    weights: Weights
    conditions: Float[Tensor, "batch d"]
    guided: bool

    def __call__(self, view: View) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
        positions = torch.arange(POSITIONS, device=view.tokens.device)
        state = self.weights.states[positions, view.tokens].sum(1)
        out = self.weights.out[view.first : view.first + view.count]

        def logits(condition: Tensor) -> Tensor:
            return (torch.tanh(condition + state)[:, None, None, :] * out).sum(-1)

        return logits(self.conditions), logits(torch.zeros_like(self.conditions)) if self.guided else None


@dataclass(frozen=True)
class ToyModel:
    """A toy of one family. Prompts are bags of words; each token is shown as a patch of one colour."""

    family: Family
    rule: PathRule
    seed: int = 0
    device: str = "cpu"
    guidance: float = 1.5
    codes: int = CODES
    mask: int = CODES
    grid: tuple[int, int] = (1, POSITIONS)

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "device")

    @property
    def name(self) -> str:
        return f"toy/{self.family}:{self.seed}"

    def encode(self, wordings: Sequence[str]) -> Float[Tensor, "wordings d"]:
        """The mean of the words' fixed random vectors. Raises DivlensError above LONGEST words."""
        rows = []
        for wording in wordings:
            words = wording.lower().split()
            if len(words) > LONGEST:
                raise DivlensError(f"{self.name} reads at most {LONGEST} words, got {len(words)}: {wording[:40]!r}...")
            vectors = [np.random.default_rng(word_key(word)).normal(size=WIDTH) for word in words]
            rows.append(np.mean(vectors, axis=0))
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def predictor(self, conditions: Float[Tensor, "batch d"], guided: bool) -> ToyPredictor:
        own = weights(self.seed)
        return ToyPredictor(Weights(own.states.to(self.device), own.out.to(self.device)), conditions, guided)

    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        """Code c is pure red, green or blue: pictures (batch, 3, 32, 96)."""
        patches = torch.eye(3)[tokens.cpu()].movedim(-1, 1)
        return patches.repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)

    def frequencies(self) -> None:
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return ("red heart", "a cat", "blue sky over the sea", "three green apples")


def load(family: Family, checkpoint: str | None, options: Options) -> ToyModel:
    """The toy whose weights come from the seed `checkpoint` (0 when it is None)."""
    if checkpoint is not None and not (checkpoint.isdecimal() and len(checkpoint) <= DIGITS):
        raise DivlensError(f"toy/{family} expects a seed of up to {DIGITS} digits after the colon, got {checkpoint!r}")
    options.only_device(f"toy/{family}")
    return ToyModel(family, RULES[family], seed=int(checkpoint or 0), device=options.device)


def load_ar(checkpoint: str | None = None, options: Options = CPU) -> ToyModel:
    return load("ar", checkpoint, options)


def load_mim(checkpoint: str | None = None, options: Options = CPU) -> ToyModel:
    return load("mim", checkpoint, options)


def load_diffusion(checkpoint: str | None = None, options: Options = CPU) -> ToyModel:
    return load("diffusion", checkpoint, options)
