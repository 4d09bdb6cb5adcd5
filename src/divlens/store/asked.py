"""What was asked of a run, as values again: of run.json's texts the models, conditions, prompts and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divlens.conditions import Conditions
from divlens.interventions import Freeze, OnPrompt
from divlens.models.loading import DTYPES
from divlens.models.protocol import Model
from divlens.models.registry import load
from divlens.notation import interventions_described
from divlens.output import Record
from divlens.planning import plans
from divlens.run import Run
from divlens.types import Prompt


def models_of(request: Record) -> list[Model]:
    """The models, loaded as they were. Raises DivlensError for one that no name loads."""
    return [loaded_again(name, request["setup"][name]) for name in request["models"]]


def loaded_again(name: str, setup: Mapping[str, Any], device: str | None = None) -> Model:
    """A model, loaded as it was, or on another device. Raises DivlensError where its name does not load it."""
    dtype = setup["dtype"] if setup["dtype"] in DTYPES else "float32"  # one of the model's own cannot be asked for
    options = {"dtype": dtype, "truncate": setup["truncate"], "compile": setup["compiled"]}
    return load(name, device or setup["device"], **options)


def conditions_of(request: Record) -> Conditions:
    """The interventions under each name, from their text."""
    return {name: interventions_described(text) for name, text in request["conditions"].items()}


def rows_by_number(request: Record, condition: str) -> str:
    """Which rows of the table of samples a command of `n` samples a prompt drew under a condition, as a condition of
    SQL: of each number, those of its own noise. The crossed design of `decompose`, where it was drawn into the same
    folder, has rows of these numbers, too."""
    interventions = interventions_described(request["conditions"][condition])
    frozen = {one.stream for one in interventions if isinstance(one, Freeze)}
    noise = [f"{stream} = {0 if stream in frozen else 'sample'}" for stream in ("path", "execution")]
    reworded = any(isinstance(one, OnPrompt) for one in interventions)
    return " AND ".join([f"seed = {request['seed']}", *noise, *([] if reworded else ["wording = prompt"])])


def prompts_of(request: Record) -> list[Prompt]:
    return [Prompt(one["text"], tuple(one["paraphrases"]), one["concept"]) for one in request["prompts"]]


def batch_size_of(request: Record) -> Any:
    return request["setup"][request["models"][0]]["batch_size"]


def runs_of(request: Record, models: Sequence[Model]) -> dict[str, dict[str, Run]]:
    """The runs of a request of `n` samples of each prompt, by the name of the model and of the condition."""
    asked = prompts_of(request), request["n"], request["seed"], conditions_of(request)
    return {model.name: plans(model, *asked, batch_size=batch_size_of(request)) for model in models}
