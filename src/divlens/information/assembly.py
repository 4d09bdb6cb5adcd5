"""From the sums over the samples, and the few that are stored, to all that `information` tells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from divlens.information.accounting import QUANTITIES, UNKNOWN_RULE, Tally
from divlens.information.conditional_entropy import Bracket, conditional_entropy, full_support
from divlens.information.estimates import (
    BITS,
    Estimate,
    estimate,
    undefined,
    without_error,
)
from divlens.information.exact_autoregressive import Exact, exact_for_ar
from divlens.information.laws import law_of
from divlens.information.mutual_information import mutual_information
from divlens.information.one_pass import MIXTURE, PATHS, Collected, stored_for
from divlens.information.plan import Accounting
from divlens.information.relevance import Judge, concepts_of, information_per_prompt
from divlens.information.result import Information
from divlens.information.stored import StoredSamples
from divlens.information.token_entropy import token_entropies, usage
from divlens.information.unseen import estimate_of_quantity
from divlens.interventions import templated
from divlens.run import Run, wording_notes
from divlens.settings import Settings
from divlens.statistics import Interval
from divlens.types import Prompt

GIVEN: Mapping[str, str] = {
    "path": "given the frozen path noise of each prompt, not averaged over it",
    "execution": "given the frozen execution noise of each prompt, not averaged over it",
    "condition": "given the noise of each sample's condition, not averaged over it",
}
PER_IMAGE = "per image: as if tokens were independent"
TOO_FEW = "needs 2 images of each prompt and a code that two images share"
ROUNDING = 1e-4  # bits, of sums over the steps and positions of a large grid
TRIVIAL = "0 bits: the bound came out below it"
NOT_FROZEN = "not defined under Freeze: the likelihood of a grid would need every frozen number"
NOT_AVERAGED = "not known under ConditionNoise: the likelihood of a grid would be a mean over all that the noise may be"


def result_of(accounting: Accounting, run: Run, collected: Collected) -> Information:
    """What follows from the sums over the samples, and the bounds. `run`: without Freezes that change nothing."""
    model, prompts, n = run.model, accounting.prompts, len(run.wordings[0])
    positions, most = math.prod(model.grid), full_support(run)
    found = causal(collected.tally, run.settings, accounting.reading, most.value)
    for_paths, for_mixture = (stored_for(use, collected) for use in (PATHS, MIXTURE))
    exact = None
    if law_of(run.settings.rule).path_is_certain and for_mixture:
        exact = exact_for_ar(run, collected.tally, for_mixture, most.value)
    bracket = bracket_of(run, collected.tally, found, accounting.effort.paths, for_paths, exact)
    found |= {"conditional_lower": bracket.lower, "conditional_upper": bracket.upper}
    tokens = token_entropies(collected.tokens, most.value / BITS / positions)
    found |= {f"token_{name}": per_image(one, positions) for name, one in tokens.items()}
    found["relevant"] = relevance(collected, prompts, accounting.judge)
    found |= over_prompts(run, found, for_mixture, most, exact)
    path_map, execution_map = (
        part.numpy().reshape(-1, *model.grid) / (n * len(prompts))
        for part in (collected.tally.path_map, collected.tally.execution_map)
    )
    return Information(
        request=accounting.request,
        model=model.name,
        condition=accounting.condition,
        interventions=tuple(repr(intervention) for intervention in accounting.interventions),
        prompts=prompts,
        n=n,
        seed=run.seed,
        drawn_with=run.drawn_with,
        positions=positions,
        codes=model.codes,
        reading=accounting.reading,
        **found,
        tightness=bracket.tightness,
        path_map=path_map,
        execution_map=execution_map,
        usage=usage(collected.tokens),
        perplexity=math.exp(tokens["plug_in"].value),
        remarks=tuple(notes_of(run, found, accounting.reading)),
        wording_notes=wording_notes(model, [wording for used in run.wordings for wording in used]),
        templated=templated(prompts, accounting.interventions),
        wordings=tuple(tuple(dict.fromkeys(used)) for used in run.wordings),
    )


def has_several_wordings(run: Run) -> bool:
    """Whether some prompt has more than one wording."""
    return any(len(set(used)) > 1 for used in run.wordings)


def note_of_given_noise(settings: Settings) -> str:
    return "; ".join(GIVEN[stream] for stream in sorted(settings.given))


def per_image(found: Estimate, positions: int) -> Estimate:
    """Nats per token to bits per image."""
    note = PER_IMAGE if math.isfinite(found.value) else TOO_FEW
    if math.isfinite(found.value) and math.isnan(found.mc_error):
        note = f"{note}; its Monte-Carlo error needs 3 images of each wording"
    return replace(found * (BITS * positions), note=note)


def causal(tally: Tally, settings: Settings, reading: str, most: float) -> dict[str, Estimate]:
    """Path, execution and joint in the chosen reading, and under names with `schedule_` and `trajectory_` in both.
    `most`: the bits that no grid exceeds."""
    note = note_of_given_noise(settings)
    found = {name: estimate_of_quantity(tally, name, settings, most, note) for name in QUANTITIES}
    law = law_of(settings.rule)
    if not law.known:
        reason = UNKNOWN_RULE.format(type(settings.rule).__name__)
        found["execution"] = replace(found["execution"], note=reason)
        for name in QUANTITIES:
            if name != "execution":
                found[name] = undefined(reason)
    if law.draws_once:
        for name in QUANTITIES[:3]:
            found[f"trajectory_{name}"] = found[name]
    for name in QUANTITIES[:3]:
        found[f"schedule_{name}"] = found[name]
        if reading == "trajectory":
            found[name] = found[f"trajectory_{name}"]
    return found


def bracket_of(
    run: Run, tally: Tally, found: dict[str, Estimate], paths: int, stored: StoredSamples | None, exact: Exact | None
) -> Bracket:
    """H(Z|X) from below and above. `paths`: how many are weighed for each grid of the `stored` samples."""
    if not law_of(run.settings.rule).known:
        return Bracket(undefined(found["path"].note), full_support(run))
    if exact is not None and has_several_wordings(run):
        return Bracket(exact.conditional, exact.conditional)
    bracket = conditional_entropy(run, tally, stored, paths, note_of_given_noise(run.settings))
    if run.settings.condition_noise is None:
        return bracket
    # What is given lowers an entropy: so the lower bound holds without the noise, too, and the upper one does not.
    return Bracket(bracket.lower, full_support(run))


def over_prompts(
    run: Run, found: dict[str, Estimate], stored: StoredSamples | None, most: Estimate, exact: Exact | None
) -> dict[str, Estimate]:
    """I(X;Z), its ceiling, and H(Z) of whole images, which is I(X;Z) + H(Z|X) bound by bound, and no more than `most`.

    `stored`: the samples that are asked about under the other prompts. Y is a function of X, so I(X;Z) >= I(Z;Y).
    """
    ceiling = without_error(math.log2(len(run.wordings)), "I(X;Z) over this prompt set cannot be larger")
    if exact is not None:
        mutual = {"mutual_lower": exact.mutual, "mutual_upper": exact.mutual, "ceiling": ceiling}
        return mutual | {"sequence_lower": exact.sequence, "sequence_upper": exact.sequence}
    if not law_of(run.settings.rule).known:
        lower = upper = undefined(found["path"].note)
    elif run.settings.given:
        lower = upper = undefined(NOT_FROZEN if run.settings.frozen else NOT_AVERAGED)
    elif stored is None:
        lower = upper = undefined("left out: mixture_samples is 0")
    else:
        lower, upper = mutual_information(run, stored)
    lower, relevant = not_below_zero(lower), found["relevant"]
    if not run.settings.frozen and math.isfinite(relevant.value) and not lower.value >= relevant.value:
        lower = replace(relevant, note=f"I(Z;Y), {relevant.note}")
    upper_sum = (found["conditional_upper"] + upper).at_most(most.value)
    # Of a rule that is not known, only that no grid has more bits.
    only_most = upper_sum.value > most.value or not law_of(run.settings.rule).known
    return {
        "mutual_lower": lower,
        "mutual_upper": upper,
        "ceiling": ceiling,
        "sequence_lower": (found["conditional_lower"] + lower).at_most(most.value),
        "sequence_upper": most if only_most else upper_sum,
    }


def relevance(collected: Collected, prompts: Sequence[Prompt], judge: Judge | None) -> Estimate:
    """I(Z;Y) from below."""
    if judge is None:
        return undefined("no judge was given")
    means = information_per_prompt(collected.readings, concepts_of(prompts, judge))
    found = estimate(means, "cross-fitted on halves of the samples", limits=(0.0, math.log2(len(prompts))))
    return not_below_zero(found)


def not_below_zero(bound: Estimate) -> Estimate:
    """A lower bound of what is not negative. Where it came out below 0 it becomes 0 bits, with the upper ends that it
    had."""
    if not bound.value < 0:
        return bound

    def from_zero(old: Interval) -> Interval:
        return Interval(0.0, old.low if math.isnan(old.low) else 0.0, max(old.high, 0.0))

    return replace(
        bound,
        over_prompts=from_zero(bound.over_prompts),
        monte_carlo=from_zero(bound.monte_carlo),
        per_prompt=tuple(map(from_zero, bound.per_prompt)),
        note=TRIVIAL,
    )


def notes_of(run: Run, found: Mapping[str, Estimate], reading: str) -> Iterator[str]:
    """What the reader of the tables must know of this result."""
    law = law_of(run.settings.rule)
    yield from (GIVEN[stream] for stream in sorted(run.settings.given))
    if has_several_wordings(run):
        yield (
            "path, execution and joint, and what is said of H(P|X) and H(Z|P,X), are given the wording; H(Z|X) "
            f"{'' if found['conditional_lower'] == found['conditional_upper'] else 'at most '}includes which it was"
        )
    if law.map_note:
        yield law.map_note
    if not law.draws_once and reading == "trajectory":
        yield "maps and steps are of the schedule"
    for name, label in (("conditional", "H(Z|X)"), ("mutual", "I(X;Z)"), ("sequence", "H(Z) of images")):
        if found[f"{name}_lower"].value > found[f"{name}_upper"].value + ROUNDING:
            yield f"{label}: the bounds cross, for their Monte-Carlo errors are larger than what lies between them"
