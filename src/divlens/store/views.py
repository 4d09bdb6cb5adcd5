"""The stored tables of a run as SQL sees them: what was stored, each row once."""

from __future__ import annotations

from collections.abc import Collection

from divlens.store.schemas import SAMPLES, SCORES, VERDICTS

VIEWS = {"samples": SAMPLES, "scores": SCORES, "verdicts": VERDICTS}
LAST = "ORDER BY filename DESC, file_row_number DESC"  # names of files rise with time


def view_of(name: str, source: str, sizes: Collection[int]) -> str:
    """The query behind a table. `source`: the rows of its files, with the file and the place in it of each.

    Figures of a run that grew are there of fewer samples, too: those over `sizes` samples, as asked for now, count.
    What is there twice, for a process was killed between two files, counts as it was stored last.
    """
    if name == "samples":
        return f"SELECT * EXCLUDE (filename, file_row_number) FROM {source}"
    if name == "scores":
        asked = f"n IN ({', '.join(map(str, sorted(sizes)))})" if sizes else "false"
        each = "model, condition, prompt, n, name"
        return (
            f"SELECT model, condition, prompt, n, name, value FROM {source} WHERE {asked} "
            f"QUALIFY row_number() OVER (PARTITION BY {each} {LAST}) = 1"
        )
    each = "cell, model, condition, prompt, sample"
    return (
        f"SELECT {each}, judged_concept, judged_style FROM {source} "
        f"QUALIFY row_number() OVER (PARTITION BY {each} {LAST}) = 1"
    )


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
