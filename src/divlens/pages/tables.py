"""The tables of a run as a page has them, and the record of how it came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from divlens.compare import measure_of
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.result import change_text, measure_text
from divlens.output import Record
from divlens.pages.gallery import reference_of
from divlens.pages.texts import command_line
from divlens.showing import Block, counted, interval_text
from divlens.store.reader import StoredRun

if TYPE_CHECKING:
    import pandas as pd

PROBE, ENHANCE = "probe", "enhance"
COMPARED = (PROBE, ENHANCE)  # of these there are conditions and a diversity of every prompt


@dataclass(frozen=True)
class Tables:
    """The tables of a run that are written, and why others are not."""

    by_command: Mapping[str, Mapping[str, pd.DataFrame]]
    missing: tuple[str, ...]

    def of(self, command: str | None, name: str) -> pd.DataFrame | None:
        return self.by_command.get(command or "", {}).get(name)


def tables_of(run: StoredRun) -> Tables:
    found, missing = {}, []
    for command in run.requests:
        try:
            found[command] = run.tables(command)
        except DivlensError as error:
            missing.append(f"No figures of {command}: {error}.")
    return Tables(found, tuple(missing))


def facts(run: StoredRun, request: Record) -> Iterator[tuple[str, str]]:
    yield "run", str(run.place)
    yield (
        "commands",
        ", ".join(f"{name}{'' if name not in run.unfinished else ' (not complete)'}" for name in run.requests),
    )
    yield "models", ", ".join(request["models"])
    size = f", {counted(request['n'], 'sample')} each" if "n" in request else ""
    yield (
        "size",
        f"{counted(len(request['prompts']), 'prompt')}, {counted(len(request['conditions']), 'condition')}{size}",
    )
    yield "seed", str(request["seed"])
    for model, setup in request["setup"].items():
        yield f"{model} drawn with", f"{setup['device']}, {setup['dtype']}, batches of {setup['batch_size']}"
    if versions := (run.record["sessions"] or [{}])[-1].get("versions", {}):
        yield (
            "versions",
            ", ".join(f"{name} {versions[name]}" for name in ("divlens", "torch", "python") if name in versions),
        )


def sessions_of(run: StoredRun) -> Iterator[dict[str, str]]:
    for one in run.record["sessions"]:
        line = command_line(["divlens", *map(str, one.get("arguments", ()))])
        yield {"started": str(one.get("started", "")), "command": line, "how": str(one.get("how", ""))}


def blocks_of(command: str | None, table: pd.DataFrame | None) -> Iterator[Block]:
    """The tables of a command as they are read: each figure with its interval."""
    if table is None:
        return
    if command == ENHANCE:
        sides = ("before", "after", "change")
        for model, of_model in table.groupby("model", sort=False):
            rows = []
            for record in of_model.to_dict("records"):
                measure = measure_of(record["figure"])
                form, scale = measure.form
                cells = [
                    interval_text(columns.interval_in(record, side), f"{'+' if side == 'change' else ''}{form}", scale)
                    for side in sides
                ]
                rows.append((measure.heading, *cells))
            yield Block(str(model), ("", *sides), rows)
        return
    names = [name.removesuffix(columns.COUNT) for name in table.columns if name.endswith(columns.COUNT)]
    first, *others = [measure_of(name) for name in names]
    headings = ("condition", first.heading, "change %", *(each.heading for each in others), "duplicates")
    for model, of_model in table.groupby("model", sort=False):
        records = [{str(key): value for key, value in one.items()} for one in of_model.to_dict("records")]
        conditions = [str(one["condition"]) for one in records]
        cells = [
            (
                str(record["condition"]),
                measure_text(first, record),
                "–" if record["condition"] == reference_of(conditions) else change_text(record),
                *(measure_text(each, record) for each in others),
                str(record[columns.DUPLICATES]),
            )
            for record in records
        ]
        yield Block(str(model), headings, cells)
