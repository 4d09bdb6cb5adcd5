"""What a study file asks for: its fields, read one by one, each refused with its line where it is not as it should be.

A field is a line of `PROTOCOL`, `INFORMATION` or `DECOMPOSE`: its name, and what reads its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from divlens.conditions import BASELINE, Conditions, default_conditions
from divlens.diversity import NETWORKS
from divlens.errors import DivlensError
from divlens.experiment.built_in import measure_or_name
from divlens.experiment.design import Levels
from divlens.information.plan import Effort
from divlens.interventions import Intervention
from divlens.models.loading import DTYPES
from divlens.models.registry import place_of
from divlens.notation import interventions_from
from divlens.planning import BATCH_SIZE, MOST_SAMPLES, BatchSize
from divlens.prompts import read_prompts
from divlens.study.document import Item, document_in
from divlens.study.prompt_sets import PROMPT_SETS
from divlens.types import Prompt
from divlens.verdict.contrasts import MARGIN

Reader = Callable[[Item], Any]
Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class InformationPart:
    """limit: of how many prompts, the first ones; None is all. n: samples of each; None is that of the study. under:
    the names of conditions. The rest: see `divlens.information` and `divlens.Effort`."""

    limit: int | None = None
    n: int | None = None
    under: tuple[str, ...] = (BASELINE,)
    reading: Literal["schedule", "trajectory"] = "schedule"
    paths: int = Effort.paths
    path_samples: int | None = None
    mixture_samples: int | None = None

    @property
    def effort(self) -> Effort:
        return Effort(self.paths, self.path_samples, self.mixture_samples)


@dataclass(frozen=True, kw_only=True)
class DecomposePart:
    """limit: of how many prompts, the first ones; None is all. The rest: see `divlens.decompose`."""

    limit: int | None = None
    wordings: int = 3
    paths: int = 4
    executions: int = 4
    decoders: int = 1
    length_control: bool = False

    @property
    def levels(self) -> Levels:
        return Levels(self.wordings, self.paths, self.executions, self.decoders)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that a study file asks for. conditions: those of its sweeps, too. measures: beside those of a probe, by name.
    information, decompose: None where they are not asked for. margin: of the verdict."""

    models: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    n: int = 8
    seed: int = 0
    conditions: Conditions = field(default_factory=default_conditions)
    information: InformationPart | None = None
    decompose: DecomposePart | None = None
    measures: tuple[str, ...] = ()
    lpips: str = NETWORKS[0]
    device: str = "cpu"
    dtype: str = "float32"
    truncate: bool = False
    compile: bool = False
    batch_size: BatchSize = BATCH_SIZE
    margin: float = MARGIN


def protocol_in(file: str | Path) -> Protocol:
    """What a study file asks for. Raises DivlensError, with the line, for one that cannot be read, is no YAML, has an
    unknown field or one twice, or a value that is not as expected."""
    path = Path(file)
    document = document_in(path, "study file")
    asked = document.fields(PROTOCOL)
    for name in ("models", "prompts"):
        if name not in asked:
            raise DivlensError(f"{path}: expected the field {name}, which is missing")
    values = {name: read(asked[name]) for name, read in PROTOCOL.items() if name in asked and name not in TOGETHER}
    prompts = prompts_of(asked["prompts"], path.parent)[: values.pop("limit", None)]
    conditions = conditions_of(asked.get("conditions"), asked.get("sweeps"))
    if "information" in asked:
        check_under(asked["information"], values["information"], conditions)
    return Protocol(prompts=prompts, conditions=conditions, **values)


def models_of(item: Item) -> tuple[str, ...]:
    """Names of models, all of them known; none is loaded."""
    named = item.different_texts("models")
    for model, text in named:
        with model.named_in_refusals():
            place_of(text.partition(":")[0])
    return tuple(text for _, text in named)


def prompts_of(item: Item, folder: Path) -> tuple[Prompt, ...]:
    """Those of a list, of a set that comes with the package, or of a file, whose name is relative to the `folder`."""
    if item.is_list:
        return tuple(Prompt(text) for _, text in item.different_texts("prompts"))
    name = item.text()
    if name in PROMPT_SETS:
        return PROMPT_SETS[name]()
    if not (folder / name).exists():
        raise item.refusal(f"a list, a file, or one of {', '.join(PROMPT_SETS)}, which come with the package")
    return read_prompts(folder / name)


def conditions_of(named: Item | None, sweeps: Item | None) -> Conditions:
    """Baseline, the conditions that are named or else the usual ones, and those of the sweeps."""
    from divlens.sweeps import conditions_of_sweep

    found: dict[str, Sequence[Intervention]] = dict(default_conditions() if named is None else {BASELINE: ()})
    for name, (_, item) in (named.named_items("conditions") if named else {}).items():
        with item.named_in_refusals():
            add_condition(found, name, interventions_from(item.text()))
    for sweep, text in sweeps.different_texts("sweeps") if sweeps else ():
        with sweep.named_in_refusals():
            for name, interventions in conditions_of_sweep(text).items():
                add_condition(found, name, interventions)
    return found


def add_condition(found: dict[str, Sequence[Intervention]], name: str, interventions: Sequence[Intervention]) -> None:
    if name in found and tuple(found[name]) != tuple(interventions):
        expected = "is always there, without interventions" if name == BASELINE else "is another condition already"
        raise DivlensError(f"the name {name!r:.80} {expected}")
    found[name] = interventions


def check_under(item: Item, part: InformationPart | None, conditions: Conditions) -> None:
    for name in part.under if part else ():
        if name not in conditions:
            raise DivlensError(
                f"{item.place}: information under expects conditions of the study, which are "
                f"{', '.join(conditions)}, got {name!r:.80}"
            )


def part_of(make: Callable[..., Options], known: Mapping[str, Reader]) -> Callable[[Item], Options | None]:
    """What reads a part of the study: true, false, or options."""

    def read(item: Item) -> Options | None:
        if not item.has_fields:
            return make() if item.truth() else None
        return make(**{name: known[name](value) for name, value in item.fields(known).items()})

    return read


def measures_of(item: Item) -> tuple[str, ...]:
    """Names of measures, whose networks are loaded: one that is not there is told now."""
    named = item.different_texts("measures")
    for measure, text in named:
        with measure.named_in_refusals():
            measure_or_name(text)
    return tuple(text for _, text in named)


def names_of(item: Item) -> tuple[str, ...]:
    return tuple(text for _, text in item.different_texts("names"))


def batch_size_of(item: Item) -> BatchSize:
    return "auto" if item.scalar() == "auto" else item.whole(1)


def at_least(least: int, most: int = 2**64 - 1) -> Reader:
    def read(item: Item) -> int:
        value = item.whole(least)
        if value > most:
            raise item.refusal(f"at most {most:,}")
        return value

    return read


SAMPLES = at_least(2, MOST_SAMPLES)
INFORMATION: Mapping[str, Reader] = {
    "limit": at_least(1),
    "n": SAMPLES,
    "under": names_of,
    "reading": lambda item: item.one_of(("schedule", "trajectory")),
    "paths": at_least(0, MOST_SAMPLES),
    "path_samples": at_least(0),
    "mixture_samples": at_least(0),
}
DECOMPOSE: Mapping[str, Reader] = {
    "limit": at_least(1),
    **dict.fromkeys(Levels._fields, at_least(1)),
    "length_control": Item.truth,
}
TOGETHER = ("prompts", "conditions", "sweeps")  # they are read with what stands beside them
PROTOCOL: Mapping[str, Reader] = {
    "models": models_of,
    **dict.fromkeys(TOGETHER, Item.text),
    "limit": at_least(1),
    "n": SAMPLES,
    "seed": at_least(0),
    "information": part_of(InformationPart, INFORMATION),
    "decompose": part_of(DecomposePart, DECOMPOSE),
    "measures": measures_of,
    "lpips": lambda item: item.one_of(NETWORKS),
    "device": Item.text,
    "dtype": lambda item: item.one_of(tuple(DTYPES)),
    "truncate": Item.truth,
    "compile": Item.truth,
    "batch_size": batch_size_of,
    "margin": lambda item: item.number_between(0, 1),
}
