"""One condition of one model, prompt by prompt: draw, look, judge, keep figures and tokens, drop the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, lpips_diversity
from divlens.fidelity import Judge, fidelity, mode_coverage
from divlens.interventions import Intervention
from divlens.models.protocol import Model
from divlens.sampler import BATCH_SIZE, sample
from divlens.types import DivlensError, Generation, Prompt

FIGURES = ("diversity", "coverage", "fidelity", "noise_floor", "duplicates")
FLOOR_SIGMA = 1 / 255  # one grey level


@dataclass(frozen=True)
class PromptFigures:
    """What was measured for one prompt. Undefined is NaN.

    diversity: LPIPS diversity. coverage, fidelity: in [0, 1], NaN without a known concept. noise_floor: the LPIPS
    diversity of copies of one picture that differ by noise of one grey level. duplicates: how many samples repeat the
    token grid of an earlier one.
    """

    diversity: float
    coverage: float
    fidelity: float
    noise_floor: float
    duplicates: float


@dataclass(frozen=True)
class SampleRecord:
    """One sample: what is needed to make it again, its tokens in raster order, and the judge's verdict (or None)."""

    model: str
    condition: str
    prompt: str
    sample: int
    seed: int
    wording: str
    tokens: tuple[int, ...]
    judged_concept: str | None
    judged_style: str | None


@dataclass(frozen=True)
class ConditionResult:
    figures: tuple[PromptFigures, ...]
    samples: tuple[SampleRecord, ...]


def count_duplicates(tokens: Int[Tensor, "n h w"]) -> int:
    """Samples whose token grid an earlier sample of the same prompt has."""
    return len(tokens) - len(torch.unique(tokens.flatten(1), dim=0))


def noise_floor(images: Float[Tensor, "n 3 h w"], network: FeatureNetwork, seed: int = 0) -> float:
    """LPIPS diversity of the first picture and three copies of it with Gaussian noise of one grey level.

    A difference in diversity that is not well above this floor is not visible.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = FLOOR_SIGMA * torch.randn((4, *images.shape[1:]), generator=generator)
    return float(lpips_diversity((images[:1] + noise).clamp(0, 1)[None], network)[0])


def measure(
    model: Model,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    condition: str,
    interventions: Sequence[Intervention],
    network: FeatureNetwork,
    judge: Judge | None,
    floor: bool,
    on_batch: Callable[[int], None],
) -> ConditionResult:
    """A few prompts at a time, so that memory does not grow with their number."""
    together = max(1, BATCH_SIZE // n)
    figures: list[PromptFigures] = []
    samples: list[SampleRecord] = []
    for first in range(0, len(prompts), together):
        drawn = sample(
            model, prompts[first : first + together], n, seed, interventions, trace=False, on_batch=on_batch
        )
        diversity = lpips_diversity(drawn.images, network)
        for index in range(len(drawn.prompts)):
            row, records = look(drawn, index, float(diversity[index]), model.name, condition, judge)
            if floor:
                row = PromptFigures(**{**vars(row), "noise_floor": noise_floor(drawn.images[index], network)})
            figures.append(row)
            samples.extend(records)
    return ConditionResult(tuple(figures), tuple(samples))


def look(
    drawn: Generation, index: int, diversity: float, model: str, condition: str, judge: Judge | None
) -> tuple[PromptFigures, list[SampleRecord]]:
    """The figures of one prompt of a generation, and a record of each of its samples."""
    prompt, images, tokens = drawn.prompts[index], drawn.images[index], drawn.tokens[index]
    coverage = right = math.nan
    concepts: Sequence[str | None] = [None] * len(images)
    styles: Sequence[str | None] = concepts
    if judge is not None:
        judged = judge(images)
        concepts = [judge.concepts[i] for i in judged.concept[:, 0].tolist()]
        styles = [judge.styles[i] for i in judged.style.tolist()]
        known: Mapping[str, int] = {name.lower(): i for i, name in enumerate(judge.concepts)}
        concept = known.get((prompt.concept or prompt.text).lower())
        if prompt.concept is not None and concept is None:
            raise DivlensError(f"the judge does not know the concept {prompt.concept!r} of prompt {prompt.text!r}")
        if concept is not None:
            coverage, right = mode_coverage(judged, judge.existing[concept]), fidelity(judged, concept)
    records = [
        SampleRecord(
            model=model,
            condition=condition,
            prompt=prompt.text,
            sample=drawn.samples[i],
            seed=drawn.seed,
            wording=drawn.wordings[index][i],
            tokens=tuple(tokens[i].flatten().tolist()),
            judged_concept=concepts[i],
            judged_style=styles[i],
        )
        for i in range(len(images))
    ]
    return PromptFigures(diversity, coverage, right, math.nan, count_duplicates(tokens)), records
