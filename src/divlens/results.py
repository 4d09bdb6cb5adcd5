"""What a verb returns shows itself and is saved: its tables and pictures, and a record of what was asked and found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from divlens.conditions import Conditions
from divlens.errors import DivlensError
from divlens.interventions import described
from divlens.models.fingerprint import cuts_wordings
from divlens.output import Record, as_read, write_output
from divlens.run import Run
from divlens.showing import Shown
from divlens.store.folder import RunFolder
from divlens.types import DrawnWith, Prompt

# Of a request: what several results of one folder may differ in. Levels are by the model.
BY_MODEL = ("models", "conditions", "setup", "levels")


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Result(Shown):
    """`request`: what was asked for, from which everything follows (see `request_of`)."""

    request: Record
    alone: ClassVar[bool] = True  # whether a folder holds one such result only

    @property
    @abstractmethod
    def found(self) -> Record:
        """What else a reader of the files must know: the wordings that were used, and with what was drawn (see
        `found_of`)."""

    @classmethod
    @abstractmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """Their tables and pictures, into an empty folder."""

    @classmethod
    def write_samples(cls, results: Sequence[Self], folder: Path) -> None:
        """Their samples, into a folder that is no run: a run has them already. Nothing where a result keeps none."""

    def save(self, folder: str | Path) -> None:
        """Write it to a new or empty folder, or again over the same result: tables, pictures, samples, run.json.

        The folder is written whole or not at all. Raises DivlensError for one that holds something else, or another
        result, or cannot be written.
        """
        save(self, folder)


def save(results: Result | Sequence[Result], folder: str | Path) -> None:
    """Write a result to a folder, as its own `save` does; several results of `information`, or of `decompose`, go into
    one folder. Raises DivlensError for what is no such result, and for results that were asked for differently."""
    several: Sequence[Any] = results if isinstance(results, list | tuple) else [results]
    kind = type(several[0]) if several else None
    if kind is None or not issubclass(kind, Result) or any(type(one) is not kind for one in several):
        got = ", ".join(dict.fromkeys(type(one).__name__ for one in several)) or "none"
        raise DivlensError(f"save expects a result, or several of information or of decompose, got {got}")
    if kind.alone and len(several) > 1:
        raise DivlensError(f"save expects one {kind.__name__} for a folder, got {len(several)}")
    whose = [(model, name) for one in several for model in one.request["models"] for name in one.request["conditions"]]
    if twice := [pair for pair in whose if whose.count(pair) > 1]:
        raise DivlensError(f"save expects every model under every condition once, got {' under '.join(twice[0])} twice")
    request, found = joint_request([one.request for one in several]), merged([one.found for one in several])

    def write(partial: Path) -> None:
        kind.write_files(several, partial)
        kind.write_samples(several, partial)

    write_output(Path(folder), request, found, write)


Finished = TypeVar("Finished", bound=Result | Sequence[Result])


def finished(results: Finished, folder: RunFolder | None) -> Finished:
    """What was drawn for the folder of a run, whose tables are now written there; without a folder as it is."""
    if folder is not None:
        several: Sequence[Result] = [results] if isinstance(results, Result) else results
        request, found = joint_request([one.request for one in several]), merged([one.found for one in several])
        folder.finish(request["command"], found, lambda partial: type(several[0]).write_files(several, partial))
    return results


def request_of(
    command: str,
    runs: Mapping[str, Mapping[str, Run]],
    conditions: Conditions,
    prompts: Sequence[Prompt],
    **options: object,
) -> Record:
    """What was asked for, as run.json holds it: two runs with one request are the same run.

    `runs`: of each model by its name, under each condition. `options`: numbers, texts, or lists and mappings of them.
    """
    seed = next(run.seed for of_model in runs.values() for run in of_model.values())
    setup = {model: setup_of(run) for model, of_model in runs.items() for run in of_model.values()}
    asked = {"command": command, "models": list(runs), "prompts": [asdict(prompt) for prompt in prompts]}
    return as_read({**asked, **request_so_far(command, conditions, seed), "setup": setup, **options})


def setup_of(run: Run) -> Record:
    """How a run's model is set up, and the batch size that was asked for, of which `drawn_with` has what was found."""
    drawing = run.rooms.drawing
    asked = drawing.fits if drawing.asked_for else "auto"
    return asdict(run.drawn_with) | {"batch_size": asked, "truncate": cuts_wordings(run.model)}


def request_so_far(command: str, conditions: Conditions, seed: int) -> Record:
    """What is known of a request before its models are loaded: enough to refuse the folder of another run early."""
    done = {name: described(interventions) for name, interventions in conditions.items()}
    return {"command": command, "conditions": done, "seed": seed}


def joint_request(requests: Sequence[Record]) -> Record:
    """That of several results. Raises DivlensError where they differ in more than models and conditions."""
    first, *others = requests
    for other in others:
        if differing := [key for key in first if key not in BY_MODEL and first[key] != other.get(key)]:
            raise DivlensError(
                f"save expects results for one folder to differ in models and conditions, got other "
                f"{', '.join(differing)}"
            )
    return merged(requests)


def title_of(model: str, interventions: Sequence[str]) -> str:
    """Whose a table is, in a line."""
    return " ".join((model, *interventions))


def columns_of(model: str, condition: str, interventions: Sequence[str]) -> dict[str, str]:
    """Whose the rows of a table are, by the names of its columns."""
    return {"model": model, "condition": condition, "interventions": " + ".join(interventions) or "none"}


Used = tuple[str, str, str, str]  # model, condition, prompt, wording


def used_in(model: str, condition: str, prompts: Sequence[Prompt], wordings: Sequence[Sequence[str]]) -> Iterator[Used]:
    """The wordings of each prompt, as they were used."""
    return (
        (model, condition, prompt.text, wording)
        for prompt, of_prompt in zip(prompts, wordings, strict=True)
        for wording in of_prompt
    )


def found_of(used: Iterable[Used], drawn_with: Mapping[str, DrawnWith], **others: object) -> Record:
    """What a run found besides its figures, as run.json holds it: the wordings that were used, once each, by model,
    condition and prompt; with what each model drew; and `others`."""
    wordings: dict[str, dict[str, dict[str, list[str]]]] = {}
    for model, condition, prompt, wording in dict.fromkeys(used):
        wordings.setdefault(model, {}).setdefault(condition, {}).setdefault(prompt, []).append(wording)
    how = {model: asdict(each) for model, each in drawn_with.items()}
    return as_read({"wordings": wordings, "drawn_with": how, **others})


def merged(records: Sequence[Record]) -> Record:
    """One record of several: mappings and lists hold what any of them holds, once; of other values the first stays."""
    whole: dict[str, Any] = {}
    for key, value in (item for record in records for item in record.items()):
        before = whole.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            whole[key] = merged([before, value])
        elif isinstance(before, list) and isinstance(value, list):
            whole[key] = [*before, *(part for part in value if part not in before)]
        else:
            whole.setdefault(key, value)
    return whole
