"""Frozen records that travel between modules: prompts, views of a state, steps and traces, what was drawn with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, check_text

# How devices without an error of their own say that there is no room: the processor, Apple's GPU, CUDA's libraries.
NO_ROOM = ("DefaultCPUAllocator", "MPS backend out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device, any that torch knows, had no room left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_ROOM)


def written(record: Any, *rare: str) -> str:
    """A dataclass as Python writes it, but without the fields `rare` where these are as usual: so names of conditions
    stay short, and what a stored run says was done means the same as ever."""
    parts = ((field.name, getattr(record, field.name), field.default) for field in fields(record))
    shown_parts = [f"{name}={value!r}" for name, value, usual in parts if name not in rare or value != usual]
    return f"{type(record).__name__}({', '.join(shown_parts)})"


@dataclass(frozen=True)
class Prompt:
    """What a user asks for. `paraphrases` are other wordings of the same meaning; `concept` names the judge's truth.

    Raises DivlensError for what is no text or no Unicode, and for an empty text.
    """

    text: str
    paraphrases: tuple[str, ...] = ()
    concept: str | None = None

    def __post_init__(self) -> None:
        check_text("a prompt", self.text)
        if not (isinstance(self.paraphrases, tuple) and all(isinstance(text, str) for text in self.paraphrases)):
            raise DivlensError(f"paraphrases of {self.text!r} expect a tuple of texts, got {self.paraphrases!r}")
        for wording in self.paraphrases:
            check_text(f"a paraphrase of {self.text!r}", wording)
        if self.concept is not None:
            check_text(f"the concept of {self.text!r}", self.concept)
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
    NaN where the rule has no closed form for it (ConfidenceUnmasking, ChooseThenSample).
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
class Repulsion:
    """`strength`: nats. `among`: how many consecutive samples of a prompt keep apart. See `methods.RepulseTokens`."""

    strength: float
    among: int


@dataclass(frozen=True)
class DrawnWith:
    """What a sample may depend on beside its noise, for logits are rounded in another way on another device, in another
    precision and, of most models, in another batch.

    device: where the loop ran, as torch names it. dtype: what the model computes in ("float32"), None where it does not
    say. batch_size: samples at once, at most. compiled: whether `torch.compile` made a part of the model.
    """

    device: str
    dtype: str | None
    batch_size: int
    compiled: bool = False
