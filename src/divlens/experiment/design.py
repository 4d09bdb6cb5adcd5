"""The crossed design of `decompose`: how many levels each factor has, and which texts a prompt is drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from divlens.conditions import name_of
from divlens.diversity import NETWORKS
from divlens.errors import DivlensError, check_whole
from divlens.interventions import Intervention, OnPrompt, wordings_under
from divlens.models.answers import asked_prompts, loaded_model
from divlens.models.protocol import Limited, Model, NoisyDecoding
from divlens.noise import prompt_key
from divlens.output import Record
from divlens.paraphrase import length
from divlens.planning import BATCH_SIZE, MOST_SAMPLES, BatchSize, Reading, check_request
from divlens.results import request_of
from divlens.run import Row, Run
from divlens.settings import Settings
from divlens.showing import counted
from divlens.types import Prompt

FACTORS = ("wording", "path", "execution", "decoder")
FILLER = ("image", "picture")  # says nothing of what is asked for


class Levels(NamedTuple):
    """How many levels each factor has; 1 where it is absent."""

    wordings: int
    paths: int
    executions: int
    decoders: int = 1

    @property
    def factors(self) -> tuple[str, ...]:
        """Those that a table names. The decoder's noise is one of them where it was asked for: few models have any."""
        return FACTORS if self.decoders > 1 else FACTORS[:-1]

    @property
    def record(self) -> dict[str, int]:
        """The number of levels by its name; without that of decoders where it is 1, as in runs from before it."""
        return {name: getattr(self, name) for name in self._fields[: len(self.factors)]}

    @property
    def written(self) -> str:
        return " x ".join(counted(count, name.removesuffix("s")) for name, count in self.record.items())


def levels_of(settings: Settings, asked: Levels, model: Model) -> Levels:
    """The levels that are drawn: one path where the rule makes no path draw, one execution where draws are greedy, one
    decoder where it draws no noise.

    Raises DivlensError for levels below 1, for nothing to vary, asked for or left, for a stream that is frozen, for
    samples that depend on each other, and for noise of another kind.
    """
    for factor, count in zip(Levels._fields, asked, strict=True):
        check_whole(factor, count, 1)
    if max(asked) == 1:
        raise DivlensError("decompose expects at least 2 wordings, paths, executions or decoders, got 1 of each")
    if (pictures := math.prod(asked)) > MOST_SAMPLES:
        raise DivlensError(
            f"{' x '.join(asked.record)} expects at most {MOST_SAMPLES:,} pictures of a prompt, got {pictures:,}"
        )
    if settings.frozen:
        streams = " and ".join(sorted(settings.frozen))
        raise DivlensError(f"decompose varies the noise itself, got Freeze of {streams}: ask for 1 level instead")
    if settings.joint:
        raise DivlensError(f"decompose expects samples that are drawn apart from each other, got {settings.joint}")
    if settings.condition_noise is not None:
        raise DivlensError("decompose splits path and execution, got ConditionNoise, which is another source")
    still = settings.without_noise
    drawn = Levels(
        asked.wordings,
        paths=1 if "path" in still else asked.paths,
        executions=1 if "execution" in still else asked.executions,
        decoders=asked.decoders if isinstance(model, NoisyDecoding) else 1,
    )
    if max(drawn) == 1:
        raise DivlensError(f"decompose finds nothing to vary: {model.name} makes no draw of the factors asked for")
    return drawn


@dataclass(frozen=True)
class Plan:
    """What one prompt is drawn with: its wordings and, with length control, two more series of as many texts.

    `lengthened`: the shortest wording, filled up to the length of each wording. `same_length`: each wording, filled up
    to the longest's length. A text that stands in several places is drawn once.
    """

    prompt: Prompt
    wordings: tuple[str, ...]
    lengthened: tuple[str, ...] = ()
    same_length: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.wordings, *self.lengthened, *self.same_length)))

    def rows(self, levels: Levels) -> list[Row]:
        """Block by block: all texts with one path and one execution, then with the next."""
        blocks = [(path, execution) for path in range(levels.paths) for execution in range(levels.executions)]
        return [Row(self.prompt, text, path, execution) for path, execution in blocks for text in self.texts]


def plan_of(
    reading: Reading,
    prompt: Prompt,
    wordings: int,
    seed: int,
    interventions: Sequence[Intervention],
    length_control: bool,
) -> Plan:
    """The prompt's wordings: a simple random choice of those it has (of those that `Paraphrase` takes), so that the
    mean over pairs of them estimates the mean over pairs of all without bias."""
    reading.read([prompt.text])  # where it cannot be read, that is what is to be said
    reworded = any(isinstance(intervention, OnPrompt) for intervention in interventions)
    pool = wordings_under(interventions, prompt, reading.wordings) if reworded else reading.wordings(prompt)
    if len(pool) < wordings:
        raise DivlensError(f"decompose expects at least {wordings} wordings of {prompt.text!r}, got {len(pool)}")
    order = np.random.default_rng([seed, prompt_key(prompt.text)]).permutation(len(pool))
    plan = Plan(prompt, tuple(pool[i] for i in sorted(order[:wordings])) if wordings > 1 else pool[:1])
    if length_control:
        measure = length_in(reading.model)
        shortest, longest = min(pool, key=measure), max(map(measure, pool))
        lengthened = tuple(filled_up(shortest, measure(wording), measure) for wording in plan.wordings)
        plan = Plan(prompt, plan.wordings, lengthened, tuple(filled_up(w, longest, measure) for w in plan.wordings))
    return plan


@dataclass(frozen=True)
class Design:
    """All that `decompose` will draw of a model, checked. `asked`: the levels asked for; `levels`: those drawn."""

    run: Run
    interventions: tuple[Intervention, ...]
    asked: Levels
    levels: Levels
    plans: Sequence[Plan]
    length_control: bool

    def request(self, features: object = None) -> Record:
        """What was asked for, as run.json holds it. `features`: the name of the network, or a function."""
        name, prompts = name_of(self.interventions), [plan.prompt for plan in self.plans]
        runs = {self.run.model.name: {name: self.run}}
        network = NETWORKS[0] if features is None else features if isinstance(features, str) else "a function"
        return request_of(
            "decompose",
            runs,
            {name: self.interventions},
            prompts,
            lpips=network,
            length_control=self.length_control,
            levels={self.run.model.name: self.asked.record},
        )


def design_of(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    asked: Levels,
    seed: int,
    *,
    interventions: Sequence[Intervention] = (),
    length_control: bool = False,
    batch_size: BatchSize = BATCH_SIZE,
) -> Design:
    """Raises every DivlensError that `decompose` says it raises before anything is drawn."""
    known = loaded_model(model)
    distinct = asked_prompts([known], prompts)
    check_request(1, seed, batch_size)
    reading = Reading(known, batch_size)
    settings = reading.settings(interventions)
    levels = levels_of(settings, asked, known)
    if length_control and asked.wordings == 1:
        raise DivlensError("length_control expects at least 2 wordings, got 1")
    plans = [plan_of(reading, prompt, asked.wordings, seed, interventions, length_control) for prompt in distinct]
    run = reading.run([row for plan in plans for row in plan.rows(levels)], settings, seed)
    return Design(run, tuple(interventions), asked, levels, plans, length_control)


def length_in(model: Model) -> Callable[[str], int]:
    """Tokens of the model's text encoder where it tells them, else words."""
    return (lambda text: model.lengths([text])[0]) if isinstance(model, Limited) else length


def filled_up(wording: str, target: int, measure: Callable[[str], int]) -> str:
    """The wording with neutral words after it, as many as make it at least `target` long.

    Raises DivlensError when neutral words do not make it longer: another such word would not either.
    """
    words = 0
    while measure(wording) < target:
        if words > target + len(FILLER):
            raise DivlensError(f"length_control expects a length that grows with the words, got {measure(wording)}")
        wording = f"{wording} {FILLER[words % len(FILLER)]}"
        words += 1
    return wording
