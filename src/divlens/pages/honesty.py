"""What a reader must know before believing a figure: how small a difference can be seen, what is still open, and what
each measure cannot see."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, FIDELITY, KEPT, OPENNESS
from divlens.fidelity.breakage import fidelity_change
from divlens.fidelity.notes import UNSEEN, fall_text, fall_warnings, judged_note
from divlens.output import Record
from divlens.pages.gallery import reference_of
from divlens.paraphrase.notes import wording_lines
from divlens.showing import counted

if TYPE_CHECKING:
    import pandas as pd

# Measure: what it is, and what it cannot see (docs/measures.md).
BLIND: Mapping[str, tuple[str, str]] = {
    DIVERSITY: (
        "mean LPIPS distance of two pictures of a prompt",
        "whether a picture is broken: broken pictures differ from each other, too",
    ),
    FIDELITY: (
        "share of pictures in which the judge reads all that the prompt names",
        "anything that the judge does not read, and damage that it reads over",
    ),
    OPENNESS: (
        "how evenly all that the prompt leaves open comes out",
        "variety in anything that the judge does not read",
    ),
    KEPT: (
        "LPIPS diversity among the pictures that the judge reads right",
        "damage that the judge does not notice; it is over fewer pictures",
    ),
    columns.DUPLICATES: (
        "samples whose tokens another sample of the prompt has",
        "pictures that look alike and have other tokens",
    ),
}


def blind_spots(per_prompt: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Of each measure of a table its name, what it is, and what it cannot see."""
    return [(name.replace("_", " "), *said) for name, said in BLIND.items() if name in per_prompt]


def floors(per_prompt: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Of each model the LPIPS diversity that one grey level of noise makes, at most, and the mean diversity of its
    pictures without a condition; nothing where that was not measured."""
    rows: Any = per_prompt[per_prompt["condition"] == reference_of(list(per_prompt["condition"]))]
    found = [
        (str(model), float(of_model[columns.NOISE_FLOOR].max()), float(of_model[DIVERSITY].mean()))
        for model, of_model in rows.groupby("model", sort=False)
    ]
    return [one for one in found if not math.isnan(one[1])]


def warnings_of(per_prompt: pd.DataFrame, n: int, seed: int, under: Collection[str]) -> dict[str, list[str]]:
    """By the model, under which of some conditions fidelity fell. `n`: samples of each prompt."""
    found = {}
    for model, of_model in per_prompt.groupby("model", sort=False):
        shares = {
            str(condition): np.array(rows[FIDELITY], float)
            for condition, rows in of_model.groupby("condition", sort=False)
        }
        first = reference_of(list(shares))
        asked = {name: share for name, share in shares.items() if name in under}
        changes = {name: fidelity_change(shares[first], share, n, seed) for name, share in asked.items()}
        found[str(model)] = fall_warnings(
            f"under {name} {fall_text(change, n)}" for name, change in changes.items() if change.fell
        )
    return found


def notes_on(request: Record, found: Record, per_prompt: pd.DataFrame | None) -> Iterator[str]:
    """Sentences on how the figures came about."""
    prompts, n = len(request["prompts"]), request.get("n")
    if n is not None:
        yield (
            f"Figures are means over {counted(prompts, 'prompt')}, {counted(n, 'sample')} each, with 95% intervals "
            "over prompts: how much they would move with other prompts of the same kind. Changes are paired by prompt "
            "and have the same noise on both sides."
        )
        yield (
            "The interval of a single prompt is of another kind: it is over its samples, by leaving out one picture at "
            "a time, and says nothing of other prompts."
        )
    if per_prompt is not None:
        counts: Any = per_prompt.groupby(["model", "condition"])[FIDELITY].count()
        known = [int(count) for count in counts if count > 0]
        if len(known) < len(counts):
            yield UNSEEN
        yield from judged_note(min(known, default=0), prompts)
    yield from wording_lines(tuple(found.get("templated", ())), prompts, found.get("wording_notes", {}))
