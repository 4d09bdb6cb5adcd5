"""Sweeps: one intervention at several doses, each a condition of its own: "Subset=1,0.5,0.25,0.1,0.05"."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from divlens.conditions import BASELINE, Conditions
from divlens.errors import DivlensError, is_number, shown
from divlens.interventions import (
    Argmax,
    DisableTop,
    Guidance,
    Intervention,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
)
from divlens.methods import ConditionNoise, MinP, PathTemperature, RepulseTokens, StratifiedNoise
from divlens.notation import call_from

EXPECTED = 'expected a sweep such as "Subset=1,0.5,0.25" or "Subset(by=\'random\')=1,0.5,0.25"'


@dataclass(frozen=True)
class Dose:
    """`field`: of an intervention, the one that is its dose. `none`: the dose of no effect, from which doses grow
    stronger either way; infinite where no number is it, and on that side doses are weakest."""

    field: str
    none: float


DOSES: Mapping[Any, Dose] = {
    Subset: Dose("fraction", 1.0),
    DisableTop: Dose("fraction", 0.0),
    Argmax: Dose("share", 0.0),
    Paraphrase: Dose("n", 1),
    Temperature: Dose("t", 1.0),
    TopP: Dose("p", 1.0),
    MinP: Dose("p", 0.0),
    TopK: Dose("k", math.inf),
    Guidance: Dose("scale", -math.inf),  # every model has a scale of its own, so that 1 is no "as it is"
    PathTemperature: Dose("tau", -math.inf),  # the same
    ConditionNoise: Dose("s", -math.inf),  # at s = 0 the condition fades in all the same
    StratifiedNoise: Dose("strata", 1),
    RepulseTokens: Dose("strength", 0.0),
}
# One wording of these lengths is the shortest or the longest, and not the prompt's own; without its noise the path is
# another.
NEVER_NOTHING = {("lengths", "mixed"), ("lengths", "short"), ("lengths", "long"), ("scope", "all")}


@dataclass(frozen=True)
class Swept:
    """An intervention whose dose is left open, with its other fields: what a sweep is of."""

    kind: Any
    others: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        """As Python writes it, without the dose and without what is as usual: "Subset", "Subset(by='random')"."""
        listed = ", ".join(f"{field}={value!r}" for field, value in self.others)
        return f"{self.kind.__name__}({listed})" if listed else self.kind.__name__

    @property
    def dose(self) -> Dose:
        return DOSES[self.kind]

    @property
    def none(self) -> float:
        """The dose of no effect, see `Dose`."""
        return -math.inf if NEVER_NOTHING & set(self.others) else self.dose.none

    def at(self, dose: float) -> Intervention:
        """Raises DivlensError for a dose out of range."""
        return self.kind(**{self.dose.field: dose, **dict(self.others)})


def swept_in(intervention: Intervention) -> tuple[Swept, float] | None:
    """What an intervention is a dose of, and which; None for one without a dose: Freeze, or Paraphrase with all
    wordings that there are."""
    kind: Any = type(intervention)
    dose = DOSES.get(kind)
    value = None if dose is None else getattr(intervention, dose.field)
    if dose is None or value is None:
        return None
    others = ((field.name, getattr(intervention, field.name), field.default) for field in fields(kind))
    return Swept(kind, tuple((name, own) for name, own, usual in others if name != dose.field and own != usual)), value


def conditions_of_sweep(text: str) -> dict[str, tuple[Intervention, ...]]:
    """The conditions of a sweep as the command line writes it: an intervention, "=", and doses that commas part. Each
    is one intervention, under a name that has the dose: "Subset=0.5". "baseline" is not among them.

    Raises DivlensError for another text, an intervention that is not known or has no dose, fewer than two doses, and a
    dose that comes twice or is out of range.
    """
    left, equals, right = text.rpartition("=")
    if not equals or not left.strip() or left.count("(") != left.count(")"):
        raise DivlensError(f"{EXPECTED}, got {text!r:.80}")
    swept = swept_from(left.strip())
    if not right.strip():
        raise DivlensError(f"{EXPECTED}, got {text!r:.80}, which has no doses")
    return conditions_at(swept, [number_from(part.strip(), text) for part in right.split(",")])


def with_sweeps(conditions: Conditions, texts: Sequence[str]) -> Conditions:
    """These conditions, and those of sweeps. Raises DivlensError for a name that comes twice."""
    found = dict(conditions)
    for text in texts:
        of_sweep = conditions_of_sweep(text)
        if twice := [name for name in of_sweep if name in found]:
            raise DivlensError(f"expected every condition under a name of its own, got {twice[0]!r} twice")
        found |= of_sweep
    return found


def sweep(intervention: Any, doses: Sequence[float]) -> Conditions:
    """The conditions of an intervention at several doses, "baseline" among them, for `divlens.probe`.

    `intervention`: a class, `divlens.Subset`; one of them, `divlens.Subset(by="random")`, whose own dose does not
    count; or either as text. The dose is the fraction of Subset and DisableTop, the share of Argmax, the n of
    Paraphrase, and the one field of Temperature, TopK, TopP and Guidance. Sweeps join by `|`. Raises DivlensError as
    `--sweep` does.
    """
    if isinstance(intervention, str):
        swept = swept_from(intervention)
    elif isinstance(intervention, type):
        check_dose(intervention)
        swept = Swept(intervention)
    else:
        dose = check_dose(type(intervention))
        swept = at_one(type(intervention), {**vars(intervention), dose.field: 1})
    if isinstance(doses, str) or not isinstance(doses, Sequence):
        raise DivlensError(f"sweep expects a list of doses, such as [1, 0.5, 0.25], got {doses!r:.80}")
    return {BASELINE: (), **conditions_at(swept, doses)}


def conditions_at(swept: Swept, doses: Sequence[float]) -> dict[str, tuple[Intervention, ...]]:
    found: dict[str, tuple[Intervention, ...]] = {}
    for place, dose in enumerate(doses):
        if not is_number(dose):
            raise DivlensError(f"a sweep of {swept.name} expects numbers as doses, got {shown(dose)}")
        if dose in doses[:place]:
            raise DivlensError(f"a sweep of {swept.name} expects every dose once, got {shown(dose)} twice")
        found[f"{swept.name}={dose}"] = (swept.at(dose),)
    if len(found) < 2:
        got = ", ".join(map(shown, doses)) or "none"
        raise DivlensError(f"a sweep of {swept.name} expects at least two doses, got {got}")
    return found


def swept_from(text: str) -> Swept:
    """What is swept: "Subset", or "Subset(by='random')"."""
    try:
        part = ast.parse(text if "(" in text else f"{text}()", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DivlensError(f"{EXPECTED}, got {text!r:.80}") from None
    kind, arguments, named = call_from(part, text)
    dose = check_dose(kind)
    if arguments or dose.field in named:
        raise DivlensError(f"{EXPECTED}: the {dose.field} is what varies, got {text!r:.80}")
    return at_one(kind, {**named, dose.field: 1})


def at_one(kind: Any, named: Mapping[str, Any]) -> Swept:
    """What this intervention is a dose of; 1 is a dose of every kind. Raises DivlensError for fields that it refuses,
    or does not have."""
    try:
        found = swept_in(kind(**named))
    except TypeError:
        takes = ", ".join(field.name for field in fields(kind))
        raise DivlensError(f"{kind.__name__} expects {takes}, got {', '.join(named)}") from None
    assert found is not None
    return found[0]


def check_dose(kind: Any) -> Dose:
    """Raises DivlensError for an intervention without a dose, and for what is none."""
    if kind not in DOSES:
        known = ", ".join(sorted(one.__name__ for one in DOSES))
        raise DivlensError(f"a sweep expects an intervention that has a dose ({known}), got {kind.__name__}")
    return DOSES[kind]


def number_from(part: str, text: str) -> float:
    try:
        value = ast.literal_eval(part)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        value = None
    if not is_number(value):
        raise DivlensError(f"{EXPECTED}: numbers that commas part, got {part!r:.40} in {text!r:.80}")
    return value
