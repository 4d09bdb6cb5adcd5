"""Results to a folder: what the `--out` of a command writes, for a result of any verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from divlens.decompose import Decomposition
from divlens.enhance import Enhanced, sides
from divlens.errors import DivlensError
from divlens.experiment import store
from divlens.experiment.probe import BASELINE, ProbeResult
from divlens.information import Information
from divlens.interventions import described
from divlens.report.decomposition import write_decomposition
from divlens.report.maps import write_information
from divlens.report.sheets import write_enhanced

Result = ProbeResult | Enhanced | Information | Decomposition
KINDS = {ProbeResult: "probe", Enhanced: "enhance", Information: "information", Decomposition: "decompose"}


def save(results: Result | Sequence[Information] | Sequence[Decomposition], folder: str | Path) -> None:
    """Write a result to a new or empty folder, or again over the same one: tables, samples, pictures, run.json.

    These are the files that `divlens probe`, `enhance`, `information` and `decompose` write with `--out`; run.json says
    of what was asked what the result knows. Several results of `information`, or of `decompose`, go into one folder.
    The folder is written whole or not at all. Raises DivlensError for what is no such result, and for a folder that
    holds something else, or another result, or cannot be written.
    """
    several: Sequence[object] = results if isinstance(results, list | tuple) else [results]
    first, folder = (several[0] if several else None), Path(folder)
    if type(first) not in KINDS or any(type(one) is not type(first) for one in several):
        got = ", ".join(dict.fromkeys(type(one).__name__ for one in several)) or "none"
        raise DivlensError(f"save expects a result of {', '.join(KINDS.values())}, or several of one kind, got {got}")
    if isinstance(first, ProbeResult | Enhanced) and len(several) > 1:
        raise DivlensError(f"save expects one result of {KINDS[type(first)]} for a folder, got {len(several)}")
    if isinstance(first, ProbeResult):
        store.write_probe(first, request_of_probe(first), folder)
    elif isinstance(first, Enhanced):
        write_enhanced(first, request_of_enhanced(first), folder)
    elif isinstance(first, Information):
        accounts = [(condition_of(one), one) for one in several if isinstance(one, Information)]
        write_information(accounts, request_of_accounts([one for _, one in accounts]), folder)
    else:
        splits = [one for one in several if isinstance(one, Decomposition)]
        write_decomposition(splits, request_of_splits(splits), folder)


def condition_of(result: Information) -> str:
    return " + ".join(result.interventions) or BASELINE


def request_of_probe(result: ProbeResult) -> store.Record:
    return {
        "command": "probe",
        "models": list(dict.fromkeys(result.table["model"])),
        "prompts": list(dict.fromkeys(result.per_prompt["prompt"])),
        "conditions": dict(result.conditions),
        "n": result.n,
        "seed": result.seed,
        "lpips": result.lpips,
    }


def request_of_enhanced(result: Enhanced) -> store.Record:
    return {
        "command": "enhance",
        "models": [result.model],
        "prompts": [asdict(prompt) for prompt in result.after.prompts],
        "conditions": {name: described(interventions) for name, interventions in sides(result.disable_top).items()},
        "n": result.after.n,
        "seed": result.after.seed,
        "lpips": result.lpips,
    }


def request_of_accounts(results: Sequence[Information]) -> store.Record:
    first = results[0]
    return {
        "command": "information",
        "models": list(dict.fromkeys(result.model for result in results)),
        "prompts": list(first.prompts),
        "conditions": {condition_of(result): " + ".join(result.interventions) or "none" for result in results},
        "n": first.n,
        "seed": first.seed,
        "reading": first.reading,
    }


def request_of_splits(results: Sequence[Decomposition]) -> store.Record:
    return {
        "command": "decompose",
        "models": [result.model for result in results],
        "prompts": [asdict(prompt) for prompt in results[0].prompts],
        "seed": results[0].seed,
        "distance": results[0].distance,
        "levels": {result.model: result.levels._asdict() for result in results},
        "sources": list(results[0].sources),
        "interventions": list(results[0].interventions),
    }
