"""From the figures of a probe to a frontier: a pure function of them. Nothing is drawn, and no model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from divlens.conditions import BASELINE
from divlens.experiment.measures import DIVERSITY, FIDELITY, LAW_DISTANCE, OPENNESS, Measure, named
from divlens.experiment.result import ProbeResult
from divlens.frontier.choices import Choice, choice_of, pareto_set
from divlens.frontier.figures import Figures, halves_of, mixture
from divlens.frontier.methods import GUIDANCE, by_method
from divlens.frontier.standing import Goal, Standing, goal_of, standings_of
from divlens.statistics import Interval, bootstrap_mean, paired_change, relative_change
from divlens.verdict.evidence import values_in

FEWEST = 2  # prompts of each half that have all figures
MOST_LOSS = 0.2  # of fidelity: 20 points of a share, or this part of what baseline has
SAME_FIDELITY = 0.02  # a smaller loss counts as none: 2 points of a share


@dataclass(frozen=True)
class Gain:
    """A chosen setting against baseline, over the prompts that report. diversity: a share of baseline's. fidelity: the
    difference, in the unit of the measure."""

    setting: str
    diversity: Interval
    fidelity: Interval


@dataclass(frozen=True)
class Reached:
    """What a method reaches on the prompts that report. area: its diversity, meaned over all losses of fidelity that
    are allowed. of_baseline: that as a share of baseline's diversity. at_equal_fidelity, at_equal_diversity: of the
    setting that is the most diverse, or the most faithful, at no loss of the other. standing: None of guidance
    itself."""

    settings: tuple[str, ...]
    choice: Choice
    area: Interval
    of_baseline: Interval
    at_equal_fidelity: Gain
    at_equal_diversity: Gain
    standing: Standing | None


@dataclass(frozen=True, eq=False)
class Analysis:
    """`fidelity`, of which `most_loss` was allowed, is None where nobody can tell it. pareto: of all settings those
    that none beats in both, on the prompts that choose. goal: None where the true law is not known."""

    figures: Figures
    diversity: Measure
    fidelity: Measure | None
    most_loss: float
    methods: Mapping[str, Reached]
    pareto: tuple[str, ...]
    goal: Goal | None


def figures_of(probed: ProbeResult, fidelity: str | None) -> Figures:
    """What stands for diversity and for fidelity: openness and respect of what was named where a judge can tell both;
    else LPIPS diversity and, where it was asked for, the measure `fidelity`. A figure counts that enough prompts of
    each half have; LPIPS diversity is one of every prompt."""
    names = {each.name for each in probed.measures}
    choices: list[tuple[str, str | None, str | None]] = [(DIVERSITY, fidelity, None)]
    if fidelity in (None, FIDELITY):
        choices = [(OPENNESS, FIDELITY, LAW_DISTANCE.name), (DIVERSITY, FIDELITY, None)]

    def column(setting: str, name: str) -> Float[np.ndarray, " prompts"]:
        return values_in(probed.per_prompt, setting, name)

    found: Figures | None = None
    for listed in [*choices, (DIVERSITY, None, None)]:
        if not names.issuperset(name for name in listed if name is not None):
            continue
        texts = [prompt.text for prompt in probed.prompts]
        found = halves_of(texts, list(probed.conditions), column, *listed)
        if min(found.chooses.prompts, found.reports.prompts) >= FEWEST:
            break
    assert found is not None  # the last of them has no measure that could be missing
    return found


def analysed(probed: ProbeResult, fidelity: str | None = None) -> Analysis:
    """The frontier of a probe of one model whose conditions are those of `methods.conditions_of`."""
    figures, seed = figures_of(probed, fidelity), probed.seed
    measure = None if figures.fidelity is None else named(probed.measures, figures.fidelity)
    unit = unit_of(measure, float(figures.chooses.fidelity[BASELINE].mean()))
    tried = by_method(probed.conditions)
    choices = {method: choice_of(figures.chooses, settings, MOST_LOSS * unit) for method, settings in tried.items()}
    standings = standings_of(figures.reports, choices, MOST_LOSS * unit, seed)
    return Analysis(
        figures=figures,
        diversity=named(probed.measures, figures.diversity),
        fidelity=measure,
        most_loss=MOST_LOSS * unit,
        methods={
            method: reached(figures, settings, choices[method], standings.get(method), seed)
            for method, settings in tried.items()
        },
        pareto=tuple(pareto_set(figures.chooses)),
        goal=goal_of(figures.chooses, figures.reports, choices, tried[GUIDANCE], SAME_FIDELITY * unit, seed),
    )


def unit_of(fidelity: Measure | None, baseline: float) -> float:
    """Of what losses of fidelity are parts: of 1 for a share, else of what baseline has."""
    return 1.0 if fidelity is None or fidelity.unit == "%" else abs(baseline) or 1.0


def reached(
    figures: Figures, settings: tuple[str, ...], choice: Choice, standing: Standing | None, seed: int
) -> Reached:
    half = figures.reports
    weighted, baseline = mixture(half.diversity, choice.shares), half.diversity[BASELINE]

    def gain(setting: str) -> Gain:
        change = relative_change(half.diversity[setting], baseline, seed)
        return Gain(setting, change, paired_change(half.fidelity[setting], half.fidelity[BASELINE], seed))

    return Reached(
        settings=settings,
        choice=choice,
        area=bootstrap_mean(weighted, seed),
        of_baseline=relative_change(weighted, baseline, seed) + Interval.exactly(1.0),
        at_equal_fidelity=gain(choice.most_diverse),
        at_equal_diversity=gain(choice.most_faithful),
        standing=standing,
    )
