"""The tables of a run that grow, and their columns; docs/runs.md says what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLES, SCORES, VERDICTS, TABLES = "samples", "scores/prompts", "scores/samples", "tables"
ACCOUNTS, RECORDS, MAPS = (f"features/information/{name}" for name in ("accounts", "records", "maps"))

WHOSE = {"model": "string", "condition": "string"}
OF_PROMPT = {**WHOSE, "prompt": "string"}
OF_SAMPLE = {**OF_PROMPT, "sample": "int32"}
QUANTITIES = ("path", "execution", "joint", "trajectory_path", "trajectory_execution", "trajectory_joint")

# A list that may be long in a file of many rows is a large one: the others end at 2^31 items.
SCHEMAS: Mapping[str, Mapping[str, str]] = {
    SAMPLES: {
        **{"cell": "uint64", **OF_PROMPT, "wording": "string", "sample": "int32", "seed": "uint64"},
        **{"path": "int32", "execution": "int32", "tokens": "list int32"},
    },
    SCORES: {**OF_PROMPT, "n": "int32", "of": "uint64", "name": "string", "value": "float64"},
    VERDICTS: {"cell": "uint64", **OF_SAMPLE, "of": "uint64", "judged_concept": "string", "judged_style": "string"},
    ACCOUNTS: {
        **{**OF_SAMPLE, "of": "uint64", "batch": "uint64", "label": "int64", **dict.fromkeys(QUANTITIES, "float64")},
        **{"rare_chance": "large float64", "rare_open_after": "large float64", "rarest": "large int32"},
    },
    RECORDS: {**OF_SAMPLE, "of": "uint64", "states": "large int32", "committed": "large bool"},
    MAPS: {**WHOSE, "of": "uint64", "samples": "int32", "path": "large float64", "execution": "large float64"},
}


def schema_of(folder: str) -> pa.Schema:
    import pyarrow as pa

    def type_of(name: str) -> pa.DataType:
        kind, _, item = name.rpartition(" ")
        of_items = {"": lambda one: one, "list": pa.list_, "large": pa.large_list}
        return of_items[kind](pa.type_for_alias(item))

    return pa.schema([(column, type_of(name)) for column, name in SCHEMAS[folder].items()])
