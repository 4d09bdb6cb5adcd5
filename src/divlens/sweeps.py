"""Sweeps: one intervention at several doses, each dose a condition."""

from __future__ import annotations

from divlens.errors import DivlensError
from divlens.interventions import Intervention
from divlens.notation import interventions_from


def conditions_of_sweep(text: str) -> dict[str, tuple[Intervention, ...]]:
    """The conditions that a text such as "Subset=1,0.5,0.25" stands for, by name. Raises DivlensError for another text,
    and for a dose that comes twice."""
    name, equals, listed = text.partition("=")
    doses = [dose.strip() for dose in listed.split(",")]
    if not equals or not all(doses):
        raise DivlensError(f'expected a sweep such as "Subset=1,0.5,0.25", got {text!r:.80}')
    found: dict[str, tuple[Intervention, ...]] = {}
    for dose in doses:
        condition = interventions_from(f"{name.strip()}({dose})")
        if condition in found.values():
            raise DivlensError(f"expected every dose once, got {dose} twice in {text!r:.80}")
        found[f"{name.strip()}={dose}"] = condition
    return found
