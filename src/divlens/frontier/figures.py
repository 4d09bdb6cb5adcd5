"""What a frontier is made of: the figures of every prompt under every setting, and which prompts choose among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Values = Mapping[str, Float[np.ndarray, " prompts"]]  # by the name of the setting; baseline is one of them
Shares = Mapping[str, float]  # by the name of the setting; they add up to 1


def choosing(texts: Sequence[str]) -> Bool[np.ndarray, " prompts"]:
    """Which of the prompts choose settings, half of them or one less; the others report what the chosen ones give.

    A prompt's half goes by a hash of its text among those of the others: neither the order in which prompts are written
    nor what they have in common at every second place counts.
    """
    order = sorted(range(len(texts)), key=lambda place: hashlib.blake2b(texts[place].encode()).digest())
    found = np.zeros(len(texts), bool)
    found[order[: len(texts) // 2]] = True
    return found


@dataclass(frozen=True, eq=False)
class Half:
    """Figures of some prompts, all of them known. fidelity is 0 throughout where nobody can tell it: then no setting
    loses any. distance: to the true law, None where that is not known."""

    diversity: Values
    fidelity: Values
    distance: Values | None = None

    @property
    def prompts(self) -> int:
        return len(next(iter(self.diversity.values())))

    def of(self, some: Bool[np.ndarray, " prompts"]) -> Half:
        """The figures of some of the prompts."""
        distance = None if self.distance is None else part_of(self.distance, some)
        return Half(part_of(self.diversity, some), part_of(self.fidelity, some), distance)


def part_of(values: Values, some: Bool[np.ndarray, " prompts"]) -> Mapping[str, Float[np.ndarray, " some"]]:
    return {name: column[some] for name, column in values.items()}


@dataclass(frozen=True, eq=False)
class Figures:
    """Of a model both halves of the prompts. diversity, fidelity: the names of the measures; fidelity is None where
    nobody can tell it. left_out: how many prompts lack a figure under some setting."""

    chooses: Half
    reports: Half
    diversity: str
    fidelity: str | None
    left_out: int


def halves_of(
    texts: Sequence[str],
    settings: Sequence[str],
    column: Callable[[str, str], Float[np.ndarray, " prompts"]],
    diversity: str,
    fidelity: str | None,
    distance: str | None,
) -> Figures:
    """`column`: of a setting and a measure the values of every prompt, NaN where undefined. A prompt that lacks one of
    the figures under any setting is left out of both halves, so that settings are compared over the same prompts."""
    names = [name for name in (diversity, fidelity, distance) if name is not None]
    found = {name: {setting: column(setting, name) for setting in settings} for name in names}
    known = ~np.isnan([values for of in found.values() for values in of.values()]).any(0)
    nothing = dict.fromkeys(settings, np.zeros(len(texts)))
    whole = Half(found[diversity], nothing if fidelity is None else found[fidelity], found.get(distance or ""))
    first = choosing(texts)
    return Figures(whole.of(known & first), whole.of(known & ~first), diversity, fidelity, int((~known).sum()))


def mixture(values: Values, shares: Shares) -> Float[np.ndarray, " prompts"]:
    """Of every prompt the mean of its values under several settings."""
    return sum((share * values[name] for name, share in shares.items()), np.zeros(()))
