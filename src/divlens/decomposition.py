"""What `decompose` returns: the components of LPIPS diversity of every prompt, and their means and shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from jaxtyping import Float64

from divlens.errors import DivlensError
from divlens.experiment.design import Levels
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.plots import SharePlots
from divlens.results import Result, columns_of, found_of, title_of, used_in
from divlens.showing import UNKNOWN, Block, counted, interval_text, missing_intervals
from divlens.statistics import Interval, bootstrap_mean, ratio_of_means
from divlens.types import DrawnWith, Prompt

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-9  # of a component that is 0
LPIPS, SQUARED = "LPIPS", "squared distance"  # of what a component is a part


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Decomposition(Result):
    """What `decompose` returns.

    `levels`: those drawn (1: the factor is absent). `wordings`: the levels of the wording factor, prompt by prompt.
    `sources`: names of the columns of `components`, which are per prompt, in units of `distance` (LPIPS, or the squared
    distance of other features), unbiased, and so may be negative; they add up to the prompt's total. `pairwise`: the
    plain mean distance over all pairs of a prompt's pictures, on average less than the total, for many of these pairs
    share a level. `remarks`: why factors are absent. `wording_notes`: what the model did not read of a wording, for
    those only. `interventions`: what the pictures were drawn under.
    """

    model: str
    condition: str
    prompts: tuple[Prompt, ...]
    seed: int
    drawn_with: DrawnWith
    levels: Levels
    wordings: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    components: Float64[np.ndarray, "prompts sources"]
    pairwise: Float64[np.ndarray, " prompts"]
    remarks: tuple[str, ...] = ()
    distance: str = LPIPS
    wording_notes: Mapping[str, str] = field(default_factory=dict)
    interventions: tuple[str, ...] = ()
    alone: ClassVar[bool] = False

    @property
    def totals(self) -> Float64[np.ndarray, " prompts"]:
        """The distance of two pictures of a prompt that differ in wording, path and execution, and in the decoder's
        noise where that is a source, unbiased."""
        return self.components.sum(1)

    @property
    def total(self) -> Interval:
        """The mean total over prompts."""
        return bootstrap_mean(self.totals, self.seed)

    def component(self, source: str) -> Interval:
        """The mean over prompts of a source's component. "wording" is the sum of its two parts where it has two.

        The 95% interval is over prompts: how much the mean would move with other prompts of the same kind, with other
        wordings and other noise. Raises DivlensError for an unknown source.
        """
        return bootstrap_mean(self.column(source), self.seed)

    def share(self, source: str) -> Interval:
        """The mean component over the mean total: the part of the prompts' summed diversity that is the source's.

        So a prompt counts by how diverse it is. The 95% interval is that of the ratio, over prompts; NaN where the
        mean total is not above 0. Shares may be negative, and they add up to 1.
        """
        return ratio_of_means(self.column(source), self.totals, self.seed)

    def column(self, source: str) -> Float64[np.ndarray, " prompts"]:
        """A source's component, prompt by prompt."""
        parts = [i for i, name in enumerate(self.sources) if name == source or name.startswith(f"{source}.")]
        if not parts:
            raise DivlensError(f"expected a source among {', '.join(self.sources)}, got {source!r}")
        return self.components[:, parts].sum(1)

    @property
    def table(self) -> pd.DataFrame:
        """One row per source: component (in `distance`), low, high; share of the total, share_low, share_high."""
        import pandas as pd

        rows = []
        for source in self.sources:
            component, share = self.component(source), self.share(source)
            rows.append((source, component.value, component.low, component.high, share.value, share.low, share.high))
        return pd.DataFrame(rows, columns=["source", "component", "low", "high", "share", "share_low", "share_high"])

    @property
    def per_prompt(self) -> pd.DataFrame:
        """One row per prompt: its components (in `distance`), their total, and the plain mean over pairs."""
        import pandas as pd

        table = pd.DataFrame(self.components, columns=list(self.sources))
        table.insert(0, "prompt", [prompt.text for prompt in self.prompts])
        return table.assign(total=self.totals, pairwise=self.pairwise)

    @property
    def templated(self) -> tuple[str, ...]:
        """The prompts whose other wordings are templates, for they have no paraphrases."""
        return tuple(prompt.text for prompt in self.prompts if self.levels.wordings > 1 and not prompt.paraphrases)

    @property
    def plot(self) -> SharePlots:
        """Its figures: `plot.shares()`."""
        return SharePlots(self.named(self.table))

    @property
    def headline(self) -> str:
        prompts = counted(len(self.prompts), "prompt")
        return f"Decomposition: {self.model}, {prompts}, {self.levels.written}, seed {self.seed}"

    @property
    def blocks(self) -> list[Block]:
        """A row per source of diversity, and the total."""
        rows = [
            (source, interval_text(self.component(source), ".4f"), interval_text(self.share(source), ".1f", 100))
            for source in self.sources
        ]
        whole = UNKNOWN if math.isnan(self.share(self.sources[0]).value) else "100"
        rows.append(("total", interval_text(self.total, ".4f"), whole))
        title = title_of(self.model, self.interventions)
        lines = [f"{self.levels.written}.", *self.remarks, *self.shares_lines()]
        lines += wording_lines((), len(self.prompts), {self.model: self.wording_notes})
        return [Block(title, ("source", self.distance, "share %"), rows, lines=lines)]

    def shares_lines(self) -> list[str]:
        """Why shares are undefined or components negative."""
        if math.isnan(self.share(self.sources[0]).value):
            return ["The total is not above 0: shares are undefined."]
        if (self.components.mean(0) < -ROUNDING).any():
            return ["A component below 0 is an unbiased estimate of one at or near 0; cut at 0 it would be biased."]
        return []

    @property
    def notes(self) -> list[str]:
        """What a reader of the tables must know: what they are, wordings that are templates, missing intervals."""
        prompts = len(self.prompts)
        factors = "path, execution and decoder" if "decoder" in self.sources else "path and execution"
        lines = [
            f"Means over {counted(prompts, 'prompt')}; [95% interval over prompts]. total: "
            f"{self.distance} of two pictures that differ in wording, {factors} noise. The rows that hold a "
            f"factor add up to the {self.distance} of two pictures that differ in that factor only."
        ]
        if self.sources[0] == "wording.meaning":
            lines.append(
                "wording.length: what filling a wording up with neutral words to the same length changes; "
                "wording.meaning: the rest of its effect. Each may be below 0."
            )
        lines += wording_lines(self.templated, prompts, {})
        lines += missing_intervals(prompts)
        return lines

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table that says in its last columns whose it is."""
        return table.assign(**columns_of(self.model, self.condition, self.interventions))

    @property
    def found(self) -> Record:
        used = used_in(self.model, self.condition, self.prompts, self.wordings)
        return found_of(
            used,
            {self.model: self.drawn_with},
            levels_drawn={self.model: self.levels.record},
            wording_notes={self.model: dict(self.wording_notes)},
            templated=self.templated,
        )

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table and per_prompt (see `write_tables`), with columns for the model and the condition."""
        names = ("table", "per_prompt")
        tables = {name: [one.named(getattr(one, name)) for one in results] for name in names}
        write_tables(tables, folder)
