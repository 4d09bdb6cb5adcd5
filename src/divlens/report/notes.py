"""What stands below a table: numbers as text, warnings, and what a reader must know."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from divlens.fidelity.breakage import FidelityChange
from divlens.statistics import Interval

if TYPE_CHECKING:
    from divlens.experiment.measure import Samples

UNKNOWN = "n/a"
WIDTH = 80


def interval_text(value: float, low: float, high: float, form: str) -> str:
    """`.215 [.198, .231]`; the mean alone where no interval is known; `n/a` where there is no mean."""
    if math.isnan(value):
        return UNKNOWN
    if math.isnan(low) or math.isnan(high):
        return number_text(value, form)
    return f"{number_text(value, form)} [{number_text(low, form)}, {number_text(high, form)}]"


def number_text(value: float, form: str) -> str:
    """A number without the zero before the point (three of them a cell would not fit), and never "-0"."""
    text = f"{value:{form}}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def below(lines: Sequence[str]) -> Text:
    """Lines under a table, each wrapped by itself."""
    return Text("\n".join(part for line in lines for part in textwrap.wrap(line, WIDTH)), style="dim")


def probe_falls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The conditions of a model whose fidelity fell, each with what shows it."""
    falls = []
    for row in rows:
        if row["fidelity_change_fell"]:
            value, low, high, chance = (row[f"fidelity_change{end}"] for end in ("", "_low", "_high", "_chance"))
            prompts, change = row["fidelity_prompts"], Interval(value, low, high)
            fall = FidelityChange(row["fidelity"] - value, row["fidelity"], change, prompts, chance)
            falls.append(f"under {row['condition']} {fall_text(fall, row['n'])}")
    return falls


def fall_text(fall: FidelityChange, n: int) -> str:
    """`from 92 to 67 %, by -25.0 [-38.1, -12.2]`; where there is no interval, the chance of the samples."""
    start = f"from {100 * fall.before:.0f} to {100 * fall.after:.0f} %"
    if fall.by_samples:
        prompts = fall.prompts
        whose = "the prompt's" if prompts == 1 else f"{prompts} prompts, which all changed alike, with"
        return f"{start} (p = {fall.chance:.2g}, one-sided exact test of {whose} 2 x {n} samples)"
    value, low, high = (100 * part for part in (fall.change.value, fall.change.low, fall.change.high))
    return f"{start}, by {interval_text(value, low, high, '+.1f')}"


def warnings(falls: Sequence[str]) -> list[Text]:
    """A warning of falls of fidelity, or none."""
    if not falls:
        return []
    text = (
        f"Warning: fidelity falls {', '.join(falls)}. Broken pictures differ from each other, too: part of the "
        "diversity there may be breakage."
    )
    return [Text("\n".join(textwrap.wrap(text, WIDTH)), style="bold")]


UNSEEN = (
    "n/a: no styles and fidelity where the judge knows none of the concepts; whether pictures break cannot be seen "
    "there, and that raises diversity, too."
)


def judged_note(known: int, prompts: int) -> list[str]:
    """Over which prompts styles and fidelity are, where these are not all or none."""
    if not 0 < known < prompts:
        return []
    return [
        f"styles, fidelity: over the {known} of {prompts} prompts whose concept the judge knows; whether pictures of "
        "the others break cannot be seen."
    ]


def unread(*samples: Samples) -> dict[str, dict[str, str]]:
    """What was not read of a wording, by model, for those wordings only."""
    found: dict[str, dict[str, str]] = {}
    for part in (part for some in samples for part in some.parts):
        found.setdefault(part.model, {}).update(part.notes)
    return found
