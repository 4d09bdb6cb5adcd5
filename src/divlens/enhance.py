"""More diversity without retraining: mixed-length wordings and the most used codes disabled (arXiv 2512.01831)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import load_network
from divlens.experiment.measure import ConditionResult, Instruments, check_before_drawing, look
from divlens.experiment.probe import LIMITS, Conditions, enhancer, judge_for
from divlens.fidelity.breakage import FidelityChange, fidelity_change
from divlens.models import load
from divlens.models.protocol import Model
from divlens.paraphrase import templated
from divlens.prompts import distinct_prompts
from divlens.sampler import BATCH_SIZE, BatchSize, Encoded, sample
from divlens.statistics import Interval, bootstrap_mean, paired_change
from divlens.types import DrawnWith, Generation, Prompt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Side:
    """Before or after: the pictures and tokens, and what was measured of them."""

    generation: Generation
    result: ConditionResult

    def mean(self, name: str) -> Interval:
        """Mean over prompts of "diversity", "coverage" or "fidelity"; the interval needs two prompts."""
        return bootstrap_mean(self.result.column(name), self.generation.seed, limits=LIMITS[name])


@dataclass(frozen=True)
class Enhanced:
    """What `enhance` returns. `images` and `tokens` are those after; `before` and `after` hold everything.

    `note` says why the intervals are NaN, or is empty.
    """

    model: str
    before: Side
    after: Side

    @property
    def images(self) -> Float[Tensor, "prompts n 3 H W"]:
        return self.after.generation.images

    @property
    def tokens(self) -> Int[Tensor, "prompts n h w"]:
        return self.after.generation.tokens

    @property
    def drawn_with(self) -> DrawnWith:
        return self.after.generation.drawn_with

    def change(self, name: str = "diversity") -> Interval:
        """Mean over prompts of after - before, paired; NaN bounds for a single prompt."""
        return paired_change(
            self.after.result.column(name), self.before.result.column(name), self.after.generation.seed
        )

    @property
    def templated(self) -> tuple[str, ...]:
        """The prompts whose wordings after are templates, for they have no paraphrases."""
        return templated(self.before.generation.prompts, enhancer())

    @property
    def fidelity_change(self) -> FidelityChange:
        """How fidelity changed, and whether it fell: then part of the diversity is of pictures that broke."""
        before, after = (side.result.column("fidelity") for side in (self.before, self.after))
        drawn = self.after.generation
        return fidelity_change(before, after, len(drawn.samples), drawn.seed)

    @property
    def table(self) -> pd.DataFrame:
        """One row per figure: before, after and change, each a mean over prompts with `_low` and `_high`; prompts: how
        many have a value."""
        import pandas as pd

        rows: list[dict[str, object]] = []
        for name in LIMITS:
            columns = {"before": self.before.mean(name), "after": self.after.mean(name), "change": self.change(name)}
            row: dict[str, object] = {"model": self.model, "figure": name, "prompts": columns["change"].count}
            for column, interval in columns.items():
                row |= {column: interval.value, f"{column}_low": interval.low, f"{column}_high": interval.high}
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def note(self) -> str:
        if len(self.before.generation.prompts) > 1:
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
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Enhanced:
    """Draw `n` samples of each prompt without and with the enhancer, from the same noise, and measure both.

    Prompts without paraphrases of their own get templates around them. `on_batch` is told how many more samples, of
    2 * prompts * n, are done. n = 1 leaves diversity undefined (NaN). Raises DivlensError for bad input before
    anything is drawn.
    """
    chosen = load(model) if isinstance(model, str) else model
    asked = distinct_prompts(prompts)
    conditions = sides(disable_top)
    encoded = Encoded(chosen)
    for interventions in conditions.values():
        check_before_drawing(encoded, asked, n, seed, interventions, batch_size)
    instruments = Instruments(load_network(lpips), judge_for(chosen))

    def side(name: str) -> Side:
        drawn = sample(
            chosen,
            asked,
            n,
            seed,
            conditions[name],
            batch_size=batch_size,
            trace=False,
            encoded=encoded,
            on_batch=on_batch,
        )
        return Side(drawn, look(drawn, chosen.name, name, instruments))

    return Enhanced(chosen.name, side("before"), side("after"))
