"""Whose a row of a table is, and what a setting of a frontier counts as: the same on paper and in a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

GUIDED, PARETO, OTHER = FRONTIER_KINDS = ("baseline and plain guidance", "Pareto set", "other settings")


@dataclass(frozen=True)
class Scales:
    """What fidelity and diversity are called, and whether they are shares, which are shown in percent."""

    fidelity: str
    diversity: str
    are_shares: bool


def series_of(record: Mapping[Any, Any]) -> str:
    """The model, and the condition where it is not the model as it is."""
    return str(record["model"]) if record["condition"] == "baseline" else f"{record['model']}, {record['condition']}"


def with_series(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(series=[series_of(record) for record in table.to_dict("records")])


def of_guidance(record: Mapping[Any, Any]) -> bool:
    """Whether a setting is baseline or plain guidance, with which others compete."""
    return record["method"] in ("", "guidance")


def kind_of(record: Mapping[Any, Any]) -> str:
    """Which of `FRONTIER_KINDS` a setting is; one of guidance may be in the Pareto set, too."""
    return PARETO if record["in_pareto_set"] else GUIDED if of_guidance(record) else OTHER


def scales_of(settings: pd.DataFrame) -> Scales | None:
    """In the laboratory diversity is openness. None where nobody can tell fidelity: diversity alone is no frontier."""
    if "fidelity" not in settings:
        return None
    if "law_distance" in settings:
        return Scales("fidelity, %", "openness, %", True)
    return Scales("fidelity", "LPIPS diversity", False)
