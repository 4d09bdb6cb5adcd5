"""More diversity without retraining: the recipe that suits a model, or the paper's own (arXiv 2512.01831), at any
strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.conditions import Conditions
from divlens.experiment import columns
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.measure import ConditionResult
from divlens.experiment.measures import (
    DIVERSITY,
    FIDELITY,
    KEPT,
    ONE_SAMPLE,
    OPENNESS,
    Measure,
    named,
    notes_of,
    partial_notes,
)
from divlens.experiment.samples import Samples, unread, wordings_in, write_samples
from divlens.experiment.workers import check_on_ray, on_workers
from divlens.fidelity.breakage import FidelityChange, fidelity_change
from divlens.fidelity.notes import UNSEEN, fall_text, fall_warnings, judged_note
from divlens.interventions import Intervention, described, templated
from divlens.lab.reading import all_read
from divlens.models.answers import asked_prompts, loaded_model, pictures_of
from divlens.models.protocol import Model
from divlens.models.room import Room
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress
from divlens.recipes import DETAILED, PAPER, recipe_at
from divlens.results import Result, finished, found_of
from divlens.sheets import write_pictures
from divlens.showing import Block, counted, interval_text, missing_intervals
from divlens.statistics import Interval
from divlens.store.folder import RunFolder, run_for
from divlens.types import DrawnWith, Prompt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Side:
    """Before or after: what was drawn, and what was measured of it. Pictures are not kept, but made of the tokens."""

    model: Model = field(repr=False)
    prompts: tuple[Prompt, ...]
    seed: int
    result: ConditionResult = field(repr=False)
    measures: tuple[Measure, ...] = field(repr=False)

    @property
    def drawn_with(self) -> DrawnWith:
        return self.result.drawn_with

    @property
    def n(self) -> int:
        """Samples of each prompt."""
        return len(self.result.samples) // len(self.prompts)

    @property
    def wordings(self) -> tuple[tuple[str, ...], ...]:
        """Of each sample of each prompt."""
        return tuple(tuple(part.loaded().wordings) for part in self.result.samples.parts)

    @property
    def tokens(self) -> Int[Tensor, "prompts n h w"]:
        """int64."""
        parts = [part.loaded().tokens.long().view(-1, *self.model.grid) for part in self.result.samples.parts]
        return torch.stack(parts)

    def pictures_of(self, prompt: int, samples: slice = slice(None)) -> Float[Tensor, "some 3 H W"]:
        """The pictures of some samples of a prompt, which is named by its place; float32 in [0, 1]."""
        ids = self.result.samples.parts[prompt].loaded().tokens[samples].long().view(-1, *self.model.grid)
        return pictures_of(self.model, ids.to(self.drawn_with.device), Room(BATCH_SIZE))

    def pictures(self) -> Iterator[Iterator[Float[Tensor, "3 H W"]]]:
        """Prompt by prompt, picture by picture, a batch made at a time."""
        return map(self.one_by_one, range(len(self.prompts)))

    def one_by_one(self, prompt: int) -> Iterator[Float[Tensor, "3 H W"]]:
        """The pictures of a prompt, a batch made at a time."""
        for first in range(0, self.n, BATCH_SIZE):
            yield from self.pictures_of(prompt, slice(first, first + BATCH_SIZE))

    @property
    def images(self) -> Float[Tensor, "prompts n 3 H W"]:
        """All pictures, made anew at every call: for many samples ask `pictures_of` for a few at a time."""
        return torch.stack([self.pictures_of(prompt) for prompt in range(len(self.prompts))])

    def mean(self, name: str) -> Interval:
        """Mean over prompts of the measure of that name; the interval needs two prompts."""
        return named(self.measures, name).mean(self.result.column(name), self.n, self.seed)


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Enhanced(Result):
    """What `enhance` returns. `images` and `tokens` are those after; `before` and `after` hold everything.

    `images` are made of the tokens when they are asked for, so that a result of many samples is small.
    `interventions`: what is done after. `lpips`: as asked for.
    """

    model: str
    before: Side
    after: Side
    interventions: tuple[Intervention, ...]
    lpips: str

    @property
    def images(self) -> Float[Tensor, "prompts n 3 H W"]:
        return self.after.images

    @property
    def tokens(self) -> Int[Tensor, "prompts n h w"]:
        return self.after.tokens

    @property
    def drawn_with(self) -> DrawnWith:
        return self.after.drawn_with

    @property
    def samples(self) -> Samples:
        """A record of every sample, before and after."""
        return Samples((*self.before.result.samples.parts, *self.after.result.samples.parts))

    def change(self, name: str = "diversity") -> Interval:
        """Mean over prompts of after - before, paired; NaN bounds for a single prompt."""
        asked = named(self.measures, name)
        after, before = (side.result.column(name) for side in (self.after, self.before))
        return asked.change(after, before, self.after.n, self.after.seed)

    @property
    def measures(self) -> tuple[Measure, ...]:
        return self.after.measures

    @property
    def templated(self) -> tuple[str, ...]:
        """The prompts whose wordings after are templates, for they have no paraphrases."""
        return templated(self.before.prompts, self.interventions)

    @property
    def fidelity_change(self) -> FidelityChange:
        """How fidelity changed, and whether it fell: then part of the diversity is of pictures that broke."""
        before, after = (side.result.column(FIDELITY) for side in (self.before, self.after))
        return fidelity_change(before, after, self.after.n, self.after.seed)

    def known(self, name: str) -> int:
        """How many prompts have a value of a measure, before and after."""
        values = [side.result.column(name) for side in (self.before, self.after)]
        return int((~np.isnan(values[0] - values[1])).sum())

    @property
    def table(self) -> pd.DataFrame:
        """One row per figure: before, after and change, each a mean over prompts with `_low` and `_high`; prompts: how
        many have a value."""
        import pandas as pd

        rows: list[dict[str, object]] = []
        for name in (each.name for each in self.measures):
            row: dict[str, object] = {"model": self.model, "figure": name, "prompts": self.known(name)}
            sides = {"before": self.before.mean(name), "after": self.after.mean(name), "change": self.change(name)}
            rows.append(row | dict(cell for side in sides.items() for cell in columns.with_ends(*side).items()))
        return pd.DataFrame(rows)

    @property
    def per_prompt(self) -> pd.DataFrame:
        """One row per prompt, before and after: the value of each measure."""
        import pandas as pd

        sides = {"before": self.before, "after": self.after}
        rows = [row for name, side in sides.items() for row in side.result.rows(self.model, name, side.prompts)]
        return pd.DataFrame(rows)

    @property
    def headline(self) -> str:
        prompts, n = counted(len(self.before.prompts), "prompt"), counted(self.before.n, "sample")
        return f"Enhanced: {self.model}, {prompts}, {n} each, seed {self.before.seed}"

    @property
    def blocks(self) -> list[Block]:
        """Before and after, the paired change, a line that sums up, and a warning where fidelity fell."""
        rows = []
        for each in self.measures:
            form, scale = each.form
            sides = [interval_text(side.mean(each.name), form, scale) for side in (self.before, self.after)]
            rows.append((each.heading, *sides, interval_text(self.change(each.name), f"+{form}", scale)))
        fall = self.fidelity_change
        warned = fall_warnings([fall_text(fall, self.after.n)] if fall.fell else [])
        return [Block(self.model, ("", "before", "after", "change"), rows, warned, [self.in_a_line])]

    @property
    def in_a_line(self) -> str:
        """Diversity and fidelity before and after."""
        parts = []
        for each in self.measures:
            if each.name in (DIVERSITY, OPENNESS, FIDELITY) and self.known(each.name):
                form, scale = each.form
                name, unit = each.heading.removesuffix(" %"), "%" if each.heading.endswith(" %") else ""
                before, after = (
                    f"{scale * side.mean(each.name).value:{form}}{unit}" for side in (self.before, self.after)
                )
                parts.append(f"{name} {before} -> {after}")
        return f"{'; '.join(parts) or 'Nothing could be measured'}."

    @property
    def notes(self) -> list[str]:
        prompts, n = len(self.before.prompts), self.before.n
        lines = [
            f"after: {described(self.interventions)}.",
            f"Means over {counted(prompts, 'prompt')}, {counted(n, 'sample')} each, same noise before and after; [95% "
            "interval over prompts]. change: after - before, paired by prompt.",
            *missing_intervals(prompts),
        ]
        if n < 2:
            lines.append(ONE_SAMPLE)
        known = self.known(FIDELITY)
        lines += judged_note(known, prompts) if known else [UNSEEN]
        unsaid = (DIVERSITY, FIDELITY, *(() if known else (OPENNESS, KEPT)))
        lines += notes_of([each for each in self.measures if each.name not in unsaid])
        lines += partial_notes(self.measures, self.known, prompts)
        return lines + wording_lines(self.templated, prompts, unread(self.samples))

    @property
    def found(self) -> Record:
        how, notes = {self.model: self.drawn_with}, unread(self.samples)
        return found_of(wordings_in(self.samples), how, wording_notes=notes, templated=self.templated)

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """before.png and after.png, every picture, the tables (see `write_tables`)."""
        (result,) = results
        write_pictures(result.before.pictures(), folder, "before")
        write_pictures(result.after.pictures(), folder, "after")
        write_tables({"table": [result.table], "per_prompt": [result.per_prompt]}, folder)

    @classmethod
    def write_samples(cls, results: Sequence[Self], folder: Path) -> None:
        (result,) = results
        write_samples(result.samples, folder / "samples.parquet")


def recipe_for(model: Model, prompts: Sequence[Prompt]) -> str:
    """The recipe that suits a model: the one that it names as its `recipe`, where that can be had for all prompts, else
    the paper's."""
    own = getattr(model, "recipe", PAPER)
    return PAPER if own == DETAILED and not all_read(prompts) else own


def sides_of(
    model: Model,
    prompts: Sequence[str | Prompt],
    recipe: str | None = None,
    strength: float = 1.0,
    disable_top: float | None = None,
) -> Conditions:
    """What is drawn: the untouched model, and the recipe; see `enhance`."""
    if recipe is None:
        recipe = recipe_for(model, asked_prompts([model], prompts)) if disable_top is None else PAPER
    return {"before": (), "after": recipe_at(recipe, strength, disable_top, getattr(model, "temperature", 1.0))}


def enhance(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 16,
    seed: int = 0,
    *,
    recipe: str | None = None,
    strength: float = 1.0,
    disable_top: float | None = None,
    measures: Sequence[str | Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Enhanced:
    """Draw `n` samples of each prompt as ever and enhanced, from the same noise, and measure both.

    `model`: a model, or the spec of one ("zoo/mim"). `recipe`: "paper", mixed-length wordings and the most used codes
    disabled (arXiv 2512.01831); "everyday", what a prompt leaves open is filled in at random, and draws are cooler;
    "detailed", the same in the words of the laboratory. None is the one that the model names as its `recipe`, and the
    paper's for a model that names none and for prompts that the laboratory cannot read.
    `strength`: in [0, 1]; 0 changes nothing. `disable_top`: the share of the codebook that the paper's recipe disables,
    0.05 unless it says otherwise; with it that recipe is meant. Prompts without paraphrases get templates around them.
    `measures`: what is measured beside LPIPS diversity, openness and fidelity, names or `divlens.Measure`. `progress`:
    True shows a bar on stderr. `on_batch` is told how many more samples, of 2 * prompts * n, are done. `out`: the
    folder of a run, and `ray`: who draws, see `divlens.probe`.
    n = 1 leaves diversity undefined (NaN). Raises DivlensError for bad input before anything is drawn.
    """
    check_on_ray(ray, out)
    known = loaded_model(model)
    conditions = sides_of(known, prompts, recipe, strength, disable_top)
    comparison = compared([known], prompts, n, seed, conditions, measures, lpips, batch_size)
    with run_for(out, comparison.request("enhance"), comparison.models) as folder:
        measured = partial(enhanced_of, comparison)
        return finished(on_workers(comparison, measured, folder, ray, progress=progress, on_batch=on_batch), folder)


def enhanced_of(
    comparison: Comparison,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Enhanced:
    """Draw and measure what is planned, one model as it is and enhanced; but for what a run's folder holds."""
    ((name, runs),) = comparison.runs.items()
    results = comparison.measured(folder, progress, on_batch)[name]
    before, after = (
        Side(runs[side].model, comparison.prompts, comparison.seed, results[side], comparison.measures)
        for side in ("before", "after")
    )
    return Enhanced(
        request=comparison.request("enhance"),
        model=name,
        before=before,
        after=after,
        interventions=tuple(comparison.conditions["after"]),
        lpips=comparison.lpips,
    )
