"""More diversity without retraining: mixed-length wordings and the most used codes disabled (arXiv 2512.01831)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import load_network
from divlens.experiment.columns import with_ends
from divlens.experiment.measure import ConditionResult, Instruments, measure
from divlens.experiment.measures import Measure, checked_measures, named
from divlens.experiment.probe import Conditions, enhancer, undefined
from divlens.fidelity import judge_of
from divlens.fidelity.breakage import FidelityChange, fidelity_change
from divlens.interventions import templated
from divlens.models.answers import loaded_model, pictures_of
from divlens.models.protocol import Model
from divlens.models.room import Room
from divlens.planning import BATCH_SIZE, BatchSize, plans
from divlens.progress import OnBatch, followed
from divlens.prompts import distinct_prompts
from divlens.showing import Shown, counted, with_intervals
from divlens.statistics import Interval
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
        return tuple(tuple(part.wordings) for part in self.result.samples.parts)

    @property
    def tokens(self) -> Int[Tensor, "prompts n h w"]:
        """int64."""
        parts = [part.tokens.long().view(-1, *self.model.grid) for part in self.result.samples.parts]
        return torch.stack(parts)

    def pictures_of(self, prompt: int, samples: slice = slice(None)) -> Float[Tensor, "some 3 H W"]:
        """The pictures of some samples of a prompt, which is named by its place; float32 in [0, 1]."""
        ids = self.result.samples.parts[prompt].tokens[samples].long().view(-1, *self.model.grid)
        return pictures_of(self.model, ids.to(self.drawn_with.device), Room(BATCH_SIZE))

    @property
    def images(self) -> Float[Tensor, "prompts n 3 H W"]:
        """All pictures, made anew at every call: for many samples ask `pictures_of` for a few at a time."""
        return torch.stack([self.pictures_of(prompt) for prompt in range(len(self.prompts))])

    def mean(self, name: str) -> Interval:
        """Mean over prompts of the measure of that name; the interval needs two prompts."""
        return named(self.measures, name).mean(self.result.column(name), self.n, self.seed)


@dataclass(frozen=True, repr=False, eq=False)
class Enhanced(Shown):
    """What `enhance` returns. `images` and `tokens` are those after; `before` and `after` hold everything.

    `images` are made of the tokens when they are asked for, so that a result of many samples is small. `disable_top`,
    `lpips`: as asked for. `note` says why the intervals are NaN, or is empty.
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
        before, after = (side.result.column("fidelity") for side in (self.before, self.after))
        return fidelity_change(before, after, self.after.n, self.after.seed)

    @property
    def table(self) -> pd.DataFrame:
        """One row per figure: before, after and change, each a mean over prompts with `_low` and `_high`; prompts: how
        many have a value."""
        import pandas as pd

        rows: list[dict[str, object]] = []
        for name in (each.name for each in self.measures):
            columns = {"before": self.before.mean(name), "after": self.after.mean(name), "change": self.change(name)}
            both = ~np.isnan(self.after.result.column(name) - self.before.result.column(name))
            row: dict[str, object] = {"model": self.model, "figure": name, "prompts": int(both.sum())}
            for column, interval in columns.items():
                row |= with_ends(column, interval)
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def headline(self) -> str:
        prompts, n = counted(len(self.before.prompts), "prompt"), counted(self.before.n, "sample")
        return f"Enhanced: {self.model}, {prompts}, {n} each, seed {self.before.seed}"

    def shown_table(self) -> pd.DataFrame:
        return with_intervals(self.table, ("figure", "before", "after", "change"))

    def shown_notes(self) -> Sequence[str]:
        known = not math.isnan(self.before.mean("fidelity").value)
        return [
            "Means over prompts, [95% interval]. change: after - before, paired by prompt, same noise.",
            *undefined(len(self.before.prompts), self.before.n, known),
        ]

    @property
    def note(self) -> str:
        if len(self.before.prompts) > 1:
            return ""
        return "One prompt: there is no interval over prompts, it needs at least 2."


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
    measures: Sequence[Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> Enhanced:
    """Draw `n` samples of each prompt without and with the enhancer, from the same noise, and measure both.

    `model`: a model, or the spec of one ("zoo/mim"). Prompts without paraphrases get templates around them.
    `measures`: what is measured beside LPIPS diversity, mode coverage and fidelity. `progress`: True shows a bar on
    stderr. `on_batch` is told how many more samples, of 2 * prompts * n, are done.
    n = 1 leaves diversity undefined (NaN). Raises DivlensError for bad input before anything is drawn.
    """
    chosen = loaded_model(model)
    asked, extra = distinct_prompts(prompts), checked_measures(measures)
    runs = plans(chosen, asked, n, seed, sides(disable_top), batch_size=batch_size)
    instruments = Instruments.of(load_network(lpips).to(runs["before"].device), judge_of(chosen), extra)
    found: dict[str, Side] = {}
    with followed(progress, on_batch, 2 * len(asked) * n, chosen.name) as told:
        for name, run in runs.items():
            told.describe(f"{chosen.name} {name}")
            result = measure(run, name, instruments, on_batch=told.advance)
            found[name] = Side(chosen, asked, seed, result, instruments.measures)
    return Enhanced(chosen.name, found["before"], found["after"], disable_top, lpips)
