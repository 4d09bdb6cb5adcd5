"""Conditions: what a model is run under, each a name and a list of interventions; "baseline" is the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divlens.errors import DivlensError, check_text
from divlens.interventions import Argmax, DisableTop, Intervention, Paraphrase, Subset, check_interventions, described

BASELINE = "baseline"
Condition = Intervention | Sequence[Intervention]
Conditions = Mapping[str, Sequence[Intervention]]


def name_of(interventions: Sequence[Intervention]) -> str:
    """What a condition is called that was given no name: what it does. Raises DivlensError for what is no
    list of interventions."""
    check_interventions(interventions)
    return described(interventions) if interventions else BASELINE


def enhancer(disable_top: float = 0.05) -> tuple[Intervention, ...]:
    """The paper's enhancer as it stands: mixed-length wordings, the most used codes disabled (arXiv 2512.01831)."""
    return (Paraphrase(lengths="mixed"), DisableTop(disable_top))


def default_conditions(subset: float = 0.5, disable_top: float = 0.05) -> dict[str, Sequence[Intervention]]:
    """The paper's three probes and its enhancer, beside the untouched model."""
    return {
        BASELINE: (),
        "subset": (Subset(subset),),
        "argmax": (Argmax(),),
        "paraphrase": (Paraphrase(lengths="similar"),),
        "enhanced": enhancer(disable_top),
    }


def named_conditions(
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition],
) -> dict[str, Sequence[Intervention]]:
    """A list of interventions under every name, "baseline" among them. Raises DivlensError for another shape."""
    if isinstance(conditions, Mapping):
        named = {name: listed(condition) for name, condition in conditions.items()}
        for name, interventions in named.items():
            if not (isinstance(name, str) and name.strip()):
                raise DivlensError(f"conditions expect texts as names, got {name!r}")
            check_text("the name of a condition", name)
            check_interventions(interventions)
        if BASELINE not in named:
            raise DivlensError(f'conditions expect a "{BASELINE}", got {", ".join(named) or "none"}')
        return named
    several = listed(conditions)
    if isinstance(several, str) or not isinstance(several, Sequence):
        expected = (
            f'conditions expect interventions by name, such as {{"{BASELINE}": [], "argmax": Argmax()}}, or a list'
        )
        raise DivlensError(f"{expected}, got {conditions!r:.80}")
    named: dict[str, Sequence[Intervention]] = {BASELINE: ()}
    return named | {name_of(part): part for part in map(listed, several)}


def listed(condition: Any) -> Any:
    """A single intervention as a list of one; anything else as it is."""
    single = isinstance(condition, Intervention) and not isinstance(condition, type)
    return (condition,) if single else condition
