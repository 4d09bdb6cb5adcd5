"""Which strategy a model has: where its diversity comes from, and how far it relies on its codebook.

Three strategies (Wu, Zhao and Liu, 2025, arXiv 2512.01831) differ in what two interventions do. Without token draws
(Argmax) diversity drops, goes to zero, or stays; with half of the codebook (Subset) it drops or stays. Paraphrase
agrees with the paper or does not; it decides nothing.

Broken pictures differ from each other, too. Where a judge knows what was asked for, or a measure tells which pictures
fit to their prompts as baseline's do, the strategy is therefore that of the diversity among the pictures that are
right; and where these became fewer, no rise is claimed, for what still counts as right may be damaged as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float

from divlens.experiment.families import shortened
from divlens.fidelity.breakage import fidelity_change
from divlens.showing import counted
from divlens.verdict.contrasts import ONLY_LOOK, Contrast, Look, Outcome, contrasts_of
from divlens.verdict.evidence import ARGMAX, DECISIVE, FEWEST_KNOWN, JUDGE, PARAPHRASE, SUBSET, Figures
from divlens.verdict.significance import MOST_PROMPTS

PATTERNS: Mapping[str, Mapping[str, Outcome]] = {
    # What each strategy's contrasts come out as. "Minimal" and "stable" are claims: equivalent within the margin.
    "diversity-prioritized": {ARGMAX: "drop", SUBSET: "drop", PARAPHRASE: "rise"},
    "compression-prioritized": {ARGMAX: "zero", SUBSET: "equivalent", PARAPHRASE: "rise"},
    "decoupled": {ARGMAX: "equivalent", SUBSET: "drop", PARAPHRASE: "equivalent"},
}
MIXED, OPEN = "mixed", "undecided"
MEANING: Mapping[str, str] = {
    "diversity-prioritized": "its diversity comes from token draws and needs the whole codebook",
    "compression-prioritized": "its diversity comes from token draws alone, and the most used codes carry it",
    "decoupled": "its diversity does not come from token draws, but needs the whole codebook",
    MIXED: "no strategy of the paper has these contrasts together",
    OPEN: "the contrasts that would decide are open",
}
SAID: Mapping[str, str] = {
    "zero": "duplicates alone",
    "drop": "a drop",
    "rise": "a rise",
    "equivalent": "equivalence",
    "undecided": "nothing decided",
}
RESAMPLES = 2000


@dataclass(frozen=True)
class Kept:
    """A contrast among the pictures that are right, and the share of pictures that are wrong, and so left out, under
    the condition and at baseline: means over the prompts where that is known, in [0, 1].

    fell: whether fidelity fell (see `FidelityChange`); then a rise is undecided. held_back: whether it was one.
    """

    contrast: Contrast
    wrong: float
    wrong_before: float
    fell: bool
    held_back: bool

    @property
    def holds_rises_back(self) -> bool:
        """Whether a rise was seen, decided or not, that is not claimed."""
        return self.held_back or (self.fell and self.contrast.change.value > self.contrast.margin)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The strategy of a model.

    name: one of the three, "mixed" where no strategy fits what is decided, "undecided" where what is decided fits
    several or is too little. chances: of each name, the share of resamples of the prompts whose changes, taken as they
    are, fit it. contrasts: by intervention, of LPIPS diversity. kept: the same among the pictures that are right, none
    where these are not known of at least two prompts. right_by: who says which are, JUDGE or the name of a measure;
    empty for nobody. exact: what the exact shares of a run say of the same question.
    """

    model: str
    name: str
    chances: Mapping[str, float]
    contrasts: Mapping[str, Contrast]
    kept: Mapping[str, Kept]
    exact: tuple[str, ...] = ()
    right_by: str = ""

    @property
    def decisive(self) -> dict[str, Contrast]:
        """The contrasts that the name follows from."""
        return {kind: one.contrast for kind, one in self.kept.items()} or dict(self.contrasts)

    @property
    def is_settled(self) -> bool:
        """Whether more prompts have nothing left to decide: every contrast is, or is a rise that is not claimed."""
        return all(
            one.outcome != "undecided" or (kind in self.kept and self.kept[kind].held_back)
            for kind, one in self.decisive.items()
        )

    @property
    def reasons(self) -> list[str]:
        """What the figures of the contrasts do not say: why one is open and what would decide it, what the paper says
        of Paraphrase, and what would change the answer."""
        lines = [f"{kind}: {'; '.join(said)}." for kind in self.contrasts if (said := self.remarks(kind))]
        if self.name in PATTERNS and PARAPHRASE in self.decisive:
            seen, expected = self.decisive[PARAPHRASE].outcome, PATTERNS[self.name][PARAPHRASE]
            agrees = "agrees" if seen == expected else "does not agree"
            lines.append(f"Paraphrase {agrees} with the paper, where it shows {SAID[expected]}.")
        lines += [*self.other_answers(), *self.exact]
        if not self.kept:
            return [*lines, BREAKAGE_UNSEEN]
        return lines if self.right_by == JUDGE else [*lines, f"{ALIGNED} ({shortened(self.right_by)})."]

    def remarks(self, kind: str) -> list[str]:
        plain, decisive, said = self.contrasts[kind], self.decisive[kind], list[str]()
        if decisive.prompts < plain.prompts:
            said.append(f"{decisive.prompts} of {counted(plain.prompts, 'prompt')} have 2 right pictures to compare")
        if decisive.outcome != "undecided" or decisive.prompts < 2:
            return said
        if kind in self.kept and self.kept[kind].holds_rises_back:
            said.append("no rise is claimed, for fidelity fell, and what is right may be damaged")
        elif math.isnan(decisive.would_decide):
            said.append(f"not even {MOST_PROMPTS:,} prompts would decide")
        else:
            said.append(f"about {decisive.would_decide:.0f} prompts would decide")
        return said

    def other_answers(self) -> list[str]:
        """What would have to come out otherwise for each strategy that it is one contrast away from."""
        lines = []
        for name, pattern in PATTERNS.items():
            others = [each for each in DECISIVE if self.decisive[each].outcome != pattern[each]]
            if name != self.name and len(others) == 1:
                lines.append(f"It would be {name} if {others[0]} showed {SAID[pattern[others[0]]]}.")
        return lines


ALIGNED = "No judge, but alignment with the prompt tells which pictures are right"
BREAKAGE_UNSEEN = "No judge knows these prompts: a rise may be of pictures that broke."


def without_rise(contrast: Contrast) -> Contrast:
    """The contrast, where no rise may be claimed: one is undecided, and no number of prompts would make it one."""
    if contrast.outcome == "rise" or (contrast.outcome == "undecided" and contrast.change.value > contrast.margin):
        return replace(contrast, outcome="undecided", would_decide=math.nan, look=0)
    return contrast


def strategy_of(
    model: str,
    baseline: Figures,
    conditions: Mapping[str, Figures],
    *,
    margin: float,
    n: int,
    seed: int,
    right_by: str = JUDGE,
    look: Look = ONLY_LOOK,
    before: Strategy | None = None,
) -> Strategy:
    """`conditions`: the figures under each intervention, Argmax and Subset among them, of `n` samples of each prompt.
    `right_by`: who says which pictures are right, where anybody does. `before`: what the look before found. Raises
    DivlensError for a margin outside of (0, 1)."""
    same = {kind: one.only_duplicates for kind, one in conditions.items()}
    diversity = {kind: one.diversity for kind, one in conditions.items()}
    decide = partial(contrasts_of, only_duplicates=same, margin=margin, seed=seed, look=look)
    contrasts = decide(baseline.diversity, diversity, before=before and before.contrasts)
    kept: dict[str, Kept] = {}
    first, second = baseline.diversity, diversity
    if (~np.isnan(baseline.right)).sum() >= FEWEST_KNOWN:
        first, second = baseline.kept, {kind: one.kept for kind, one in conditions.items()}
        earlier = {kind: one.contrast for kind, one in before.kept.items()} if before else None
        among = decide(first, second, before=earlier)
        for kind, one in conditions.items():
            fell = fidelity_change(baseline.right, one.right, n, seed).fell
            held_back = fell and among[kind].outcome == "rise"
            contrast = without_rise(among[kind]) if fell else among[kind]
            kept[kind] = Kept(contrast, one.wrong, baseline.wrong, fell, held_back)
    decisive = {kind: one.contrast for kind, one in kept.items()} or contrasts
    return Strategy(
        model=model,
        name=name_of({kind: contrast.outcome for kind, contrast in decisive.items()}),
        chances=chances_of(first, second, same, margin, seed, [kind for kind, one in kept.items() if one.fell]),
        contrasts=contrasts,
        kept=kept,
        right_by=right_by if kept else "",
    )


def name_of(outcomes: Mapping[str, Outcome]) -> str:
    """The strategy that fits; "mixed" where none can, "undecided" where that is open."""

    def fits(pattern: Mapping[str, Outcome], *also: Outcome) -> bool:
        return all(outcomes[each] in (pattern[each], *also) for each in DECISIVE)

    fitting = [name for name, pattern in PATTERNS.items() if fits(pattern)]
    if fitting:
        return fitting[0]
    return OPEN if any(fits(pattern, "undecided") for pattern in PATTERNS.values()) else MIXED


def chances_of(
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
    only_duplicates: Mapping[str, bool],
    margin: float,
    seed: int,
    no_rise: Sequence[str] = (),
) -> dict[str, float]:
    """How often resamples of the prompts fit each strategy, with their changes taken as they are: those beyond the
    margin are drops and rises, the others are equivalent. NaN where no prompt has all values. `no_rise`: of which
    interventions none is claimed."""
    names = (*PATTERNS, MIXED, OPEN)
    needed = [conditions[kind] for kind in DECISIVE if not only_duplicates[kind]]
    known = ~np.isnan(np.stack([baseline, *needed])).any(0)
    if not known.any() or not baseline[known].any():
        return dict.fromkeys(names, np.nan)
    drawn = np.random.default_rng(seed).integers(known.sum(), size=(RESAMPLES, known.sum()))
    before = baseline[known][drawn].mean(1)
    outcomes = []
    for kind in DECISIVE:
        if only_duplicates[kind]:
            outcomes.append(np.full(RESAMPLES, "zero"))
            continue
        change = conditions[kind][known][drawn].mean(1) - before
        small = np.abs(change) <= margin * before
        above = "undecided" if kind in no_rise else "rise"
        outcomes.append(np.where(small, "equivalent", np.where(change < 0, "drop", above)))
    seen: Counter[str] = Counter()
    for pair, count in Counter(zip(*(each.tolist() for each in outcomes), strict=True)).items():
        seen[name_of(dict(zip(DECISIVE, pair, strict=True)))] += count
    return {name: seen[name] / RESAMPLES for name in names}
