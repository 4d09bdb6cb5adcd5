"""What a reader must know of fidelity: where it fell, and where nobody can see whether pictures break."""

from __future__ import annotations

from collections.abc import Iterable

from divlens.fidelity.breakage import FidelityChange
from divlens.showing import interval_text

UNSEEN = (
    "n/a: no openness and fidelity where no judge knows what is asked for; whether pictures break cannot be seen "
    "there, and that raises diversity, too."
)


def fall_text(fall: FidelityChange, n: int) -> str:
    """`from 92 to 67 %, by -25.0 [-38.1, -12.2]`; where there is no interval, the chance of the samples."""
    start = f"from {100 * fall.before:.0f} to {100 * fall.after:.0f} %"
    if fall.by_samples:
        prompts = fall.prompts
        whose = "the prompt's" if prompts == 1 else f"{prompts} prompts, which all changed alike, with"
        return f"{start} (p = {fall.chance:.2g}, one-sided exact test of {whose} 2 x {n} samples)"
    return f"{start}, by {interval_text(fall.change, '+.1f', 100)}"


def fall_warnings(falls: Iterable[str]) -> list[str]:
    """A warning of falls of fidelity, or none."""
    if not (listed := ", ".join(falls)):
        return []
    return [
        f"Warning: fidelity falls {listed}. Broken pictures differ from each other, too: part of the diversity there "
        "may be breakage."
    ]


def judged_note(known: int, prompts: int) -> list[str]:
    """Over which prompts fidelity is, where these are not all or none."""
    if not 0 < known < prompts:
        return []
    return [
        f"fidelity: over the {known} of {prompts} prompts that the judge can read"
        f"{'' if known > 1 else ', too few for an interval'}; whether pictures of the others break cannot be seen."
    ]
