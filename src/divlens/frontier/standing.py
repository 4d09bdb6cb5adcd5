"""Where each method stands against plain guidance, and whether one is nearer to the true law without loss of fidelity.

Both are decided as the contrasts of a verdict are: paired by prompt, by sign-flip tests and two one-sided tests, with
Holm's adjustment over the methods; on the prompts that did not choose the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from divlens.conditions import BASELINE
from divlens.frontier.choices import Choice, means_of
from divlens.frontier.figures import Half, Shares, mixture
from divlens.frontier.methods import GUIDANCE
from divlens.statistics import Interval, bootstrap_mean, paired_change
from divlens.verdict.contrasts import LEVEL, MARGIN, Contrast, contrasts_of
from divlens.verdict.significance import holm, sign_flip_p

Word = Literal["ahead", "level", "behind", "undecided"]
WORDS: Mapping[str, Word] = {"rise": "ahead", "equivalent": "level", "drop": "behind", "zero": "behind"}


@dataclass(frozen=True)
class Standing:
    """A method against guidance, each with all of its frontier. diversity: that of the one against that of the other.
    fidelity: the difference, in the unit of the measure; both were allowed to lose the same of it."""

    word: Word
    diversity: Contrast
    fidelity: Interval


def standings_of(
    half: Half, choices: Mapping[str, Choice], most_loss: float, seed: int, margin: float = MARGIN
) -> dict[str, Standing]:
    """Of every method but guidance; `half`: the prompts that report. `most_loss`: as of `choice_of`.

    A method is ahead or behind where its diversity is, and level where that is equivalent within `margin` of that of
    guidance. Settings that kept to a loss of fidelity on the prompts that choose may lose more on others: who lost more
    than was allowed, beyond the 95% interval, is not ahead, and the other not behind.
    """
    rival, others = choices[GUIDANCE].shares, {name: one for name, one in choices.items() if name != GUIDANCE}
    if not others:
        return {}
    diversity = {name: mixture(half.diversity, one.shares) for name, one in others.items()}
    contrasts = contrasts_of(mixture(half.diversity, rival), diversity, {}, margin=margin, seed=seed)

    def overran(shares: Shares) -> bool:
        lost = paired_change(half.fidelity[BASELINE], mixture(half.fidelity, shares), seed)
        return lost.low > most_loss / 2  # the mean of all losses that are allowed

    found: dict[str, Standing] = {}
    for name, one in others.items():
        change = paired_change(mixture(half.fidelity, one.shares), mixture(half.fidelity, rival), seed)
        word = word_for(contrasts[name].outcome, overran(one.shares), overran(rival))
        found[name] = Standing(word, contrasts[name], change)
    return found


def word_for(outcome: str, overran: bool, rival_overran: bool) -> Word:
    word = WORDS.get(outcome, "undecided")
    against = {"ahead": overran, "behind": rival_overran, "level": overran or rival_overran}
    return "undecided" if against.get(word, False) else word


@dataclass(frozen=True)
class Candidate:
    """The setting of a method that might be nearer to the true law than baseline and guidance.

    distance: its distance. from_baseline, from_guidance: how that differs from theirs, and fidelity: how its fidelity
    differs from baseline's; paired. p_baseline, p_guidance: of no difference, 1 where it is the farther one.
    p_fidelity: of a loss by the margin or more. p: of all three together, adjusted for all methods that are tested.
    """

    method: str
    setting: str
    distance: Interval
    from_baseline: Interval
    from_guidance: Interval
    fidelity: Interval
    p_baseline: float
    p_guidance: float
    p_fidelity: float
    p: float

    @property
    def reaches(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True)
class Goal:
    """Whether a setting of any method is nearer to the true law than baseline and the best setting of guidance, at no
    loss of fidelity. guidance: that setting. candidates: one of each method that is nearer than both on the prompts
    that choose; the others are not tested, and cost the tested ones nothing."""

    guidance: str
    baseline_distance: Interval
    guidance_distance: Interval
    candidates: tuple[Candidate, ...]
    margin: float

    @property
    def reached_by(self) -> list[Candidate]:
        """The nearest first."""
        return sorted((one for one in self.candidates if one.reaches), key=lambda one: one.distance.value)


def goal_of(
    chooses: Half,
    reports: Half,
    choices: Mapping[str, Choice],
    guidance: Sequence[str],
    margin: float,
    seed: int,
) -> Goal | None:
    """`guidance`: its settings, of which the nearest on the prompts that choose is the rival, whatever fidelity it
    loses. `margin`: of fidelity, in its own unit. None where the distance is not known."""
    if chooses.distance is None or reports.distance is None:
        return None
    known, distance = means_of(chooses.distance), reports.distance
    rival = min(guidance, key=lambda name: known[name])
    nearest = {name: one.nearest for name, one in choices.items() if name != GUIDANCE}
    tested = {
        name: setting
        for name, setting in nearest.items()
        if setting is not None and known[setting] < min(known[BASELINE], known[rival])
    }

    def lower(one: str, other: str) -> float:
        change = distance[one] - distance[other]
        return float(sign_flip_p(change, "two-sided", seed)) if change.sum() < 0 else 1.0

    def parts(setting: str) -> list[float]:
        kept = reports.fidelity[setting] - reports.fidelity[BASELINE] + margin
        return [lower(setting, BASELINE), lower(setting, rival), float(sign_flip_p(kept, "greater", seed))]

    p_values = {name: parts(setting) for name, setting in tested.items()}
    adjusted = holm(np.array([max(of) for of in p_values.values()])) if tested else np.empty(0)

    candidates = [
        Candidate(
            name,
            setting,
            bootstrap_mean(distance[setting], seed),
            paired_change(distance[setting], distance[BASELINE], seed),
            paired_change(distance[setting], distance[rival], seed),
            paired_change(reports.fidelity[setting], reports.fidelity[BASELINE], seed),
            *p_values[name],
            p=float(p),
        )
        for (name, setting), p in zip(tested.items(), adjusted, strict=True)
    ]
    baseline_distance, rival_distance = (bootstrap_mean(distance[name], seed) for name in (BASELINE, rival))
    return Goal(rival, baseline_distance, rival_distance, tuple(candidates), margin)
