"""The folder that `divlens decompose` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from divlens.decompose import Decomposition
from divlens.experiment import store
from divlens.experiment.probe import BASELINE


def write_decomposition(results: Sequence[Decomposition], request: store.Record, folder: Path) -> None:
    """table and per_prompt (see `store.write_tables`), with a column for the model, and run.json.

    `request`: what was asked for (see `store.request_of`). Raises DivlensError as `store.write_output` does.
    """
    tables = {name: [getattr(one, name).assign(model=one.model) for one in results] for name in ("table", "per_prompt")}
    used = [
        (result.model, BASELINE, prompt.text, wording)
        for result in results
        for prompt, wordings in zip(result.prompts, result.wordings, strict=True)
        for wording in wordings
    ]
    levels = {result.model: result.levels._asdict() for result in results}
    notes = {result.model: dict(result.wording_notes) for result in results}
    drawn_with = {result.model: result.drawn_with for result in results}
    others = {"levels_drawn": levels, "wording_notes": notes, "templated": results[0].templated}
    found = store.found_of(used, drawn_with, **others)
    store.write_output(folder, request, found, lambda partial: store.write_tables(tables, partial))
