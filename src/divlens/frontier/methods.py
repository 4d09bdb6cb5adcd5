"""The methods that raise diversity, each with as many settings as any other: who tries more settings finds better ones.

A method is a line of `METHODS`. Its settings are conditions of a probe, which are called "method=setting".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from divlens.conditions import BASELINE
from divlens.errors import DivlensError
from divlens.interventions import (
    Detailed,
    DisableTop,
    Guidance,
    Intervention,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
)
from divlens.lab.reading import all_read
from divlens.methods import EntropyTemperature, GuidanceInterval, MinP, RepulseTokens
from divlens.models.protocol import Model
from divlens.settings import Settings
from divlens.types import Prompt

GUIDANCE = "guidance"  # the rival of all others: what is usually done for more diversity
SETTINGS = 4  # of each method
DISABLED = (0.02, 0.05, 0.1, 0.2)  # of the codebook, by all methods that disable codes

Tried = Mapping[str, tuple[Intervention, ...]]  # by what a setting is called


def every_prompt(prompts: Sequence[Prompt]) -> bool:
    return True


def not_all_read(prompts: Sequence[Prompt]) -> bool:
    """Where the laboratory knows what all prompts leave open, its own words fill that in."""
    return not all_read(prompts)


@dataclass(frozen=True)
class Method:
    """`settings`: those that are tried of a model. `suits`: whether they are possible for prompts."""

    name: str
    settings: Callable[[Model], Tried]
    suits: Callable[[Sequence[Prompt]], bool] = every_prompt


def at(
    make: Callable[..., Intervention], *doses: float, before: Sequence[Intervention] = ()
) -> Callable[[Model], Tried]:
    """The settings of a method with a dose, each after what is done `before`."""
    return lambda model: {f"{dose:g}": (*before, make(dose)) for dose in doses}


def lower_guidance(model: Model) -> Tried:
    """Two steps towards no guidance, none, and less: a model of no guidance has only the less."""
    own = model.guidance
    towards_none = (1 + (own - 1) * 2 / 3, 1 + (own - 1) / 3, 1.0, 0.8)
    scales = towards_none if own > 1 else (0.8 * own, 0.6 * own, 0.4 * own, 0.2 * own)
    return {f"{scale:.3g}": (Guidance(round(scale, 6)),) for scale in scales}


def fewer_codes(model: Model) -> Tried:
    """From half of the codebook to a sixteenth of it."""
    return {f"{k}": (TopK(k),) for k in (max(1, model.codes // part) for part in (2, 4, 8, 16))}


def part_of_the_steps(model: Model) -> Tried:
    """Guidance in the later half or three quarters of the steps, or in the earlier."""
    shares = ((0.25, 1.0), (0.5, 1.0), (0.0, 0.75), (0.0, 0.5))
    return {f"{first:g}-{last:g}": (GuidanceInterval(first, last),) for first, last in shares}


def everyday(details: int) -> Detailed:
    return Detailed(details, words="everyday")


def random_top(fraction: float) -> DisableTop:
    return DisableTop(fraction, by="random")


MIXED, SHORT, LONG = ([Paraphrase(lengths=lengths)] for lengths in ("mixed", "short", "long"))
ALL_NAMED = [Detailed(4)]
METHODS: tuple[Method, ...] = (
    Method(GUIDANCE, lower_guidance),
    Method("temperature", at(Temperature, 1.1, 1.25, 1.5, 2.0)),
    Method("top-k", fewer_codes),
    Method("top-p", at(TopP, 0.98, 0.95, 0.9, 0.8)),
    Method("min-p", at(MinP, 0.02, 0.05, 0.1, 0.2)),
    Method("entropy-temperature", at(EntropyTemperature, 0.4, 0.5, 0.6, 0.7)),
    Method("guidance-interval", part_of_the_steps),
    Method("repulse-tokens", at(RepulseTokens, 0.25, 0.5, 1.0, 2.0)),
    Method("disable-top", at(DisableTop, *DISABLED)),
    Method("subset", at(Subset, 0.9, 0.75, 0.5, 0.25)),
    Method("paraphrase", lambda model: {of: (Paraphrase(lengths=of),) for of in ("similar", "short", "long", "mixed")}),
    Method("detailed", lambda model: {f"{count}": (Detailed(count),) for count in (1, 2, 3, 4)}, all_read),
    Method("detailed-cooler", at(Temperature, 0.9, 0.8, 0.7, 0.6, before=ALL_NAMED), all_read),
    Method("everyday", lambda model: {f"{count}": (everyday(count),) for count in (1, 2, 3, 4)}, not_all_read),
    Method("everyday-cooler", at(Temperature, 0.9, 0.8, 0.7, 0.6, before=[everyday(4)]), not_all_read),
    Method("enhancer", at(DisableTop, *DISABLED, before=MIXED)),
    Method("enhancer-short", at(DisableTop, *DISABLED, before=SHORT)),
    Method("enhancer-long", at(DisableTop, *DISABLED, before=LONG)),
    Method("random-codes", at(random_top, *DISABLED, before=MIXED)),
)


def methods_named(names: Sequence[str] | None) -> tuple[Method, ...]:
    """Those of these names, in the order of the table, and guidance, which the others are held against; None for all.
    Raises DivlensError for another name."""
    if names is None:
        return METHODS
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise DivlensError(f"methods expects a list of names, got {names!r:.80}")
    known = [method.name for method in METHODS]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise DivlensError(f"no method is called {name!r:.40}; {hint}known: {', '.join(known)}")
    return tuple(method for method in METHODS if method.name in (GUIDANCE, *names))


def conditions_of(methods: Sequence[Method], model: Model) -> dict[str, Sequence[Intervention]]:
    """Baseline, and every setting of the methods."""
    found: dict[str, Sequence[Intervention]] = {BASELINE: ()}
    for method in methods:
        found |= {f"{method.name}={setting}": done for setting, done in method.settings(model).items()}
    return found


def by_method(conditions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The settings of each method, by their names; `conditions`: names that `conditions_of` gave."""
    found: dict[str, tuple[str, ...]] = {}
    for name in conditions:
        if name != BASELINE:
            method = name.partition("=")[0]
            found[method] = (*found.get(method, ()), name)
    return found


def passes_of(settings: Settings) -> int:
    """How often the network is asked for a sample: once a step and, with guidance, once more without the prompt."""
    return settings.rule.steps * (2 if settings.needs_guidance else 1)
