"""Which strategy a model has: where its diversity comes from, and how far it relies on its codebook.

Three strategies (Wu, Zhao and Liu, 2025) differ in what two interventions do. Without token draws (Argmax) diversity
drops, goes to zero, or stays; with half of the codebook (Subset) it drops or stays. Paraphrase agrees with the paper or
does not; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from divlens.conditions import BASELINE
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY
from divlens.experiment.result import ProbeResult, falls
from divlens.showing import Block, Shown, counted, interval_text
from divlens.verdict.contrasts import MARGIN, Contrast, Outcome, contrasts_of

ARGMAX, SUBSET, PARAPHRASE = "Argmax", "Subset", "Paraphrase"
DECISIVE = (ARGMAX, SUBSET)
# What each strategy's contrasts come out as. "Minimal" and "stable" are claims: equivalent within the margin.
PATTERNS: Mapping[str, Mapping[str, Outcome]] = {
    "diversity-prioritized": {ARGMAX: "drop", SUBSET: "drop", PARAPHRASE: "rise"},
    "compression-prioritized": {ARGMAX: "zero", SUBSET: "equivalent", PARAPHRASE: "rise"},
    "decoupled": {ARGMAX: "equivalent", SUBSET: "drop", PARAPHRASE: "equivalent"},
}
MIXED, UNDECIDED = "mixed", "undecided"
MEANING: Mapping[str, str] = {
    "diversity-prioritized": "its diversity comes from token draws and needs the whole codebook",
    "compression-prioritized": "its diversity comes from token draws alone, and the most used codes carry it",
    "decoupled": "its diversity does not come from token draws, but needs the whole codebook",
    MIXED: "no strategy of the paper has these contrasts together",
    UNDECIDED: "the contrasts that would decide are open",
}
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The strategy of a model.

    name: one of the three, "mixed" where no strategy fits what is decided, "undecided" where what is decided fits
    several or is too little. chances: of each name but the last, the share of resamples of the prompts whose changes,
    taken as they are, fit it. contrasts: by intervention. warnings: where fidelity fell.
    """

    model: str
    name: str
    chances: Mapping[str, float]
    contrasts: Mapping[str, Contrast]
    warnings: tuple[str, ...] = ()

    @property
    def possible(self) -> list[str]:
        """The strategies that what is decided does not rule out."""
        return [name for name, pattern in PATTERNS.items() if all(map(self.allows, pattern.items()))]

    def allows(self, expected: tuple[str, Outcome]) -> bool:
        intervention, outcome = expected
        return intervention not in DECISIVE or self.contrasts[intervention].outcome in (outcome, UNDECIDED)

    @property
    def reasons(self) -> list[str]:
        """Why, a sentence for each contrast, what the paper says of Paraphrase, and what would change the answer."""
        lines = [f"{name}: {contrast.words}." for name, contrast in self.contrasts.items()]
        if self.name in PATTERNS and PARAPHRASE in self.contrasts:
            seen, expected = self.contrasts[PARAPHRASE].outcome, PATTERNS[self.name][PARAPHRASE]
            agrees = "as" if seen == expected else "not as"
            lines.append(f"Under Paraphrase {agrees} in the paper, where it is {SAID[expected]}.")
        return [*lines, *self.other_answers()]

    def other_answers(self) -> list[str]:
        """What would have to come out otherwise for each strategy that it is one contrast away from."""
        lines = []
        for name, pattern in PATTERNS.items():
            others = [each for each in DECISIVE if self.contrasts[each].outcome != pattern[each]]
            if name != self.name and len(others) == 1:
                lines.append(f"It would be {name} if {others[0]} were {SAID[pattern[others[0]]]}.")
        return lines


SAID: Mapping[str, str] = {
    "zero": "to zero",
    "drop": "a drop",
    "rise": "a rise",
    "equivalent": "equivalent",
    "undecided": "undecided",
}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Verdict(Shown):
    """The strategies of the models of a probe, by name; `margin`: a smaller change counts as none."""

    strategies: Mapping[str, Strategy]
    margin: float

    @property
    def headline(self) -> str:
        return "Verdict: " + ", ".join(f"{model} is {one.name}" for model, one in self.strategies.items())

    @property
    def blocks(self) -> list[Block]:
        """One per model: its contrasts, its strategy with what speaks for it, and where fidelity fell."""
        return [block_of(strategy) for strategy in self.strategies.values()]

    @property
    def notes(self) -> list[str]:
        return [
            "drop, rise: a permutation test of prompts. equivalent: two one-sided tests within "
            f"{100 * self.margin:.0f}% of baseline. Both are adjusted for all contrasts of a model (Holm), 5% each. g: "
            "Hedges' g over prompts. Chances: under resampling of prompts. See docs/statistics.md."
        ]


def block_of(strategy: Strategy) -> Block:
    cells = [
        (
            name,
            interval_text(contrast.change, "+.0f", 100),
            "n/a" if np.isnan(contrast.effect) else f"{contrast.effect:+.1f}",
            contrast.outcome,
        )
        for name, contrast in strategy.contrasts.items()
    ]
    chances = ", ".join(f"{name} {100 * chance:.0f}%" for name, chance in strategy.chances.items() if chance >= 0.005)
    answer = f"{strategy.model} is {strategy.name}: {MEANING[strategy.name]}. Chances: {chances}."
    lines = [answer, *strategy.reasons, *strategy.warnings]
    return Block(strategy.model, ("contrast", "change %", "g", "outcome"), cells, lines)


def verdict(result: ProbeResult, *, margin: float = MARGIN) -> Verdict:
    """The strategy of each model of a probe, from its contrasts under Argmax, Subset and Paraphrase.

    `margin`: the share of baseline, in (0, 1), below which a change counts as none. Raises DivlensError for another
    margin, for a probe without baseline, Argmax and Subset alone as conditions, and for fewer than 2 prompts or
    samples.
    """
    if not isinstance(result, ProbeResult):
        raise DivlensError(f"verdict expects what divlens.probe returns, got {type(result).__name__}")
    if len(result.prompts) < 2 or result.n < 2:
        asked = f"{counted(len(result.prompts), 'prompt')} and {counted(result.n, 'sample')}"
        raise DivlensError(f"verdict expects at least 2 prompts and 2 samples of each, got {asked}")
    names = {kind: condition_of(result, kind) for kind in (ARGMAX, SUBSET, PARAPHRASE)}
    if missing := [kind for kind in DECISIVE if names[kind] is None]:
        raise DivlensError(f"verdict expects conditions of Argmax and Subset alone, got none of {', '.join(missing)}")
    models = list(dict.fromkeys(result.table["model"]))
    return Verdict(strategies={model: strategy_of(result, model, names, margin) for model in models}, margin=margin)


def condition_of(result: ProbeResult, kind: str) -> str | None:
    """The first condition that is this intervention and nothing else."""
    found = (name for name, done in result.conditions.items() if done.startswith(f"{kind}(") and ") + " not in done)
    return next(found, None)


def strategy_of(result: ProbeResult, model: str, names: Mapping[str, str | None], margin: float) -> Strategy:
    rows = result.per_prompt[result.per_prompt["model"] == model]

    def values(condition: str, column: str) -> Float[np.ndarray, " prompts"]:
        return np.array(rows.loc[rows["condition"] == condition, column], float)

    baseline = values(BASELINE, DIVERSITY)
    present = {kind: name for kind, name in names.items() if name is not None}
    diversity = {kind: values(name, DIVERSITY) for kind, name in present.items()}
    same = {kind: bool((values(name, columns.DUPLICATES) == result.n).all()) for kind, name in present.items()}
    contrasts = contrasts_of(baseline, diversity, same, margin=margin, seed=result.seed)
    table = result.table[(result.table["model"] == model) & result.table["condition"].isin(list(present.values()))]
    broken = falls([dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)])
    return Strategy(
        model=model,
        name=name_of({kind: contrast.outcome for kind, contrast in contrasts.items()}),
        chances=chances_of(baseline, diversity, same, margin, result.seed),
        contrasts=contrasts,
        warnings=tuple(f"Fidelity fell {line}: part of the diversity there may be breakage." for line in broken),
    )


def name_of(outcomes: Mapping[str, Outcome]) -> str:
    """The strategy that fits; "mixed" where none can, "undecided" where that is open."""
    fitting = [name for name, pattern in PATTERNS.items() if all(outcomes[each] == pattern[each] for each in DECISIVE)]
    if fitting:
        return fitting[0]
    open_ = [
        name
        for name, pattern in PATTERNS.items()
        if all(outcomes[each] in (pattern[each], UNDECIDED) for each in DECISIVE)
    ]
    return UNDECIDED if open_ else MIXED


def chances_of(
    baseline: Float[np.ndarray, " prompts"],
    conditions: Mapping[str, Float[np.ndarray, " prompts"]],
    only_duplicates: Mapping[str, bool],
    margin: float,
    seed: int,
) -> dict[str, float]:
    """How often resamples of the prompts fit each strategy, with their changes taken as they are."""
    known = ~np.isnan(np.stack([baseline, *(conditions[kind] for kind in DECISIVE)])).any(0)
    drawn = np.random.default_rng(seed).integers(known.sum(), size=(RESAMPLES, known.sum()))
    before = baseline[known][drawn].mean(1)
    outcomes: dict[str, Sequence[str]] = {}
    for kind in DECISIVE:
        change = conditions[kind][known][drawn].mean(1) / np.where(before > 0, before, np.nan) - 1
        seen = np.where(change < -margin, "drop", np.where(change > margin, "rise", "equivalent"))
        outcomes[kind] = ["zero"] * RESAMPLES if only_duplicates[kind] else seen.tolist()
    pairs = zip(*(outcomes[kind] for kind in DECISIVE), strict=True)
    answers = [name_of(dict(zip(DECISIVE, pair, strict=True))) for pair in pairs]  # pyright: ignore[reportArgumentType]
    return {name: answers.count(name) / RESAMPLES for name in (*PATTERNS, MIXED)}
