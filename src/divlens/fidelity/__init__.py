"""Whether a picture shows what was asked for: what a judge reads in it, and what a prompt names of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.lab.attributes import Attribute
from divlens.models.protocol import Model
from divlens.models.zoo.lexicon import asked_concept
from divlens.types import Prompt

__all__ = [
    "Attribute",
    "Erring",
    "Judge",
    "Named",
    "PromptReader",
    "confusion_of",
    "judge_of",
    "named_by",
    "respects",
]

Named = tuple[int | None, ...]  # of each attribute the index of the value that a prompt names; None: it leaves it open


@runtime_checkable
class Judge(Protocol):
    """Reads pictures: of each of its attributes the index of a value. The first attribute is what is shown."""

    @property
    def attributes(self) -> Sequence[Attribute]: ...

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, "batch attributes"]: ...


@runtime_checkable
class PromptReader(Protocol):
    """A judge that reads in a prompt more than the name of what is shown."""

    def named(self, prompt: Prompt) -> Named | None:
        """None for a prompt that it cannot read."""
        ...


@runtime_checkable
class Erring(Protocol):
    """A judge that knows how often it errs."""

    @property
    def confusions(self) -> Mapping[str, Float[np.ndarray, "true read"]]:
        """By the name of an attribute, how often a true value (row) is read as each value (column); rows sum to 1."""
        ...


def named_by(judge: Judge, prompt: Prompt) -> Named | None:
    """What a prompt names of that which the judge reads; None where the judge does not know what is asked for.

    A judge that does not read prompts itself is asked for the thing that is shown only, by its name (`asked_concept`).
    """
    if isinstance(judge, PromptReader):
        return judge.named(prompt)
    shown, *others = judge.attributes
    concept = asked_concept(prompt.text, prompt.concept, shown.values)
    return None if concept is None else (concept, *(None for _ in others))


def confusion_of(judge: Judge, attribute: Attribute) -> Float[np.ndarray, "true read"]:
    """How often the judge reads a value (row) as each value (column); one that does not say is taken to be right."""
    known = judge.confusions if isinstance(judge, Erring) else {}
    return np.asarray(known.get(attribute.name, np.eye(len(attribute))), float)


def respects(readings: Int[Tensor, "batch attributes"], named: Named) -> Bool[Tensor, " batch"]:
    """Which pictures are read as the prompt names them, in everything. The share of them is the prompt fidelity."""
    values = readings.new_tensor([-1 if value is None else value for value in named])
    return ((readings == values) | (values < 0)).all(1)


def judge_of(model: Model) -> Judge | None:
    """The judge that a model declares as its `judge`: one itself, or the name of one that comes with the package; None
    where it declares none, for then there is no ground truth. Raises DivlensError for an unknown name."""
    declared = getattr(model, "judge", None)
    if not isinstance(declared, str):
        if declared is not None and not (callable(declared) and isinstance(declared, Judge)):
            raise DivlensError(f"{model.name} expects to declare a judge with attributes, got {declared!r:.40}")
        return declared
    if declared != "zoo":
        raise DivlensError(f"{model.name} expects to declare a judge or the name of one, zoo, got {declared!r:.40}")
    from divlens.fidelity.judge import load_judge

    return load_judge()
