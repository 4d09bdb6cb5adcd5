"""One condition of one model, prompt by prompt: draw, look, judge, keep figures and tokens, drop the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, lpips_diversity
from divlens.fidelity import Judge, concept_index, fidelity, mode_coverage
from divlens.interventions import Intervention
from divlens.paraphrase import wordings_for_samples
from divlens.sampler import BATCH_SIZE, BatchSize, Encoded, check_request, sample, settings_for
from divlens.types import Generation, Prompt

FLOOR_SIGMA = 1 / 255  # one grey level
FLOOR_COPIES = 4


@dataclass(frozen=True)
class PromptFigures:
    """What was measured for one prompt. Undefined is NaN.

    diversity: LPIPS diversity, at least 0. coverage, fidelity: in [0, 1], NaN without a known concept. noise_floor:
    see `noise_floor`; NaN where it was not asked for. duplicates: see `count_duplicates`.
    """

    diversity: float
    coverage: float
    fidelity: float
    noise_floor: float
    duplicates: int


@dataclass(frozen=True)
class SampleRecord:
    """One sample: what is needed to make it again, its tokens in raster order, and the judge's verdict (or None).

    `note`: what the model did not read of the wording, or None.
    """

    model: str
    condition: str
    prompt: str
    sample: int
    seed: int
    wording: str
    tokens: tuple[int, ...]
    judged_concept: str | None
    judged_style: str | None
    note: str | None = None


@dataclass(frozen=True)
class ConditionResult:
    """One condition of one model: the figures of each prompt, and all samples, prompt by prompt."""

    figures: tuple[PromptFigures, ...]
    samples: tuple[SampleRecord, ...]

    def column(self, name: str) -> Float[np.ndarray, " prompts"]:
        """One figure of every prompt."""
        return np.array([asdict(row)[name] for row in self.figures], float)


def count_duplicates(tokens: Int[Tensor, "n h w"]) -> int:
    """How many of a prompt's samples have the same token grid as another of them; n when all are equal."""
    counts = torch.unique(tokens.flatten(1), dim=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def noise_floor(images: Float[Tensor, "n 3 h w"], network: FeatureNetwork, seed: int = 0) -> float:
    """LPIPS diversity of four copies of the first picture, each with Gaussian noise of one grey level (1/255).

    Nobody sees that noise, and rounding to 8 bits is smaller. So a diversity near this floor is no visible diversity.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = FLOOR_SIGMA * torch.randn((FLOOR_COPIES, *images.shape[1:]), generator=generator)
    return float(lpips_diversity((images[:1] + noise).clamp(0, 1)[None], network)[0])


def check_before_drawing(
    encoded: Encoded,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    interventions: Sequence[Intervention],
    batch_size: BatchSize = BATCH_SIZE,
) -> None:
    """Raise the DivlensError that `measure` would, before any time is spent: wordings, interventions, n and seed.

    What is encoded on the way is kept in `encoded`, which knows the model.
    """
    check_request(n, seed, batch_size)
    for prompt in prompts:
        encoded.of(wordings_for_samples(prompt, interventions, range(n), encoded.rewording))
    settings_for(encoded.model, interventions, encoded, batch_size)


@dataclass(frozen=True)
class Instruments:
    """What looks at the pictures. Without a judge, coverage and fidelity are NaN."""

    network: FeatureNetwork
    judge: Judge | None


def measure(
    encoded: Encoded,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    condition: tuple[str, Sequence[Intervention]],
    instruments: Instruments,
    *,
    with_noise_floor: bool = False,
    batch_size: BatchSize = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda count: None,
) -> ConditionResult:
    """Draw and look at a few prompts at a time, so that memory does not grow with their number.

    `encoded`: the model, with the conditions it shares with other measurements. `condition`: its name and its
    interventions. `on_batch` is told how many more samples are done.
    """
    model, (name, interventions) = encoded.model, condition
    together = max(1, BATCH_SIZE // n)
    parts: list[ConditionResult] = []
    for first in range(0, len(prompts), together):
        asked = prompts[first : first + together]
        drawn = sample(
            model,
            asked,
            n,
            seed,
            interventions,
            batch_size=batch_size,
            trace=False,
            encoded=encoded,
            on_batch=on_batch,
        )
        part = look(drawn, model.name, name, instruments)
        if with_noise_floor:
            floors = [noise_floor(images, instruments.network) for images in drawn.images]
            figures = [replace(row, noise_floor=floor) for row, floor in zip(part.figures, floors, strict=True)]
            part = replace(part, figures=tuple(figures))
        parts.append(part)
    return ConditionResult(
        figures=tuple(row for part in parts for row in part.figures),
        samples=tuple(record for part in parts for record in part.samples),
    )


def look(drawn: Generation, model: str, condition: str, instruments: Instruments) -> ConditionResult:
    """The figures of every prompt of a generation, and a record of each of its samples."""
    figures: list[PromptFigures] = []
    samples: list[SampleRecord] = []
    diversity = lpips_diversity(drawn.images, instruments.network).tolist()
    for index, prompt in enumerate(drawn.prompts):
        coverage, right, names = verdicts(drawn.images[index], prompt, instruments.judge)
        duplicates = count_duplicates(drawn.tokens[index])
        figures.append(PromptFigures(diversity[index], coverage, right, math.nan, duplicates))
        samples.extend(
            SampleRecord(
                model=model,
                condition=condition,
                prompt=prompt.text,
                sample=drawn.samples[i],
                seed=drawn.seed,
                wording=drawn.wordings[index][i],
                tokens=tuple(drawn.tokens[index, i].flatten().tolist()),
                judged_concept=names[i][0],
                judged_style=names[i][1],
                note=drawn.notes.get(drawn.wordings[index][i]),
            )
            for i in range(len(names))
        )
    return ConditionResult(tuple(figures), tuple(samples))


def verdicts(
    images: Float[Tensor, "n 3 h w"], prompt: Prompt, judge: Judge | None
) -> tuple[float, float, Sequence[tuple[str | None, str | None]]]:
    """Mode coverage and fidelity of a prompt's pictures, and the concept and style that each shows."""
    if judge is None:
        return math.nan, math.nan, [(None, None)] * len(images)
    judged, concept = judge(images), concept_index(judge, prompt)
    coverage = mode_coverage(judged, concept, judge.existing)
    best, style = judged.concept[:, 0].tolist(), judged.style.tolist()
    names = [
        (judge.concepts[int(c)], judge.styles[int(s)] if s >= 0 else None) for c, s in zip(best, style, strict=True)
    ]
    return coverage, fidelity(judged, concept), names
