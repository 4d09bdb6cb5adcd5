"""Frozen records that travel between modules: prompts, views of a state, traces, generations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TypeGuard

from jaxtyping import Bool, Float, Int
from torch import Tensor


class DivlensError(Exception):
    """Bad input: one line that says what was expected and what came. The command line exits with code 2."""


class DivlensWarning(UserWarning):
    """What is worth knowing and changes no result: one line. The command line shows it on stderr."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an integer of any kind, but True and False, which Python takes for 1 and 0."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite real number, but True and False."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an integer
        return False


def check_whole(name: str, value: object, least: int) -> None:
    if not is_whole(value) or value < least:
        raise DivlensError(f"{name} expects a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True)
class Prompt:
    """What a user asks for. `paraphrases` are other wordings of the same meaning; `concept` names the judge's truth."""

    text: str
    paraphrases: tuple[str, ...] = ()
    concept: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DivlensError(f"a prompt expects a text, got {self.text!r}")
        if not (isinstance(self.paraphrases, tuple) and all(isinstance(text, str) for text in self.paraphrases)):
            raise DivlensError(f"paraphrases of {self.text!r} expect a tuple of texts, got {self.paraphrases!r}")
        if not isinstance(self.concept, str | None):
            raise DivlensError(f"the concept of {self.text!r} expects a text, got {self.concept!r}")
        if not self.text.strip():
            raise DivlensError("a prompt is empty: expected at least one word")
        if not all(wording.strip() for wording in self.paraphrases):
            raise DivlensError(f"a paraphrase of {self.text!r} is empty: expected at least one word")


@dataclass(frozen=True)
class View:
    """What a model is asked at one step: logits at positions [first, first + count), given a state.

    `tokens` is the state, int64 (batch, N); positions that hold nothing are `mask`. `time` is the rule's own clock
    (VQ-Diffusion's timestep, say).
    """

    step: int
    tokens: Int[Tensor, "batch n"]
    first: int
    count: int
    time: int


@dataclass(frozen=True)
class Step:
    """One step of a trace. All tensors are (batch, N); positions that were not open hold 0 (False).

    `committed`: the positions whose token was fixed by this step (for diffusion: revealed or replaced).
    `state`: the grid after the step; positions that hold nothing are the model's `mask`.
    `log_probability`: natural logarithm of the probability with which the token was drawn, after guidance and filters.
    `entropy`: conditional entropy of that draw, nats. Both are 0 where nothing was drawn.
    `path_log_probability`: (batch,), log of the path event's probability given the draws; 0 for a deterministic path,
    NaN where the rule has no closed form for it (ConfidenceUnmasking).
    """

    drawn: Bool[Tensor, "batch n"]
    committed: Bool[Tensor, "batch n"]
    tokens: Int[Tensor, "batch n"]
    state: Int[Tensor, "batch n"]
    log_probability: Float[Tensor, "batch n"]
    entropy: Float[Tensor, "batch n"]
    path_log_probability: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Trace:
    """The steps of a generation, in order; rows are samples, prompt by prompt."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Generation:
    """What `sample` returns.

    images: float32 (prompts, n, 3, H, W) in [0, 1]; tokens: int64 (prompts, n, h, w); wordings: per prompt and
    sample, the text that was given to the model; samples: their indices, which with `seed` fix the noise.
    """

    prompts: tuple[Prompt, ...]
    wordings: tuple[tuple[str, ...], ...]
    seed: int
    samples: tuple[int, ...]
    tokens: Int[Tensor, "prompts n h w"]
    images: Float[Tensor, "prompts n 3 H W"]
    trace: Trace | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
