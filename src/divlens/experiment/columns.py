"""The columns of the tables of `probe`: how those of a figure are called, and which names no measure may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from divlens.statistics import Interval

OF_CONDITION = ("model", "condition", "prompts", "n")
OF_PROMPT = ("model", "condition", "prompt")
OF_SAMPLE = (*OF_PROMPT, "sample", "seed", "wording", "note", "tokens", "judged")
CHANGE, RELATIVE_CHANGE, FIDELITY_CHANGE = "change", "relative_change", "fidelity_change"
NOISE_FLOOR, DUPLICATES, LOOK = "noise_floor", "duplicates", "look"
ENDS, COUNT, CHANCE, FELL = ("", "_low", "_high"), "_prompts", "_chance", "_fell"  # what follows a name


def with_ends(name: str, interval: Interval) -> dict[str, float]:
    """A figure's cells: its value, and both ends of its interval."""
    return dict(zip((name + end for end in ENDS), (interval.value, interval.low, interval.high), strict=True))


def interval_in(row: Mapping[str, Any], name: str) -> Interval:
    """A figure of a row, with its interval."""
    return Interval(*(float(row[name + end]) for end in ENDS))


def of_measure(name: str) -> set[str]:
    """The columns of a measure of that name."""
    return {name + end for end in (*ENDS, COUNT)}


TAKEN = frozenset(
    {*OF_CONDITION, *OF_SAMPLE, NOISE_FLOOR, DUPLICATES, LOOK}
    | {name + end for name in (CHANGE, RELATIVE_CHANGE, FIDELITY_CHANGE) for end in ENDS}
    | {FIDELITY_CHANGE + end for end in (CHANCE, FELL)}
)
