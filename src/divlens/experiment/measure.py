"""One condition of one model: draw, look, judge, keep figures and tokens, and drop the pictures batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import no_type_check, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, FeatureSums, lpips_diversity
from divlens.fidelity import Judge, Judged, concept_index, fidelity, mode_coverage
from divlens.pictures import checked_pictures
from divlens.progress import OnBatch
from divlens.run import Filled, Run, fill, wording_notes
from divlens.types import DrawnWith, Prompt

IMAGES_PER_PASS = 32  # of the feature network and the judge; it bounds memory
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


@dataclass(frozen=True, eq=False)
class PromptSamples:
    """All samples of a prompt under one condition, as they are kept: tokens as (n, positions), in integers as small as
    their ids allow; of each sample the wording and the verdict."""

    model: str
    condition: str
    prompt: str
    seed: int
    tokens: Int[Tensor, "n positions"]
    wordings: Sequence[str]
    verdicts: Sequence[tuple[str | None, str | None]]
    notes: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.tokens)

    def record(self, sample: int) -> SampleRecord:
        wording, (concept, style) = self.wordings[sample], self.verdicts[sample]
        tokens = tuple(self.tokens[sample].tolist())
        whose = (self.model, self.condition, self.prompt)
        return SampleRecord(*whose, sample, self.seed, wording, tokens, concept, style, self.notes.get(wording))


@dataclass(frozen=True, eq=False)
class Samples(Sequence[SampleRecord]):
    """The records of all samples in order, each made when it is asked for: `parts` hold them in less memory."""

    parts: tuple[PromptSamples, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[SampleRecord]:
        return (part.record(sample) for part in self.parts for sample in range(len(part)))

    @overload
    def __getitem__(self, index: int) -> SampleRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SampleRecord]: ...
    def __getitem__(self, index: int | slice) -> SampleRecord | Sequence[SampleRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        for part in self.parts:
            if place < len(part):
                return part.record(place)
            place -= len(part)
        raise AssertionError("a range has no index beyond its end")

    def __repr__(self) -> str:
        return f"<{len(self)} samples>"


@dataclass(frozen=True)
class ConditionResult:
    """One condition of one model: the figures of each prompt, all samples prompt by prompt, and how they were drawn."""

    figures: tuple[PromptFigures, ...]
    samples: Samples
    drawn_with: DrawnWith

    def column(self, name: str) -> Float[np.ndarray, " prompts"]:
        """One figure of every prompt."""
        return np.array([asdict(row)[name] for row in self.figures], float)


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
    """What looks at the pictures. Without a judge, coverage and fidelity are NaN."""

    network: FeatureNetwork
    judge: Judge | None


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
    looked = by_prompt(looks(fill(run), instruments, on_batch), n, instruments.network, with_noise_floor)
    for seen, row, wordings in zip(looked, run.rows[::n], run.wordings, strict=True):
        coverage, right, names = verdicts(seen.judged, n, row.prompt, instruments.judge)
        diversity = seen.sums.mean_pairwise_distance()
        figures.append(PromptFigures(diversity, coverage, right, seen.floor, count_duplicates(seen.tokens)))
        whose = (model.name, condition, row.prompt.text, run.seed)
        parts.append(PromptSamples(*whose, seen.tokens, wordings, names, wording_notes(model, wordings)))
    return ConditionResult(tuple(figures), Samples(tuple(parts)), run.drawn_with)


@dataclass(frozen=True)
class Look:
    """What is seen of a few pictures that are drawn one after the other."""

    pictures: Float[Tensor, "some 3 h w"]
    tokens: Int[Tensor, "some positions"]
    features: Float[Tensor, "some features"]
    judged: Judged | None

    def part(self, first: int, last: int) -> Look:
        judged = self.judged and Judged(self.judged.concept[first:last], self.judged.style[first:last])
        return Look(self.pictures[first:last], self.tokens[first:last], self.features[first:last], judged)


@dataclass(frozen=True)
class Looked:
    """What is kept of all pictures of a prompt."""

    tokens: Int[Tensor, "n positions"]
    sums: FeatureSums
    judged: Judged | None
    floor: float


def looks(drawn: Iterable[Filled[None]], instruments: Instruments, on_batch: OnBatch) -> Iterator[Look]:
    """A few pictures after the other, whatever their prompts, so that few samples of a prompt fill a pass, too."""
    network, judge = instruments.network, instruments.judge
    for filled in drawn:
        model = filled.run.model
        small = torch.int16 if model.codes <= 2**15 else torch.int32
        pictures, tokens = filled.pictures(), filled.tokens.flatten(1).to("cpu", small)
        network.check_size(pictures, f"pictures of {model.name}")
        for some, ids in zip(pictures.split(IMAGES_PER_PASS), tokens.split(IMAGES_PER_PASS), strict=True):
            with torch.inference_mode():
                features = network(some.to(network.device))
            yield Look(some, ids, features, None if judge is None else judge(some))
        on_batch(len(filled.rows))


def by_prompt(seen: Iterable[Look], n: int, network: FeatureNetwork, with_floor: bool) -> Iterator[Looked]:
    """Looks at all pictures to what is kept of each prompt's `n`.

    It is written into tensors that are made at once: small ones in between the pictures would keep the memory that
    these leave from being used again.
    """
    sums, floor = FeatureSums.empty(), math.nan
    tokens, verdict = torch.empty(0), torch.empty(0)
    for look in seen:
        first = 0
        while first < len(look.tokens):
            part = look.part(first, first + n - sums.count)
            if not sums.count:
                tokens, verdict = part.tokens.new_empty(n, part.tokens.shape[1]), torch.empty(n, 2, dtype=torch.long)
                floor = noise_floor(part.pictures, network) if with_floor else math.nan
            here = slice(sums.count, sums.count + len(part.tokens))
            tokens[here] = part.tokens
            if part.judged is not None:
                verdict[here, 0], verdict[here, 1] = part.judged.concept[:, 0], part.judged.style
            sums = sums.merge(FeatureSums.of(part.features))
            first += len(part.tokens)
            if sums.count == n:
                yield Looked(tokens, sums, part.judged and Judged(verdict[:, :1], verdict[:, 1]), floor)
                sums = FeatureSums.empty()


def verdicts(
    judged: Judged | None, n: int, prompt: Prompt, judge: Judge | None
) -> tuple[float, float, Sequence[tuple[str | None, str | None]]]:
    """Mode coverage and fidelity of a prompt's `n` pictures, and the concept and style that each shows."""
    if judged is None or judge is None:
        return math.nan, math.nan, [(None, None)] * n
    concept = concept_index(judge, prompt)
    coverage = mode_coverage(judged, concept, judge.existing)
    best, style = judged.concept[:, 0].tolist(), judged.style.tolist()
    shown = list(zip(best, style, strict=True))
    names = {(c, s): (judge.concepts[int(c)], judge.styles[int(s)] if s >= 0 else None) for c, s in set(shown)}
    return coverage, fidelity(judged, concept), [names[pair] for pair in shown]
