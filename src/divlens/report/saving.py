"""Results to a folder: what the `--out` of a command writes, for a result of any verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from divlens.decompose import Decomposition
from divlens.enhance import Enhanced
from divlens.experiment import store
from divlens.experiment.probe import ProbeResult
from divlens.information import Information
from divlens.report.maps import write_information
from divlens.report.sheets import write_enhanced
from divlens.types import DivlensError

Result = ProbeResult | Enhanced | Information | Decomposition
KINDS = {ProbeResult: "probe", Enhanced: "enhance", Information: "information", Decomposition: "decompose"}


def save(
    results: Result | Sequence[Information] | Sequence[Decomposition],
    folder: str | Path,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write a result to a new or empty folder, or over an earlier one of divlens: tables, samples, pictures, run.json.

    These are the files that `divlens probe`, `enhance`, `information` and `decompose` write with `--out`. Several
    results of `information`, or of `decompose`, go into one folder. `about`: what else run.json should say. The folder
    is written whole or not at all. Raises DivlensError for what is no such result, and for a folder that holds
    something else or cannot be written.
    """
    several: Sequence[object] = results if isinstance(results, list | tuple) else [results]
    first, folder = (several[0] if several else None), Path(folder)
    if type(first) not in KINDS or any(type(one) is not type(first) for one in several):
        got = ", ".join(dict.fromkeys(type(one).__name__ for one in several)) or "none"
        raise DivlensError(f"save expects a result of {', '.join(KINDS.values())}, or several of one kind, got {got}")
    if isinstance(first, ProbeResult | Enhanced) and len(several) > 1:
        raise DivlensError(f"save expects one result of {KINDS[type(first)]} for a folder, got {len(several)}")
    if isinstance(first, ProbeResult):
        store.write_probe(first, folder)
    elif isinstance(first, Enhanced):
        options = {"disable_top": first.disable_top, "lpips": first.lpips}
        write_enhanced(first, folder, options | dict(about or {}))
    else:
        accounts = [one for one in several if isinstance(one, Information)]
        splits = [one for one in several if isinstance(one, Decomposition)]
        if accounts:
            save_accounts(accounts, folder, about or {})
        else:
            save_splits(splits, folder, about or {})


def save_accounts(results: Sequence[Information], folder: Path, about: Mapping[str, object]) -> None:
    first = results[0]
    record: dict[str, object] = {
        "command": "information",
        "models": list(dict.fromkeys(result.model for result in results)),
        "prompts": list(first.prompts),
        "n": first.n,
        "seed": first.seed,
        "reading": first.reading,
        "drawn_with": [asdict(result.drawn_with) for result in results],
        "cut": [dict(result.cuts) for result in results],
    }
    write_information(results, record | dict(about), folder)


def save_splits(results: Sequence[Decomposition], folder: Path, about: Mapping[str, object]) -> None:
    record: dict[str, object] = {
        "command": "decompose",
        "models": [result.model for result in results],
        "prompts": [prompt.text for prompt in results[0].prompts],
        "seed": results[0].seed,
        "distance": results[0].distance,
        "levels": {result.model: list(result.levels) for result in results},
        "drawn_with": {result.model: asdict(result.drawn_with) for result in results},
    }
    tables = {name: [getattr(one, name).assign(model=one.model) for one in results] for name in ("table", "per_prompt")}
    store.write_tables(tables, record | dict(about), folder)
