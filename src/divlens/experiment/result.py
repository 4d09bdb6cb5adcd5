"""What `probe` returns: a table of models and conditions, the figures of every prompt, and a record of every sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from divlens.conditions import BASELINE
from divlens.experiment import columns
from divlens.experiment.measure import ConditionResult
from divlens.experiment.measures import DIVERSITY, FIDELITY, KEPT, ONE_SAMPLE, Measure, notes_of, partial_notes
from divlens.experiment.samples import Samples, unread, wordings_in, write_samples
from divlens.fidelity.breakage import FidelityChange, fidelity_change
from divlens.fidelity.notes import UNSEEN, fall_text, fall_warnings, judged_note
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.plots import ProbePlots
from divlens.results import Result, found_of
from divlens.showing import Block, counted, interval_text, missing_intervals
from divlens.statistics import paired_change, relative_change
from divlens.types import DrawnWith, Prompt

if TYPE_CHECKING:
    import pandas as pd


PER_LOOK = "per_look"  # the table of a probe until decided
UNTIL_DECIDED = "until_decided"  # the field of its request that plans its looks


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class ProbeResult(Result):
    """`table`: one row per model and condition. `per_prompt`: one row per model, condition and prompt.

    Columns of `table`: model, condition, prompts, n; for each of `measures` (diversity, openness, fidelity,
    kept_diversity, and those that were asked for beside them) the mean over prompts, a 95% interval `_low`, `_high`
    and `_prompts`, how many prompts have a value; change (against baseline, paired) and relative_change (a share of
    baseline) with `_low` and `_high`; fidelity_change (against baseline, paired) with `_low`, `_high`, `_chance` and
    `_fell`, whether that is a fall (see `FidelityChange`); noise_floor (mean over prompts, of baseline pictures);
    duplicates (a count over all samples). Undefined is NaN. `samples`: a record of every sample. `conditions`: what was
    done, as text. `seed`, `n`, `lpips` (the network): as asked for. `drawn_with`: of each model. `templated`: the
    prompts whose other wordings are templates, for they have no paraphrases. `per_look`: of a probe until decided, the
    rows that per_prompt had at each look, with its number as `look`.
    """

    table: pd.DataFrame
    per_prompt: pd.DataFrame
    samples: Samples
    prompts: tuple[Prompt, ...]
    conditions: Mapping[str, str]
    seed: int
    n: int
    lpips: str
    drawn_with: Mapping[str, DrawnWith]
    measures: tuple[Measure, ...]
    templated: tuple[str, ...] = ()
    per_look: pd.DataFrame | None = None

    @property
    def plot(self) -> ProbePlots:
        """Its figures: `plot.changes()`."""
        return ProbePlots(self.table)

    @property
    def headline(self) -> str:
        return (
            f"ProbeResult: {counted(len(self.drawn_with), 'model')}, {counted(len(self.conditions), 'condition')}, "
            f"{counted(len(self.prompts), 'prompt')}, {counted(self.n, 'sample')} each, seed {self.seed}"
        )

    @property
    def printed(self) -> list[Measure]:
        """The measures that have a column in print. One more would not fit 80 columns, and diversity at kept fidelity
        stands in the verdict."""
        return [each for each in self.measures if each.name != KEPT]

    @property
    def blocks(self) -> list[Block]:
        """One per model: diversity, its change against baseline in percent, the other measures, duplicates; and a
        warning where fidelity fell."""
        first, *others = self.printed
        headings = ("condition", first.heading, "change %", *(measure.heading for measure in others), "dup")
        blocks = []
        for model, rows in self.table.groupby("model", sort=False):
            found = [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False)]
            cells = [
                (
                    str(row["condition"]),
                    measure_text(first, row),
                    "-" if row["condition"] == BASELINE else change_text(row),
                    *(measure_text(measure, row) for measure in others),
                    str(row[columns.DUPLICATES]),
                )
                for row in found
            ]
            blocks.append(Block(str(model), headings, cells, fall_warnings(falls(found))))
        return blocks

    @property
    def notes(self) -> list[str]:
        table, prompts, n = self.table, len(self.prompts), self.n
        lines = [
            f"Means over {counted(prompts, 'prompt')}, {counted(n, 'sample')} each; [95% interval].",
            " ".join(
                [
                    "change: against baseline, paired by prompt, same noise.",
                    *notes_of(self.printed),
                    "dup: samples whose token grid another of the prompt has.",
                ]
            ),
            f"LPIPS diversity that one grey level of noise makes: {table[columns.NOISE_FLOOR].max():.1g} at most.",
        ]
        if n < 2:
            lines.append(ONE_SAMPLE)
        elif any(math.isnan(change) for change in table[columns.RELATIVE_CHANGE]):
            lines.append("n/a: no change in percent where baseline has no diversity.")
        lines += missing_intervals(prompts)
        known = [count for count in table[FIDELITY + columns.COUNT] if count > 0]
        if len(known) < len(table):
            lines.append(UNSEEN)
        lines += judged_note(min(known, default=0), prompts)
        lines += partial_notes(self.printed, lambda name: int(min(table[name + columns.COUNT])), prompts)
        return lines + wording_lines(self.templated, prompts, unread(self.samples))

    @property
    def found(self) -> Record:
        notes = unread(self.samples)
        return found_of(wordings_in(self.samples), self.drawn_with, wording_notes=notes, templated=self.templated)

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table and per_prompt, and per_look where there is one (see `write_tables`)."""
        (result,) = results
        tables = {"table": [result.table], "per_prompt": [result.per_prompt]}
        if result.per_look is not None:
            tables[PER_LOOK] = [result.per_look]
        write_tables(tables, folder)

    @classmethod
    def write_samples(cls, results: Sequence[Self], folder: Path) -> None:
        (result,) = results
        write_samples(result.samples, folder / "samples.parquet")


def measure_text(measure: Measure, row: Mapping[str, Any]) -> str:
    """A figure of a row with its interval; shares as percentages."""
    return interval_text(columns.interval_in(row, measure.name), *measure.form)


def change_text(row: Mapping[str, Any]) -> str:
    return interval_text(columns.interval_in(row, columns.RELATIVE_CHANGE), "+.0f", 100)


def falls(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The conditions of a model whose fidelity fell, each with what shows it."""
    for row in rows:
        if row[columns.FIDELITY_CHANGE + columns.FELL]:
            change = columns.interval_in(row, columns.FIDELITY_CHANGE)
            chance, prompts = row[columns.FIDELITY_CHANGE + columns.CHANCE], row[FIDELITY + columns.COUNT]
            fall = FidelityChange(row[FIDELITY] - change.value, row[FIDELITY], change, prompts, chance)
            yield f"under {row['condition']} {fall_text(fall, row['n'])}"


def summary(
    here: ConditionResult, baseline: ConditionResult, measures: Sequence[Measure], n: int, seed: int
) -> dict[str, float]:
    """The figures of one row of the table. The same seed resamples the same prompts in every row."""
    row: dict[str, float] = {}
    for each in measures:
        values = here.column(each.name)
        row |= columns.with_ends(each.name, each.mean(values, n, seed))
        row[each.name + columns.COUNT] = int((~np.isnan(values)).sum())
    pair = here.column(DIVERSITY), baseline.column(DIVERSITY)
    row |= columns.with_ends(columns.CHANGE, paired_change(*pair, seed))
    row |= columns.with_ends(columns.RELATIVE_CHANGE, relative_change(*pair, seed))
    fidelity = fidelity_change(baseline.column(FIDELITY), here.column(FIDELITY), n, seed)
    row |= columns.with_ends(columns.FIDELITY_CHANGE, fidelity.change)
    row |= {
        columns.FIDELITY_CHANGE + columns.CHANCE: fidelity.chance,
        columns.FIDELITY_CHANGE + columns.FELL: fidelity.fell,
    }
    row[columns.NOISE_FLOOR] = float(baseline.column(columns.NOISE_FLOOR).mean())
    row[columns.DUPLICATES] = int(here.column(columns.DUPLICATES).sum())
    return row
