"""A lower bound on I(Z;Y), where Y is the concept that the prompt asks for. A judge reads it from the pictures.

The judge's reading R is a function of Z, so I(Z;Y) >= I(R;Y). This is at least H(Y) + E log q(Y|R) for any q (Barber
and Agakov, 2003). q is fitted on one half of the samples and scored on the other. No reading influences its own score,
so the expectation of the estimate is not too high.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.fidelity import Judge as PictureJudge
from divlens.fidelity import named_by
from divlens.information.estimates import PromptMeans
from divlens.paraphrase import LEADING_ARTICLE
from divlens.types import Prompt

PRIOR = 1.0  # pseudo-readings of each label, distributed like Y: labels absent from the fit then give no information

Judge = Callable[[Float[Tensor, "batch 3 H W"]], object]


def labels_of(judged: object, images: int) -> Int[Tensor, " batch"]:
    """A judge's answer as one label per picture. The answer may be integers, (batch,) or (batch, labels), of which the
    first is taken."""
    try:
        found = torch.as_tensor(judged)
    except (TypeError, ValueError, RuntimeError):
        raise DivlensError(f"the judge expects to give numbers as labels, got {judged!r:.80}") from None
    if found.ndim not in (1, 2) or len(found) != images or found.is_complex() or not found.numel():
        raise DivlensError(f"the judge expects a label for each of {images} pictures, got shape {tuple(found.shape)}")
    labels = (found if found.ndim == 1 else found[:, 0]).cpu()
    if not torch.equal(labels.double(), labels.long().double()):  # this is also unequal for NaN and infinity
        raise DivlensError(f"the judge expects to give whole numbers as labels, got {labels.dtype} with others")
    return labels.long()


@dataclass
class Readings:
    """The number of times that each label was read in the pictures of a prompt, for each half of the samples. The size
    does not depend on the number of samples."""

    counts: dict[tuple[int, int, int], int] = field(default_factory=Counter)

    def add(
        self, labels: Int[Tensor, " batch"], prompt: Int[np.ndarray, " batch"], group: Int[np.ndarray, " batch"]
    ) -> None:
        """Add readings. `group`: its parity determines the half to which each sample belongs."""
        for key in zip((group % 2).tolist(), prompt.tolist(), labels.tolist(), strict=True):
            self.counts[key] = self.counts.get(key, 0) + 1


def concepts_of(prompts: Sequence[Prompt], judge: Judge | None) -> list[str]:
    """Y of each prompt. It is the thing that the prompt asks for, where the judge knows it; else it is the prompt's
    `concept` or else its text. The comparison ignores leading articles, case and repeated spaces."""
    found = []
    for prompt in prompts:
        wording = thing_asked_for(judge, prompt) or prompt.concept or prompt.text
        found.append(LEADING_ARTICLE.sub("", " ".join(wording.casefold().split())))
    return found


def thing_asked_for(judge: Judge | None, prompt: Prompt) -> str | None:
    """The name of what a prompt asks for; None where the judge does not know it or is no more than a function."""
    if not isinstance(judge, PictureJudge) or (named := named_by(judge, prompt)) is None or named[0] is None:
        return None
    return judge.attributes[0].values[named[0]]


def information_per_prompt(readings: Readings, concepts: Sequence[str]) -> PromptMeans:
    """The mean information in bits that a reading gives about Y. `concepts`: Y of each prompt."""
    share = {name: concepts.count(name) / len(concepts) for name in concepts}
    seen: Counter[tuple[int, int, str]] = Counter()
    total: Counter[tuple[int, int]] = Counter()
    for (half, prompt, label), count in readings.counts.items():
        seen[half, label, concepts[prompt]] += count
        total[half, label] += count
    number, first, second = (np.zeros(len(concepts)) for _ in range(3))
    for (half, prompt, label), count in readings.counts.items():
        own, other = concepts[prompt], 1 - half
        given = (seen[other, label, own] + PRIOR * share[own]) / (total[other, label] + PRIOR)
        bits = float(np.log2(given / share[own]))
        number[prompt] += count
        first[prompt] += count * bits
        second[prompt] += count * bits**2
    mean = first / number
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(number > 1, (second - number * mean**2).clip(min=0) / (number - 1), np.nan)
    return PromptMeans(mean, variance / number, number - 1)


def read_pictures(judge: Judge, images: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, " batch"]:
    with torch.inference_mode():
        return labels_of(judge(images), len(images))
