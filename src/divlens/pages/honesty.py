"""What a reader must know before believing a figure: how small a difference can be seen, what is still open, and what
each measure cannot see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from divlens.conditions import BASELINE
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, FIDELITY, KEPT, OPENNESS
from divlens.experiment.result import falls
from divlens.fidelity.notes import UNSEEN, fall_warnings, judged_note
from divlens.output import Record
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


def blind_spots(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Of each measure of a table its name, what it is, and what it cannot see."""
    return [(name.replace("_", " "), *said) for name, said in BLIND.items() if name in table]


def floors(table: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Of each model the LPIPS diversity that one grey level of noise makes, at most, and the diversity at baseline."""
    records = table.to_dict("records")
    diversity = {str(one["model"]): float(one[DIVERSITY]) for one in records if one["condition"] == BASELINE}
    highest = {
        model: max(float(one[columns.NOISE_FLOOR]) for one in records if one["model"] == model) for model in diversity
    }
    return [(model, highest[model], value) for model, value in diversity.items()]


def warnings_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """By the model, where fidelity fell."""
    return {
        str(model): fall_warnings(
            falls([{str(key): value for key, value in row.items()} for row in rows.to_dict("records")])
        )
        for model, rows in table.groupby("model", sort=False)
    }


def notes_on(request: Record, found: Record, table: pd.DataFrame | None) -> Iterator[str]:
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
    if table is not None and FIDELITY in table:
        known = [int(count) for count in table[FIDELITY + columns.COUNT] if count > 0]
        if len(known) < len(table):
            yield UNSEEN
        yield from judged_note(min(known, default=0), prompts)
    yield from wording_lines(tuple(found.get("templated", ())), prompts, found.get("wording_notes", {}))
