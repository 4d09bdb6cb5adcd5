"""Who tells right pictures where no judge does: what `score` found in a run with measures `kept:...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from divlens.experiment import columns
from divlens.experiment.families import KEPT_BY, lost_beside
from divlens.output import Record
from divlens.store.reader import StoredRun

if TYPE_CHECKING:
    import pandas as pd

SCORE = "score"
OF_PROMPT = list(columns.OF_PROMPT)


def alignments_in(run: StoredRun, request: Record) -> dict[str, pd.DataFrame]:
    """By the name of each measure `kept:...`: a table with a row per model, condition and prompt, and the columns of
    the measure and of the share that is lost beside it. Those that lack samples of the request are left out."""
    if SCORE not in {command for command, _ in run.table_names}:  # a query reads all files
        return {}
    where = f"n = {request['n']} AND (name LIKE '{KEPT_BY}:%' OR name LIKE '{lost_beside(KEPT_BY)}:%')"
    found: Any = run.sql(f"SELECT model, condition, prompt, name, value FROM scores WHERE {where}")
    asked = [request["models"], request["conditions"], [one["text"] for one in request["prompts"]]]
    for column, wanted in zip(OF_PROMPT, asked, strict=True):
        found = found[found[column].isin(list(wanted))]
    samples = len(asked[0]) * len(asked[1]) * len(asked[2])
    names = [name for name in found["name"].unique() if name.startswith(f"{KEPT_BY}:")]
    wide = {name: found[found["name"].isin([name, lost_beside(name)])] for name in names}
    tables = {name: rows.pivot(index=OF_PROMPT, columns="name", values="value") for name, rows in wide.items()}
    return {
        name: table.reset_index() for name, table in tables.items() if len(table) == samples and table.shape[1] == 2
    }
