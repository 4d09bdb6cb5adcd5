"""The figures of a run without pictures, as papers and programs take them, and how they came about in a paragraph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.doses import doses
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.output import Record
from divlens.pages.honesty import notes_on
from divlens.pages.tables import COMPARED, PROBE, Tables, blocks_of, sessions_of, tables_of
from divlens.pages.texts import command_line
from divlens.pages.verdicts import number, verdict_of
from divlens.plots.rows import series_of
from divlens.showing import Block, counted, interval_text
from divlens.statistics import Interval
from divlens.store.reader import StoredRun

if TYPE_CHECKING:
    import pandas as pd

DECOMPOSE, INFORMATION = "decompose", "information"
# Columns that say what a row is of; others are figures, some with an interval.
NAMES = ("model", "condition", "interventions", "source", "quantity", "label", "figure", "note", "prompts", "n")
# What tables call the ends of an interval in ways of their own.
ENDS_OF = {
    DECOMPOSE: {"low": "component_low", "high": "component_high"},
    INFORMATION: {f"{unit}_{end}": f"bits_per_{unit}_{end}" for unit in ("image", "token") for end in ("low", "high")},
}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`blocks`: tables as they are read. `figures`: a row for each number, with the ends of its interval where it has
    one. `methods`: how all came about, in a paragraph. `missing`: what is not there and why."""

    name: str
    blocks: tuple[Block, ...]
    figures: tuple[dict[str, Any], ...]
    methods: str
    notes: tuple[str, ...]
    missing: tuple[str, ...]


def summary_of(run: StoredRun) -> Summary:
    """No model is loaded. Raises DivlensError for a run of which nothing was asked."""
    if not run.requests:
        raise DivlensError(f"{run.place} holds no command yet: there is nothing to report")
    tables = tables_of(run)
    compared = next((command for command in COMPARED if command in run.requests), None)
    request = run.requests[compared or next(iter(run.requests))]
    found, why_none = verdict_of(run)
    per_prompt = tables.of(compared, "per_prompt")
    return Summary(
        name=str(run.place).rstrip("/").rpartition("/")[2],
        blocks=(
            *(found.blocks if found else ()),
            *blocks_of(compared, tables.of(compared, "table")),
            *dose_blocks(run, tables),
            *other_blocks(tables),
        ),
        figures=tuple(rows_of(tables)),
        methods=" ".join(methods(run)),
        notes=(
            *(found.notes if found else ()),
            *notes_on(request, run.record["found"].get(request["command"], {}), per_prompt),
        ),
        missing=(*tables.missing, *([] if found or compared != PROBE else [why_none])),
    )


def dose_blocks(run: StoredRun, tables: Tables) -> Sequence[Block]:
    if tables.of(PROBE, "table") is None:
        return ()
    try:
        return doses(run).blocks
    except DivlensError:  # a probe without a sweep
        return ()


def other_blocks(tables: Tables) -> Iterator[Block]:
    """Those of decompose and of information, one for each model and condition."""
    if (table := tables.of(DECOMPOSE, "table")) is not None:
        for title, records in by_series(table).items():
            rows = [
                (
                    str(one["source"]),
                    interval_text(columns.interval_in(one, "share"), ".1f", 100),
                    interval_text(Interval(one["component"], one["low"], one["high"])),
                )
                for one in records
            ]
            yield Block(title, ("source", "share %", "LPIPS"), rows)
    if (table := tables.of(INFORMATION, "table")) is not None:
        for title, records in by_series(table).items():
            rows = [
                (
                    str(one["label"]),
                    interval_text(Interval(one["bits_per_image"], one["image_low"], one["image_high"]), ".2f"),
                )
                for one in records
            ]
            yield Block(title, ("quantity", "bits per image"), rows)


def by_series(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in table.to_dict("records"):
        found.setdefault(series_of(record), []).append({str(key): value for key, value in record.items()})
    return found


def rows_of(tables: Tables) -> Iterator[dict[str, Any]]:
    """A row for each number of the tables of all commands: command, model, condition, figure, value, low and high; low
    and high are None where no interval is known, and undefined is None."""
    for command, of_command in tables.by_command.items():
        if "table" not in of_command:
            continue
        table = of_command["table"].rename(columns=ENDS_OF.get(command, {}))
        for record in table.to_dict("records"):
            whose = {key: str(record[key]) for key in ("model", "condition")}
            of = next((str(record[key]) for key in ("source", "quantity", "figure") if key in record), "")
            for name, value in record.items():
                is_end = any(name.endswith(end) and name.removesuffix(end) in record for end in columns.ENDS if end)
                if name in NAMES or is_end or isinstance(value, str):
                    continue
                ends = [record.get(f"{name}{end}", math.nan) for end in columns.ENDS[1:]]
                yield {
                    **{"command": command, **whose, "figure": " ".join(filter(None, (of, str(name))))},
                    **dict(zip(("value", "low", "high"), map(plain_number, (value, *ends)), strict=True)),
                }


def plain_number(value: Any) -> float | None:
    return None if value is None or np.ndim(value) else number(value)


def methods(run: StoredRun) -> Iterator[str]:
    """How a run came about, with every setting and version, a sentence each."""
    sessions = run.record["sessions"]
    versions: dict[str, list[str]] = {}
    for session in sessions:
        for name, version in session.get("versions", {}).items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    own = " and ".join(versions.pop("divlens", ["of an unknown version"]))
    yield f"All figures were made with divlens {own}."
    for command, request in run.requests.items():
        yield from of_command(command, request, command in run.unfinished)
    for model in run.model_names:
        setup = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.setup(model).items())
        content = run.record["models"].get(model, {}).get("content")
        yield f"{model} ran with {setup}{f'; the hash of its weights and settings is {content}' if content else ''}."
    yield (
        "Prompts are the units: intervals are at 95% over prompts, and changes are paired by prompt, with the same "
        "noise on both sides."
    )
    places = dict.fromkeys(f"{one['device']}, {one['platform']}" for one in sessions if "platform" in one)
    if places:
        yield f"The run was made on {'; '.join(places)}."
    if versions:
        listed = [f"{name} {' and '.join(found)}" for name, found in sorted(versions.items())]
        yield f"Versions: {', '.join(listed)}."
    # A call of the library has no arguments.
    if commands := [one["command"] for one in sessions_of(run) if one["command"] != command_line(["divlens"])]:
        yield f"The commands were: {'; '.join(dict.fromkeys(commands))}."


def of_command(command: str, request: Mapping[str, Any] | Record, unfinished: bool) -> Iterator[str]:
    size = f", {counted(request['n'], 'sample')} of each" if "n" in request else ""
    done = "; ".join(
        name if what in (name, "none") else f"{name}: {what}" for name, what in request["conditions"].items()
    )
    state = " (not complete)" if unfinished else ""
    yield (
        f"{command}{state}: {', '.join(request['models'])}; {counted(len(request['prompts']), 'prompt')}{size}; seed "
        f"{request['seed']}; conditions: {done}."
    )
    usual = {"command", "models", "prompts", "conditions", "seed", "setup", "n"}
    if rest := {key: value for key, value in request.items() if key not in usual and value is not None}:
        yield f"Other settings of {command}: {', '.join(f'{key} {said(value)}' for key, value in rest.items())}."


def said(value: Any) -> str:
    """A setting as text: lists with commas, mappings with their keys."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {said(each)}" for key, each in value.items()) + ")"
    return ", ".join(map(said, value)) if isinstance(value, list | tuple) else str(value)
