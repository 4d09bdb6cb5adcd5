"""More diversity without retraining: mixed-length wordings and the most used codes disabled (arXiv 2512.01831)."""

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

from divlens.conditions import Conditions, enhancer
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
from divlens.interventions import templated
from divlens.models.answers import loaded_model, pictures_of
from divlens.models.protocol import Model
from divlens.models.room import Room
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress
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

    `images` are made of the tokens when they are asked for, so that a result of many samples is small. `disable_top`,
    `lpips`: as asked for.
    """

    model: str
    before: Side
    after: Side
    disable_top: float
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
        return templated(self.before.prompts, enhancer())

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
        """Before and after, the paired change, and a warning where fidelity fell."""
        rows = []
        for each in self.measures:
            form, scale = each.form
            sides = [interval_text(side.mean(each.name), form, scale) for side in (self.before, self.after)]
            rows.append((each.heading, *sides, interval_text(self.change(each.name), f"+{form}", scale)))
        fall = self.fidelity_change
        warned = fall_warnings([fall_text(fall, self.after.n)] if fall.fell else [])
        return [Block(self.model, ("", "before", "after", "change"), rows, warned)]

    @property
    def notes(self) -> list[str]:
        prompts, n = len(self.before.prompts), self.before.n
        lines = [
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


def sides(disable_top: float = 0.05) -> Conditions:
    """What is drawn: the untouched model, and the enhancer."""
    return {"before": (), "after": enhancer(disable_top)}


def enhance(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 16,
    seed: int = 0,
    *,
    disable_top: float = 0.05,
    measures: Sequence[str | Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Enhanced:
    """Draw `n` samples of each prompt without and with the enhancer, from the same noise, and measure both.

    `model`: a model, or the spec of one ("zoo/mim"). Prompts without paraphrases get templates around them.
    `measures`: what is measured beside LPIPS diversity, openness and fidelity, names or `divlens.Measure`. `progress`:
    True shows a bar on stderr. `on_batch` is told how many more samples, of 2 * prompts * n, are done. `out`: the
    folder of a run, and `ray`: who draws, see `divlens.probe`.
    n = 1 leaves diversity undefined (NaN). Raises DivlensError for bad input before anything is drawn.
    """
    check_on_ray(ray, out)
    comparison = compared([loaded_model(model)], prompts, n, seed, sides(disable_top), measures, lpips, batch_size)
    with run_for(out, comparison.request("enhance"), comparison.models) as folder:
        measured = partial(enhanced_of, comparison, disable_top)
        return finished(on_workers(comparison, measured, folder, ray, progress=progress, on_batch=on_batch), folder)


def enhanced_of(
    comparison: Comparison,
    disable_top: float,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Enhanced:
    """Draw and measure what is planned, one model under `sides(disable_top)`; but for what a run's folder holds."""
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
        disable_top=disable_top,
        lpips=comparison.lpips,
    )
