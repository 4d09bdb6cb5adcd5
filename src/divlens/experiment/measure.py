"""One condition of one model: draw, look, judge, keep figures and tokens, and drop the pictures batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, lpips_diversity
from divlens.experiment.columns import DUPLICATES, NOISE_FLOOR, OF_PROMPT
from divlens.experiment.measures import Gauge, Look, Measure, usual_measures
from divlens.experiment.samples import PromptSamples, Samples
from divlens.fidelity import Judge
from divlens.pictures import checked_pictures
from divlens.progress import OnBatch
from divlens.run import Filled, Run, fill, wording_notes
from divlens.types import DrawnWith, Prompt

IMAGES_PER_PASS = 32  # of the feature network and the judge; it bounds memory
FLOOR_SIGMA = 1 / 255  # one grey level
FLOOR_COPIES = 4


@dataclass(frozen=True)
class ConditionResult:
    """One condition of one model: the figures of each prompt, all samples prompt by prompt, and how they were drawn.

    A prompt's figures are the value of each measure by its name; "noise_floor", see `noise_floor`, NaN where it was not
    asked for; and "duplicates", see `count_duplicates`.
    """

    figures: tuple[Mapping[str, float], ...]
    samples: Samples
    drawn_with: DrawnWith

    def column(self, name: str) -> Float[np.ndarray, " prompts"]:
        """One figure of every prompt."""
        return np.array([row[name] for row in self.figures], float)

    def rows(self, model: str, condition: str, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """The figures of each prompt as a row of a table, which begins with whose they are."""
        named = zip(prompts, self.figures, strict=True)
        return [dict(zip(OF_PROMPT, (model, condition, one.text), strict=True)) | dict(found) for one, found in named]


def count_duplicates(tokens: Int[Tensor, "n *grid"]) -> int:
    """How many of a prompt's samples have the same token grid as another of them; n when all are equal."""
    counts = torch.unique(tokens.flatten(1), dim=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())


@no_type_check  # it checks its input itself; the shapes are for readers
def noise_floor(images: Float[Tensor, "n 3 h w"], network: FeatureNetwork, seed: int = 0) -> float:
    """LPIPS diversity of four copies of the first picture, each with Gaussian noise of one grey level (1/255).

    Nobody sees that noise, and rounding to 8 bits is smaller. So a diversity near this floor is no visible diversity.
    Raises PictureError for what are no pictures in [0, 1].
    """
    images = checked_pictures(images, "images", "n")
    generator = torch.Generator().manual_seed(seed)
    noise = FLOOR_SIGMA * torch.randn((FLOOR_COPIES, *images.shape[1:]), generator=generator)
    return float(lpips_diversity((images[:1] + noise).clamp(0, 1)[None], network)[0])


@dataclass(frozen=True)
class Instruments:
    """What looks at the pictures of a model, and what is measured of them."""

    network: FeatureNetwork
    judge: Judge | None
    measures: tuple[Measure, ...]

    @classmethod
    def of(cls, network: FeatureNetwork, judge: Judge | None, extra: Sequence[Measure] = ()) -> Instruments:
        return cls(network, judge, (*usual_measures(judge), *extra))


def measure(
    run: Run,
    condition: str,
    instruments: Instruments,
    *,
    with_noise_floor: bool = False,
    on_batch: OnBatch = lambda count: None,
) -> ConditionResult:
    """Draw and look batch by batch. Memory grows with the samples by their tokens and records only: of pictures, two
    batches are held at most.

    `condition`: the name of the one that the run is drawn under. `on_batch` is told how many more samples are done.
    """
    model, n = run.model, len(run.wordings[0])
    figures, parts = [], []
    looked = by_prompt(looks(fill(run), instruments, on_batch), run.prompts, n, instruments, with_noise_floor)
    for prompt, seen, wordings in zip(run.prompts, looked, run.wordings, strict=True):
        found = {name: gauge.value() for name, gauge in seen.gauges.items()}
        figures.append(found | {NOISE_FLOOR: seen.floor, DUPLICATES: count_duplicates(seen.tokens)})
        whose = (model.name, condition, prompt.text, run.seed)
        judged = names_of(seen.readings, n, instruments.judge)
        parts.append(PromptSamples(*whose, seen.tokens, wordings, judged, wording_notes(model, wordings)))
    return ConditionResult(tuple(figures), Samples(tuple(parts)), run.drawn_with)


@dataclass(frozen=True)
class Pass:
    """What is seen of a few pictures that are drawn one after the other, whatever their prompts."""

    pictures: Float[Tensor, "some 3 h w"]
    tokens: Int[Tensor, "some positions"]
    features: Float[Tensor, "some features"]
    readings: Int[Tensor, "some attributes"] | None

    def look(self, prompt: Prompt, first: int, last: int) -> Look:
        """Of those of one prompt."""
        readings = None if self.readings is None else self.readings[first:last]
        return Look(prompt, self.pictures[first:last], self.features[first:last], readings)


@dataclass(frozen=True)
class Looked:
    """What is kept of all pictures of a prompt."""

    tokens: Int[Tensor, "n positions"]
    gauges: Mapping[str, Gauge]
    readings: Int[Tensor, "n attributes"] | None
    floor: float


def looks(
    drawn: Iterable[Filled[None]], instruments: Instruments, on_batch: OnBatch, at_once: int = IMAGES_PER_PASS
) -> Iterator[Pass]:
    """A few pictures after the other, whatever their prompts, so that few samples of a prompt fill a pass, too."""
    network, judge = instruments.network, instruments.judge
    for filled in drawn:
        model = filled.run.model
        small = torch.int16 if model.codes <= 2**15 else torch.int32
        pictures, tokens = filled.pictures(), filled.tokens.flatten(1).to("cpu", small)
        network.check_size(pictures, f"pictures of {model.name}")
        for some, ids in zip(pictures.split(at_once), tokens.split(at_once), strict=True):
            with torch.inference_mode():
                features = network(some.to(network.device))
            yield Pass(some, ids, features, None if judge is None else judge(some))
        on_batch(len(filled.rows))


def by_prompt(
    passes: Iterable[Pass], prompts: Sequence[Prompt], n: int, instruments: Instruments, with_floor: bool
) -> Iterator[Looked]:
    """Passes over all pictures to what is kept of each prompt's `n`.

    It is written into tensors that are made at once: small ones in between the pictures would keep the memory that
    these leave from being used again.
    """
    remaining, done, floor = iter(prompts), 0, math.nan
    gauges: Mapping[str, Gauge] = {}
    tokens, readings = torch.empty(0), None
    prompt = next(remaining)
    for some in passes:
        first = 0
        while first < len(some.tokens):
            if not done:
                gauges = {measure.name: measure.gauge(prompt) for measure in instruments.measures}
                tokens = some.tokens.new_empty(n, some.tokens.shape[1])
                readings = None if some.readings is None else some.readings.new_empty(n, some.readings.shape[1])
                floor = noise_floor(some.pictures[first:], instruments.network) if with_floor else math.nan
            last = min(first + n - done, len(some.tokens))
            look, here = some.look(prompt, first, last), slice(done, done + last - first)
            tokens[here] = some.tokens[first:last]
            if readings is not None and look.readings is not None:
                readings[here] = look.readings
            for gauge in gauges.values():
                gauge.add(look)
            done, first = done + last - first, last
            if done == n:
                yield Looked(tokens, gauges, readings, floor)
                done, prompt = 0, next(remaining, prompt)


def names_of(
    readings: Int[Tensor, "n attributes"] | None, n: int, judge: Judge | None
) -> Sequence[tuple[str, ...] | None]:
    """What is read in each of a prompt's `n` pictures, a word for each attribute; None where nobody reads."""
    if readings is None or judge is None:
        return [None] * n
    words = [attribute.values for attribute in judge.attributes]
    return [tuple(of[i] for of, i in zip(words, row, strict=True)) for row in readings.tolist()]
