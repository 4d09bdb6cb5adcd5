"""Measures that are known by name: for a run whose samples are there, and of which more is to be known."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from divlens.diversity import NETWORKS, network_of
from divlens.errors import DivlensError
from divlens.experiment.families import FAMILIES, WRITTEN, family_measure, is_of_family
from divlens.experiment.measures import (
    DIVERSITY,
    EQUAL_N,
    FIDELITY,
    KEPT,
    LAW_DISTANCE,
    OPENNESS,
    Distances,
    Measure,
    checked_measures,
    named,
    usual_measures,
)
from divlens.fidelity import Judge


def token_entropy(tokens: Int[Tensor, "n positions"]) -> float:
    """Mean over positions of the entropy of the tokens that stand there in the samples of a prompt, in bits.

    The plug-in: with c_k of n samples that have code k, log2 n - sum_k c_k log2 c_k / n. It is at most log2 n, and too
    low: by (k - 1) / (2n ln 2) bits or so at a position where k codes are possible (Miller, 1955), by more where n is
    not much more than k. No estimate of an entropy is without bias at every n (Paninski, 2003). `divlens.information`
    has the entropies of the laws that tokens were drawn from.
    """
    n, positions = tokens.shape
    if n == 0:
        return math.nan
    codes = int(tokens.max()) + 1
    place = tokens.long() + codes * torch.arange(positions)  # of a code at a position, a number of its own
    count = torch.unique(place, return_counts=True)[1].double()
    return math.log2(n) - float((count * count.log2()).sum()) / (n * positions)


TOKEN_ENTROPY = Measure(
    "token_entropy",
    token_entropy,
    "tokens",
    "bits",
    (0.0, math.inf),
    "token entropy",
    f"mean over positions of the plug-in entropy of a prompt's tokens there, at most log2 of the samples; {EQUAL_N}",
)


def distances_by(network: str) -> Measure:
    """The mean pairwise distance of a prompt's pictures by another LPIPS network. Raises DivlensError where the network
    cannot be loaded."""
    known = network_of(network)
    return Measure(f"lpips:{network}", lambda prompt: Distances(known), "set", limits=(0.0, math.inf))


def usual(name: str) -> Callable[[Judge | None], Measure]:
    return lambda judge: named(usual_measures(judge), name)


def of_any_judge(measure: Measure) -> Callable[[Judge | None], Measure]:
    return lambda judge: measure


def other_network(name: str) -> Callable[[Judge | None], Measure]:
    return lambda judge: distances_by(name)


# By its name, the measure for a model that this judge looks at.
KNOWN: Mapping[str, Callable[[Judge | None], Measure]] = {
    **{name: usual(name) for name in (DIVERSITY, OPENNESS, FIDELITY, KEPT)},
    **{f"lpips:{name}": other_network(name) for name in NETWORKS},
    **{measure.name: of_any_judge(measure) for measure in (LAW_DISTANCE, TOKEN_ENTROPY)},
}


def measure_or_name(asked: str | Measure, skip_broken: bool = False) -> str | Measure:
    """The measure of a name that has one whatever the judge, see `families`; a measure, and a name in KNOWN, as it is.

    Raises DivlensError, which lists those that are, for a name that is not known, and for what a family refuses.
    """
    if not isinstance(asked, str) or asked in KNOWN:
        return asked
    if (measure := family_measure(asked, skip_broken)) is not None:
        return measure
    close = difflib.get_close_matches(asked, [*KNOWN, *FAMILIES], 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise DivlensError(f"no measure is called {asked!r:.40}; {hint}known: {known_names()}")


def checked_by_name(measures: Sequence[str | Measure]) -> tuple[Measure, ...]:
    """As `checked_measures`, where a name stands for the measure that has it. Raises DivlensError for what that or
    `measure_or_name` refuses."""
    if not isinstance(measures, Sequence) or isinstance(measures, str):
        return checked_measures(measures)
    found = [measure_or_name(each) for each in measures]
    return checked_measures([KNOWN[each](None) if isinstance(each, str) else each for each in found])


def is_known(name: str) -> bool:
    """Whether a measure of the package has the name, though it may still be refused for what stands after a colon."""
    return name in KNOWN or is_of_family(name)


def known_names() -> str:
    """As a user may write them."""
    return ", ".join([*KNOWN, *WRITTEN])
