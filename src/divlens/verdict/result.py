"""`verdict`: the strategy of each model of a probe, with its reasons, how sure it is, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divlens.conditions import Conditions
from divlens.experiment import columns
from divlens.experiment.result import ProbeResult
from divlens.interventions import described
from divlens.showing import UNKNOWN, Block, Shown, counted, interval_text
from divlens.store.reader import StoredRun
from divlens.verdict.contrasts import LEVEL, MARGIN, ONLY_LOOK, Contrast
from divlens.verdict.evidence import (
    ARGMAX,
    JUDGE,
    SUBSET,
    Evidence,
    check_evidence,
    evidence_of,
    figures_of,
    interventions_alone,
    missing_conditions,
    right_by,
    what_is_missing,
)
from divlens.verdict.exact import Asked, exact_answers
from divlens.verdict.looks import Size
from divlens.verdict.significance import fewest_prompts
from divlens.verdict.strategy import MEANING, Strategy, strategy_of

if TYPE_CHECKING:
    import pandas as pd

ALL, RIGHT = "all", "right"  # which pictures a contrast is of
IS_ALIGNED = "whose alignment with the prompt is near baseline's"


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Verdict(Shown):
    """The strategies of the models of a probe, by name; `margin`: a smaller change counts as none. `looks`: the prompts
    and samples of each at every look at a run that grew, of `planned`; none of one that was looked at once. `unused`:
    the measures of the run of which one, if named, could tell right pictures."""

    strategies: Mapping[str, Strategy]
    margin: float
    looks: tuple[Size, ...] = ()
    planned: int = 1
    unused: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """One row per model, contrast and which pictures it is of, "all" or "right": its outcome; relative_change with
        `_low` and `_high`; p_no_change and p_equivalence, adjusted; g, prompts and would_decide as of `Contrast`;
        look, the one at which it was decided, 0 where it is not; wrong, the share of pictures under the condition that
        are wrong, and wrong_before, of baseline; right_by, who says so, "judge" or the name of a measure, else empty.
        Undefined is NaN."""
        import pandas as pd

        return pd.DataFrame([row for strategy in self.strategies.values() for row in rows_of(strategy)])

    @property
    def is_settled(self) -> bool:
        """Whether more prompts have nothing left to decide, of any model."""
        return all(one.is_settled for one in self.strategies.values())

    @property
    def headline(self) -> str:
        return "Verdict: " + ", ".join(f"{model} is {one.name}" for model, one in self.strategies.items())

    @property
    def blocks(self) -> list[Block]:
        """One per model: its contrasts, its strategy and what speaks for it."""
        return [block_of(strategy, len(self.looks) > 0) for strategy in self.strategies.values()]

    @property
    def notes(self) -> list[str]:
        by = {one.right_by for one in self.strategies.values()} - {""}
        whose = " or ".join(sorted("the judge names right" if each == JUDGE else IS_ALIGNED for each in by))
        right = (
            f'right: LPIPS diversity among the pictures {whose}, which decides; "wrong %": how many are left out, and '
            "of baseline. "
        )
        unused = (
            f" The run has {' and '.join(self.unused)}: kept, or --kept, names the one that is to tell right pictures."
            if self.unused
            else ""
        )
        sizes = ", ".join(f"{size.prompts} prompts with {size.n} samples" for size in self.looks)
        looks = f"look: the one that decided, of {self.planned} that share the 5%; {sizes}. " if sizes else ""
        return [
            "drop, rise: a sign-flip test over prompts. equivalent: two one-sided tests within "
            f"{100 * self.margin:.0f}% of baseline. Each kind is adjusted for all contrasts of a model (Holm), at "
            f"{100 * LEVEL:.0f}%. g: Hedges' g over prompts. {right if by else ''}{looks}Chances: under "
            f"resampling of prompts. See docs/statistics.md.{unused}"
        ]


def rows_of(strategy: Strategy) -> Iterator[dict[str, object]]:
    for kind, plain in strategy.contrasts.items():
        kept = strategy.kept.get(kind)
        for pictures, contrast in ((ALL, plain), *([(RIGHT, kept.contrast)] if kept else [])):
            yield {
                **{"model": strategy.model, "contrast": kind, "pictures": pictures, "outcome": contrast.outcome},
                **columns.with_ends(columns.RELATIVE_CHANGE, contrast.change),
                **{"p_no_change": contrast.of_no_change, "p_equivalence": contrast.of_equivalence},
                **{"g": contrast.effect, "prompts": contrast.prompts, "would_decide": contrast.would_decide},
                "look": contrast.look,
                "wrong": kept.wrong if kept else np.nan,
                "wrong_before": kept.wrong_before if kept else np.nan,
                "right_by": strategy.right_by,
            }


def block_of(strategy: Strategy, with_looks: bool) -> Block:
    rows: list[Sequence[str]] = []
    for kind, plain in strategy.contrasts.items():
        kept = strategy.kept.get(kind)
        wrong = f"{100 * kept.wrong:.0f} ({100 * kept.wrong_before:.0f})" if kept else ""
        both = [(kind, plain, ""), *([("  right", kept.contrast, wrong)] if kept else [])]
        rows += [(name, *cells_of(contrast, with_looks), *([last] if kept else [])) for name, contrast, last in both]
    judged = ["wrong %"] if strategy.kept else []
    headings = ("contrast", "change %", "g", "outcome", *(["look"] if with_looks else []), *judged)
    return Block(strategy.model, headings, rows, lines=[answer(strategy), *strategy.reasons])


def cells_of(contrast: Contrast, with_looks: bool) -> list[str]:
    effect = UNKNOWN if np.isnan(contrast.effect) else f"{contrast.effect:+.1f}"
    look = [str(contrast.look or "-")] if with_looks else []
    return [interval_text(contrast.change, "+.0f", 100), effect, contrast.outcome, *look]


def answer(strategy: Strategy) -> str:
    """The strategy in a sentence, and how likely each is."""
    likely = {name: chance for name, chance in strategy.chances.items() if chance >= 0.005}
    chances = ", ".join(f"{name} {100 * chance:.0f}%" for name, chance in likely.items())
    return f"{strategy.model} is {strategy.name}: {MEANING[strategy.name]}. Chances: {chances or UNKNOWN}."


def verdict(
    result_or_run: ProbeResult | StoredRun | str | Path, *, margin: float = MARGIN, kept: str | None = None
) -> Verdict:
    """The strategy of each model of a probe, from its contrasts under Argmax, Subset and Paraphrase.

    `result_or_run`: what `divlens.probe` returns, or the run that it wrote: a folder, an address that fsspec knows, or
    what `divlens.open_run` returns. Of a run the tables are read: nothing is drawn, and no model is loaded. `margin`:
    the share of baseline, in (0, 1), below which a change counts as none. `kept`: a measure `kept:...` that
    `divlens.score` has put into the run, by which to tell right pictures; None is the judge where it knows the prompts,
    else the only one that the run has. Strategies: Wu, Zhao and Liu, 2025, arXiv 2512.01831.

    Raises DivlensError for another margin, for a measure that the run does not have of all samples, for a probe without
    Argmax and Subset alone as conditions, for fewer than 2 prompts or samples, and for a folder without a complete run
    of `probe`.
    """
    evidence = evidence_of(result_or_run)
    check_evidence(evidence)
    found: dict[str, Strategy] = {}
    for model in evidence.models:
        strategy = strategy_seen(evidence, model, margin, right_by(evidence, model, kept))
        decisive, restriction = strategy.decisive, evidence.conditions[evidence.names[SUBSET]]
        asked = Asked(decisive[ARGMAX].outcome, decisive[SUBSET].outcome, restriction, margin)
        found[model] = replace(strategy, exact=tuple(exact_answers(evidence.exact, model, asked)))
    grew = (*evidence.earlier, evidence) if evidence.look != ONLY_LOOK else ()
    several = len(evidence.alignments) > 1 and not all(one.kept for one in found.values())
    unused = evidence.alignments if several else ()
    looks = tuple(Size(each.prompts, each.n) for each in grew)
    return Verdict(strategies=found, margin=margin, looks=looks, planned=evidence.look.planned, unused=unused)


def strategy_seen(evidence: Evidence, model: str, margin: float, by: str) -> Strategy:
    """The strategy of a model at the last look; what was decided at one before stands. `by`: see `right_by`."""
    before: Strategy | None = None
    for seen in (*evidence.earlier, evidence):
        figures, sizes = figures_of(seen, model, by), {"n": seen.n, "seed": seen.seed}
        before = strategy_of(model, *figures, margin=margin, **sizes, right_by=by, look=seen.look, before=before)
    assert before is not None  # there is one look at least
    return before


def has_conditions(probed: ProbeResult) -> bool:
    """Whether the conditions of a probe are those of a verdict."""
    return not missing_conditions(interventions_alone(probed.conditions))


def why_no_verdict(probed: ProbeResult) -> str:
    """What a verdict on a probe expects and does not get; nothing where it is possible."""
    return what_is_missing(len(probed.prompts), probed.n, interventions_alone(probed.conditions))


def why_no_decision(conditions: Conditions, prompts: int) -> str:
    """A sentence where no contrast of a probe of these can be decided, whatever is drawn, but for one that leaves only
    duplicates; else nothing."""
    names = interventions_alone({name: described(interventions) for name, interventions in conditions.items()})
    fewest = fewest_prompts(max(1, len(names)), LEVEL)
    if missing_conditions(names) or prompts >= fewest:
        return ""
    return (
        f"with {counted(prompts, 'prompt')} no drop or rise of diversity can be shown, whatever is drawn: a verdict on "
        f"{counted(len(names), 'contrast')} takes at least {fewest} prompts"
    )
