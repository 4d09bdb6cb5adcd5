"""One condition of one model: draw, look, judge, keep figures and tokens, and drop the pictures batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, lpips_diversity
from divlens.experiment.columns import DUPLICATES, NOISE_FLOOR, OF_PROMPT
from divlens.experiment.measures import Look, Measure, usual_measures
from divlens.experiment.samples import PromptSamples, Samples, SamplesInFolder
from divlens.fidelity import Judge
from divlens.models.answers import pictures_of
from divlens.pictures import checked_pictures
from divlens.progress import OnBatch
from divlens.run import Row, Run, wording_notes
from divlens.store.cells import name_of_code
from divlens.store.draw import drawn, grids_of, windows
from divlens.store.folder import RunFolder, Scored, Verdict, of_samples
from divlens.types import DrawnWith, Prompt

SCORES_VERSION = 1  # of how figures are computed: another number makes stored ones count for nothing
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
    """What looks at the pictures of a model, and what is measured of them. `lpips`: the name of the network."""

    network: FeatureNetwork
    judge: Judge | None
    measures: tuple[Measure, ...]
    lpips: str = "stlpips"

    @classmethod
    def of(
        cls, network: FeatureNetwork, judge: Judge | None, extra: Sequence[Measure] = (), lpips: str = "stlpips"
    ) -> Instruments:
        return cls(network, judge, (*usual_measures(judge), *extra), lpips)

    @property
    def extra(self) -> tuple[Measure, ...]:
        """The measures that a user brought."""
        return self.measures[len(usual_measures(self.judge)) :]

    @property
    def identity(self) -> str:
        """What a stored figure depends on beside the samples and the name of its measure."""
        versions = dict.fromkeys(each.version for each in self.measures if each.version)
        return "/".join([str(SCORES_VERSION), self.lpips, str(name_of_code(self.judge)), *versions])

    def by_version(self) -> list[Instruments]:
        """With the measures of one version each: what is stored of them does not depend on what else is measured."""
        versions = dict.fromkeys(each.version for each in self.measures)
        return [
            replace(self, measures=tuple(each for each in self.measures if each.version == version))
            for version in versions
        ]


def figure_names(instruments: Instruments, with_noise_floor: bool) -> set[str]:
    """What is measured of the samples of a prompt."""
    return {*(each.name for each in instruments.measures), DUPLICATES, *([NOISE_FLOOR] if with_noise_floor else [])}


def measure(
    run: Run,
    condition: str,
    instruments: Instruments,
    *,
    with_noise_floor: bool = False,
    folder: RunFolder | None = None,
    on_batch: OnBatch = lambda count: None,
) -> ConditionResult:
    """Draw and look, some prompts at a time. What the `folder` of a run holds is neither drawn nor measured again.

    Of pictures, a few are held at a time. Without a folder memory grows with the samples by their tokens and records;
    with one it does not. `condition`: the name of the one that the run is drawn under. `on_batch` is told how many more
    samples are there.
    """
    n = samples_each(run)
    wanted = figure_names(instruments, with_noise_floor)
    figures, parts = [], []
    for place in windows(run, whole=n):
        tokens, scored = drawn(run, place, folder, condition, on_batch), []
        for whole, rows, here in prompt_by_prompt(run, place, tokens):
            cells = np.empty(0, np.uint64) if folder is None else folder.cells(run, rows)
            of = 0 if folder is None else of_samples(cells, instruments.identity)
            found = {} if folder is None else folder.scores(run, condition, of)
            if not found.keys() >= wanted:
                fresh = score(run, rows, here, instruments, with_noise_floor)
                found |= fresh.figures
                scored.append(replace(fresh, of=of, cells=cells))
            floor, duplicates = found.get(NOISE_FLOOR, math.nan), int(found[DUPLICATES])
            measured = {each.name: found[each.name] for each in instruments.measures}
            figures.append(measured | {NOISE_FLOOR: floor, DUPLICATES: duplicates})
            whose = (run.model.name, condition, rows[0].prompt.text, run.seed)
            notes = wording_notes(run.model, [row.wording for row in rows])
            if folder is None:
                wordings = [row.wording for row in rows]
                parts.append(PromptSamples(*whose, here, wordings, scored[-1].verdicts, notes))
            else:
                parts.append(SamplesInFolder(*whose, folder, run, whole, of, notes))
        if folder is not None and scored:
            folder.add_scores(run, condition, scored)
    return ConditionResult(tuple(figures), Samples(tuple(parts)), run.drawn_with)


def samples_each(run: Run) -> int:
    """How many samples each prompt of a run has that was planned with as many of all."""
    return len(run.rows) // len(run.prompts)


def prompt_by_prompt(
    run: Run, place: slice, tokens: Int[Tensor, "rows positions"]
) -> Iterator[tuple[slice, Sequence[Row], Int[Tensor, "n positions"]]]:
    """The place, the rows and the tokens of each prompt among some rows of a run, which are of whole prompts."""
    n = samples_each(run)
    for first in range(place.start, place.stop, n):
        whole = slice(first, first + n)
        yield whole, run.rows[whole], tokens[first - place.start :][:n]


def score(
    run: Run,
    rows: Sequence[Row],
    tokens: Int[Tensor, "n positions"],
    instruments: Instruments,
    with_noise_floor: bool,
) -> Scored:
    """Decode all samples of a prompt and measure them, and keep what the judge reads in each."""
    prompt, floor = rows[0].prompt, math.nan
    verdicts: list[Verdict] = []

    def seen() -> Iterator[Look]:
        nonlocal floor
        for look in looks(run, prompt, tokens, instruments):
            if with_noise_floor and not verdicts:
                instruments.network.check_size(look.pictures, f"pictures of {run.model.name}")
                floor = noise_floor(look.pictures, instruments.network)
            verdicts.extend(names_of(look.readings, len(look.pictures), instruments.judge))
            yield look

    found = values_of(instruments.measures, prompt, tokens, seen())
    found |= {DUPLICATES: float(count_duplicates(tokens))} | ({NOISE_FLOOR: floor} if with_noise_floor else {})
    return Scored(prompt.text, len(rows), 0, found, verdicts)


def looks(run: Run, prompt: Prompt, tokens: Int[Tensor, "n positions"], instruments: Instruments) -> Iterator[Look]:
    """The pictures of a prompt's samples, a few at a time: always the same few, so that figures do not depend on how
    they were drawn."""
    for first in range(0, len(tokens), IMAGES_PER_PASS):
        part = tokens[first : first + IMAGES_PER_PASS]
        pictures = pictures_of(run.model, grids_of(run, part), run.rooms.decoding)
        yield Look(prompt, pictures, run.model.name, instruments.network, instruments.judge, first)


def values_of(
    measures: Sequence[Measure], prompt: Prompt, tokens: Int[Tensor, "n positions"], seen: Iterable[Look]
) -> dict[str, float]:
    """Each measure of a prompt's samples, by its name. Nothing is looked at where tokens are all that is needed."""
    gauges = {each.name: each.gauge(prompt) for each in measures if each.kind != "tokens"}
    if gauges:
        for look in seen:
            for gauge in gauges.values():
                gauge.add(look)
    return {
        each.name: gauges[each.name].value() if each.name in gauges else float(each.of(tokens)) for each in measures
    }


def names_of(readings: Int[Tensor, "n attributes"] | None, n: int, judge: Judge | None) -> Sequence[Verdict]:
    """What is read in each of a prompt's `n` pictures, a word for each attribute; None where nobody reads."""
    if readings is None or judge is None:
        return [None] * n
    words = [attribute.values for attribute in judge.attributes]
    return [tuple(of[i] for of, i in zip(words, row, strict=True)) for row in readings.tolist()]
