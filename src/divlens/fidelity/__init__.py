"""Whether a picture shows what was asked for: the judge's verdicts, prompt fidelity and mode coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.protocol import Model
from divlens.models.zoo.lexicon import asked_concept
from divlens.types import Prompt


@dataclass(frozen=True)
class Judged:
    """`concept`: int64 (batch, k), the k most likely concepts, best first. `style`: int64 (batch,), -1
    when no style is clear."""

    concept: Int[Tensor, "batch k"]
    style: Int[Tensor, " batch"]


@runtime_checkable
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


def shows(judged: Judged, concept: int) -> Bool[Tensor, " batch"]:
    """Which pictures show the concept: it is their most likely one. The share of them is the prompt fidelity."""
    return judged.concept[:, 0] == concept


def mode_coverage(judged: Judged, concept: int | None, existing: Bool[np.ndarray, "concepts styles"]) -> float:
    """Share of the styles that exist for a concept which come out at least once, in [0, 1]; NaN when none exists.

    A picture counts only when it shows the concept in a clear style. It grows with the number of pictures: compare it
    at equal n only.
    """
    if concept is None:
        return math.nan
    return share_seen(styles_shown(judged, concept, existing.shape[1]), existing[concept])


def styles_shown(judged: Judged, concept: int, styles: int) -> Bool[np.ndarray, " styles"]:
    """In which of so many styles some picture shows the concept clearly."""
    seen = np.zeros(styles, bool)
    seen[judged.style[shows(judged, concept) & (judged.style >= 0)].cpu().numpy()] = True
    return seen


def share_seen(seen: Bool[np.ndarray, " styles"], existing: Bool[np.ndarray, " styles"]) -> float:
    """The share of the existing styles that were seen; NaN when none exists."""
    return float((seen & existing).sum() / existing.sum()) if existing.any() else math.nan


def judge_of(model: Model) -> Judge | None:
    """The judge that a model declares as its `judge`: one itself, or the name of one that comes with the package; None
    where it declares none, for then there is no ground truth. Raises DivlensError for an unknown name."""
    declared = getattr(model, "judge", None)
    if not isinstance(declared, str):
        if declared is not None and not (callable(declared) and isinstance(declared, Judge)):
            raise DivlensError(
                f"{model.name} expects to declare a judge with concepts, styles and existing, got {declared!r:.40}"
            )
        return declared
    if declared != "zoo":
        raise DivlensError(f"{model.name} expects to declare a judge or the name of one, zoo, got {declared!r:.40}")
    from divlens.fidelity.judge import load_judge

    return load_judge()
