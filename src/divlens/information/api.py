"""`information`: draw samples, account for them as they are drawn, and bound what sampling alone does not show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from divlens.errors import DivlensError, check_whole
from divlens.information.accounting import QUANTITIES, UNKNOWN_RULE, Tally, account
from divlens.information.conditional_entropy import Bracket, conditional_entropy, full_support
from divlens.information.estimates import (
    BITS,
    LABELS,
    Estimate,
    Information,
    capped,
    certain,
    estimate,
    plus,
    undefined,
)
from divlens.information.exact_autoregressive import Exact, exact_for_ar
from divlens.information.kept import Kept
from divlens.information.laws import law_of
from divlens.information.mutual_information import mutual_information
from divlens.information.one_pass import MIXTURE, PATHS, Collected, collect, kept_of
from divlens.information.relevance import Judge, concepts_of, information_per_prompt
from divlens.information.token_entropy import TokenEntropy, token_entropies, usage
from divlens.interventions import Intervention, Settings, templated
from divlens.models.answers import loaded_model
from divlens.models.protocol import Model
from divlens.planning import BATCH_SIZE, MOST_SAMPLES, BatchSize, plan
from divlens.progress import OnBatch, followed
from divlens.prompts import distinct_prompts
from divlens.run import Run, wording_notes
from divlens.types import Prompt

FROZEN = "given the frozen {} noise of each prompt, not averaged over it"
PER_IMAGE = "per image: as if tokens were independent"
TOO_FEW = "needs 2 images of each prompt and a code that two images share"
FEWEST_HELD, MOST_HELD = 2, 256  # grids of a prompt that are kept for the bounds, unless more are asked for
ROUNDING = 1e-4  # bits, of sums over the steps and positions of a large grid
TRIVIAL = "0 bits: the bound came out below it"
NOT_FROZEN = "not defined under Freeze: the likelihood of a grid would need every frozen number"


@dataclass(frozen=True)
class Effort:
    """How much is spent on the bounds, beyond the accounting itself. With a dozen prompts of one wording the defaults
    cost two to three times the sampling, and of AR as much; with many prompts or wordings more, for no prompt is asked
    about with fewer than 2 grids: AR 2 / n of the sampling for every wording there is, other rules twice that.

    paths: per grid, of the bounds on H(Z|X) that weigh paths; 0 leaves them out. path_samples: grids per prompt that
    get them; None takes n / paths, but one of each wording. mixture_samples: grids per prompt that are asked under
    every wording of every prompt for I(X;Z); None takes n / (wordings of all prompts), and 0 leaves it out. None is
    never fewer than 2 grids, nor more than 256, for all of them are held until the end. paths are a million at most.
    """

    paths: int = 8
    path_samples: int | None = None
    mixture_samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("paths", "path_samples", "mixture_samples"):
            if name == "paths" or getattr(self, name) is not None:
                check_whole(f"Effort({name}=...)", getattr(self, name), 0)
        if self.paths > MOST_SAMPLES:
            raise DivlensError(
                f"Effort(paths=...) expects at most {MOST_SAMPLES:,} paths of a grid, got {self.paths:,}"
            )

    def grids(self, run: Run) -> tuple[int, int]:
        """Of each prompt: those that are weighed by paths, none where there is one path only, and those that are asked
        under the other prompts. None where the likelihood is not known."""
        law = law_of(run.settings.rule)
        if not law.known or run.settings.frozen:
            return 0, 0
        n, each = len(run.wordings[0]), [len(set(used)) for used in run.wordings]
        weighed = 0 if law.path_is_certain else self.for_paths(n, max(each))
        return weighed, self.for_mixture(n, sum(each))

    def for_paths(self, n: int, wordings: int) -> int:
        """`wordings`: the most that a prompt has."""
        if self.paths == 0:
            return 0
        return min(n, held(max(n // self.paths, wordings)) if self.path_samples is None else self.path_samples)

    def for_mixture(self, n: int, wordings: int) -> int:
        """`wordings`: of all prompts, each of which every grid is asked under."""
        return min(n, held(n // wordings) if self.mixture_samples is None else self.mixture_samples)


def held(wanted: int) -> int:
    return min(max(wanted, FEWEST_HELD), MOST_HELD)


def information(
    model: Model | str,
    prompts: Sequence[str | Prompt],
    n: int = 32,
    seed: int = 0,
    *,
    interventions: Sequence[Intervention] = (),
    reading: Literal["schedule", "trajectory"] = "schedule",
    judge: Judge | None = None,
    effort: Effort | None = None,
    batch_size: BatchSize = BATCH_SIZE,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> Information:
    """Where the entropy of a model's images sits: path, execution, H(Z|X), H(Z), I(X;Z), I(Z;Y); see docs/theory.md.

    `model`: a model, or the spec of one ("zoo/mim"). Probabilities are those the sampler draws from, under the
    interventions. `reading`: for diffusion, whether the path is the schedule of reveals and replacements or the whole
    latent trajectory z_T, ..., z_1. `judge`: pictures to labels, for I(Z;Y); Y is the concept that a prompt asks
    for: its own, or the one that its text names where the judge has `concepts`; else its text, whatever its case,
    spaces and leading article. For the zoo it is `divlens.load_judge()`. `effort`: a `divlens.Effort`, how much is
    spent on the bounds, which take longer than the samples. `progress`: True shows a bar on stderr. `on_batch` is told
    how many more samples are done. Raises DivlensError for bad prompts, n, seed, batch size, interventions, judge or
    effort, for an unknown reading, and for prompts that come twice.
    """
    run = plan(loaded_model(model), distinct_prompts(prompts), n, seed, interventions, batch_size=batch_size)
    return information_of_run(
        run,
        interventions,
        reading=reading,
        judge=judge,
        effort=effort,
        progress=progress,
        on_batch=on_batch,
    )


def information_of_run(
    run: Run,
    interventions: Sequence[Intervention] = (),
    *,
    reading: Literal["schedule", "trajectory"] = "schedule",
    judge: Judge | None = None,
    effort: Effort | None = None,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> Information:
    """The same of a run that is planned already, under these `interventions`."""
    if reading not in ("schedule", "trajectory"):
        raise DivlensError(f'information(reading=...) expects "schedule" or "trajectory", got {reading!r}')
    effort = effort or Effort()
    if not isinstance(effort, Effort):
        raise DivlensError(f"information(effort=...) expects an Effort, got {effort!r}")
    if judge is not None and not callable(judge):
        raise DivlensError(f"information(judge=...) expects a function of pictures, got {judge!r}")
    run, name = thawed(run), run.model.name
    with followed(progress, on_batch, len(run.rows), name) as told:
        collected = collect(run, effort.grids(run), judge, told.advance)
        told.describe(f"{name}: bounds")
        return accounted(run, collected, interventions, reading, judge, effort)


def accounted(
    run: Run,
    collected: Collected,
    interventions: Sequence[Intervention],
    reading: str,
    judge: Judge | None,
    effort: Effort,
) -> Information:
    """What samples that are drawn tell, and the bounds."""
    model, settings, n = run.model, run.settings, len(run.wordings[0])
    asked = [row.prompt for row in run.rows[::n]]
    positions, most, exact = math.prod(model.grid), full_support(run), None
    estimates = causal(collected.tally, settings, reading, most.value)
    weighed, asked_again = kept_of(collected, PATHS), kept_of(collected, MIXTURE)
    if law_of(settings.rule).path_is_certain and asked_again:
        exact = exact_for_ar(run, collected.tally, asked_again, most.value)
    bracket = bracket_of(run, collected.tally, estimates, effort.paths, weighed, exact)
    estimates |= {"conditional_lower": bracket.lower, "conditional_upper": bracket.upper}
    tokens = token_entropies(collected.tokens, most.value / BITS / positions)
    estimates |= {f"token_{name}": per_image(found, positions) for name, found in tokens.items()}
    estimates["relevant"] = relevance(collected, asked, judge)
    estimates |= over_prompts(run, estimates, asked_again, most, exact)
    path_map, execution_map = (
        part.numpy().reshape(-1, *model.grid) / (n * len(asked))
        for part in (collected.tally.path_map, collected.tally.execution_map)
    )
    return Information(
        model.name,
        tuple(repr(intervention) for intervention in interventions),
        tuple(prompt.text for prompt in asked),
        n,
        run.seed,
        run.drawn_with,
        positions,
        model.codes,
        reading,
        {name: estimates[name] for name in LABELS},
        bracket.tightness,
        path_map,
        execution_map,
        usage(collected.tokens),
        math.exp(tokens["plug_in"].value),
        tuple(notes_of(run, estimates, reading)),
        wording_notes(model, [wording for used in run.wordings for wording in used]),
        templated(asked, interventions),
        tuple(tuple(dict.fromkeys(used)) for used in run.wordings),
    )


def reworded(run: Run) -> bool:
    """Whether some prompt has more than one wording."""
    return any(len(set(used)) > 1 for used in run.wordings)


def thawed(run: Run) -> Run:
    """Without the Freeze of a stream that has no noise: it changes nothing, so it must not cost the likelihoods."""
    settings = run.settings
    return replace(run, settings=replace(settings, frozen=settings.frozen - settings.without_noise))


def per_image(found: TokenEntropy, positions: int) -> Estimate:
    """Nats per token to bits per image."""
    scale, note = BITS * positions, PER_IMAGE if math.isfinite(found.value) else TOO_FEW
    if math.isfinite(found.value) and math.isnan(found.mc_error):
        note = f"{note}; its Monte-Carlo error needs 3 images of each wording"
    value, low, high, error = (part * scale for part in (found.value, found.low, found.high, found.mc_error))
    return Estimate(value, low, high, error, found.mc_low * scale, found.mc_high * scale, note)


def causal(tally: Tally, settings: Settings, reading: str, most: float) -> dict[str, Estimate]:
    """The causal triple in the chosen reading, and under `schedule_` and `trajectory_` in both. `most`: bits of a grid
    at most."""
    note = "; ".join(FROZEN.format(stream) for stream in sorted(settings.frozen))
    found = {name: account(tally, name, settings, most, note) for name in QUANTITIES}
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
    run: Run, tally: Tally, found: dict[str, Estimate], paths: int, kept: Kept | None, exact: Exact | None
) -> Bracket:
    if not law_of(run.settings.rule).known:
        return Bracket(undefined(found["path"].note), full_support(run))
    if exact is not None and reworded(run):
        return Bracket(exact.conditional, exact.conditional)
    note = "; ".join(FROZEN.format(stream) for stream in sorted(run.settings.frozen))
    return conditional_entropy(run, tally, kept, paths, note)


def over_prompts(
    run: Run, found: dict[str, Estimate], kept: Kept | None, most: Estimate, exact: Exact | None
) -> dict[str, Estimate]:
    """I(X;Z), its ceiling, and H(Z) of whole images: I(X;Z) and H(Z|X), added bound by bound, `most` at most.
    `kept`: the samples that are asked under the other prompts. Y is a function of X, so I(X;Z) >= I(Z;Y)."""
    prompts = len(run.wordings)
    ceiling = Estimate(math.log2(prompts), note="I(X;Z) over this prompt set cannot be larger")
    if exact is not None:
        mutual = {"mutual_lower": exact.mutual, "mutual_upper": exact.mutual, "ceiling": ceiling}
        return mutual | {"sequence_lower": exact.sequence, "sequence_upper": exact.sequence}
    if not law_of(run.settings.rule).known:
        lower = upper = undefined(found["path"].note)
    elif run.settings.frozen:
        lower = upper = undefined(NOT_FROZEN)
    elif kept is None:
        lower = upper = undefined("left out: mixture_samples is 0")
    else:
        lower, upper = mutual_information(run, kept)
    lower, relevant = at_least_nothing(lower, prompts), found["relevant"]
    if not run.settings.frozen and math.isfinite(relevant.value) and not lower.value >= relevant.value:
        lower = replace(relevant, note=f"I(Z;Y), {relevant.note}")
    whole = capped(plus(found["conditional_upper"], upper), most.value)
    beyond = whole.value > most.value or not law_of(run.settings.rule).known  # of which only that nothing exceeds this
    return {
        "mutual_lower": lower,
        "mutual_upper": upper,
        "ceiling": ceiling,
        "sequence_lower": capped(plus(found["conditional_lower"], lower), most.value),
        "sequence_upper": most if beyond else whole,
    }


def relevance(collected: Collected, prompts: Sequence[Prompt], judge: Judge | None) -> Estimate:
    if judge is None:
        return undefined("no judge was given")
    moments = information_per_prompt(collected.readings, concepts_of(prompts, getattr(judge, "concepts", ())))
    found = estimate(moments, "cross-fitted on halves of the samples", limits=(0.0, math.log2(len(prompts))))
    return at_least_nothing(found, len(prompts))


def at_least_nothing(bound: Estimate, prompts: int) -> Estimate:
    """A lower bound of what is not negative: 0 bits where it came out below, with as much room above as it has."""
    if not bound.value < 0:
        return bound
    nothing, unknown = certain(0.0, prompts, TRIVIAL), math.isnan(bound.mc_error)
    return replace(
        nothing,
        high=max(bound.high, 0.0),
        mc_error=bound.mc_error,
        mc_low=math.nan if unknown else 0.0,
        mc_high=max(bound.mc_high, 0.0),
        per_prompt_mc_error=bound.per_prompt_mc_error,
        per_prompt_mc_low=(math.nan,) * prompts if unknown else nothing.per_prompt_mc_low,
        per_prompt_mc_high=tuple(max(high, 0.0) for high in bound.per_prompt_mc_high),
    )


def notes_of(run: Run, found: Mapping[str, Estimate], reading: str) -> Iterator[str]:
    law = law_of(run.settings.rule)
    yield from (FROZEN.format(stream) for stream in sorted(run.settings.frozen))
    if reworded(run):
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
