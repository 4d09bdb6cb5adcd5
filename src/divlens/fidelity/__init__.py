"""Whether a picture shows what was asked for: the judge's verdicts, prompt fidelity and mode coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.models.zoo.lexicon import asked_concept
from divlens.types import Prompt


@dataclass(frozen=True)
class Judged:
    """`concept`: int64 (batch, k), the k most likely concepts, best first. `style`: int64 (batch,), -1
    when no style is clear."""

    concept: Int[Tensor, "batch k"]
    style: Int[Tensor, " batch"]


class Judge(Protocol):
    """Names concept and style of pictures. `existing[c, s]`: there is real art of concept c in style s."""

    @property
    def concepts(self) -> Sequence[str]: ...
    @property
    def styles(self) -> Sequence[str]: ...
    @property
    def existing(self) -> Bool[np.ndarray, "concepts styles"]: ...

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Judged: ...


def concept_index(judge: Judge, prompt: Prompt) -> int | None:
    """Which of the judge's concepts a prompt asks for, see `asked_concept`; None when the judge knows none."""
    return asked_concept(prompt.text, prompt.concept, judge.concepts)


def fidelity(judged: Judged, concept: int | None) -> float:
    """Share of the pictures whose most likely concept is the one asked for, in [0, 1]; NaN for no concept."""
    if concept is None:
        return math.nan
    return float((judged.concept[:, 0] == concept).double().mean())


def mode_coverage(judged: Judged, concept: int | None, existing: Bool[np.ndarray, "concepts styles"]) -> float:
    """Share of the styles that exist for a concept which come out at least once, in [0, 1]; NaN when none exists.

    A picture counts only when it shows the concept in a clear style. It grows with the number of pictures: compare it
    at equal n only.
    """
    if concept is None or not existing[concept].any():
        return math.nan
    existing = existing[concept]
    seen = np.zeros(len(existing), bool)
    seen[judged.style[(judged.concept[:, 0] == concept) & (judged.style >= 0)].cpu().numpy()] = True
    return float((seen & existing).sum() / existing.sum())
