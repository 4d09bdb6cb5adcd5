"""A run: all of it decided, none of it drawn, as `planning` makes it; `fill` draws it."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Generic, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from divlens.errors import DivlensError
from divlens.loop import Moment, Watched, moments
from divlens.models.answers import checked_predictor, pictures_of
from divlens.models.fingerprint import fingerprint_of, is_compiled
from divlens.models.protocol import Lexical, Limited, Model, Predictor
from divlens.models.room import Rooms
from divlens.noise import CounterNoise, Noise
from divlens.settings import Settings
from divlens.types import DrawnWith, Prompt, View

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Row:
    """One sample to draw: `path` and `execution` say which of the prompt's noise it gets."""

    prompt: Prompt
    wording: str
    path: int
    execution: int

    @property
    def number(self) -> int:
        """The number of the sample among those of its prompt, while one of the two varies."""
        return max(self.path, self.execution)


@dataclass(frozen=True, slots=True)
class Group:
    """The `n` samples of a prompt: each with the next of the wordings in turn, and with noise of its own but for a
    stream that is frozen."""

    prompt: Prompt
    wordings: tuple[str, ...]
    n: int
    frozen: frozenset[str] = frozenset()

    def row(self, sample: int) -> Row:
        path, execution = (0 if stream in self.frozen else sample for stream in ("path", "execution"))
        return Row(self.prompt, self.wordings[sample % len(self.wordings)], path, execution)


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """The rows of some prompts, each made when it is asked for: a run of millions of samples is a short list."""

    groups: tuple[Group, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each group, and the number of all rows."""
        return list(accumulate((group.n for group in self.groups), initial=0))

    @cached_property
    def of_prompt(self) -> Mapping[str, Group]:
        """The group of each prompt, by its text."""
        return {group.prompt.text: group for group in self.groups}

    def __len__(self) -> int:
        return self.starts[-1]

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        numbers = range(len(self))[index]
        return tuple(map(self.row, numbers)) if isinstance(numbers, range) else self.row(numbers)

    def __iter__(self) -> Iterator[Row]:
        return (group.row(sample) for group in self.groups for sample in range(group.n))

    def row(self, number: int) -> Row:
        group = bisect_right(self.starts, number) - 1
        return self.groups[group].row(number - self.starts[group])


@dataclass(frozen=True, eq=False)
class Run:
    """What is to be drawn, under which settings.

    conditions: what the model encodes of every wording, a row of it each. rooms: how many samples are drawn and decoded
    at once, which an automatic batch size finds out. whole: all rows, where these are some of a request's.
    """

    model: Model
    settings: Settings
    seed: int
    rows: Sequence[Row]
    conditions: Mapping[str, Tensor]
    rooms: Rooms
    whole: Rows | None = None

    def part(self, rows: Sequence[Row]) -> Run:
        """The run of some of these rows, which may depend on others."""
        whole = self.rows if self.whole is None and isinstance(self.rows, Rows) else self.whole
        return replace(self, rows=rows, whole=whole)

    def others_needed(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that these depend on and that are not among them: of samples that keep apart from each other, those
        that come before them in their blocks."""
        if self.settings.repulsion is None:
            return []
        whole, among = self.whole or self.rows, self.settings.repulsion.among
        assert isinstance(whole, Rows), "samples of a prompt are known by their numbers"
        there = {(row.prompt.text, row.number) for row in rows}
        needed = ((text, one) for text, number in there for one in range(number - number % among, number))
        return [whole.of_prompt[text].row(one) for text, one in sorted(set(needed) - there)]

    @property
    def device(self) -> torch.device:
        """Where the loop runs."""
        return next(iter(self.conditions.values())).device

    @property
    def drawn_with(self) -> DrawnWith:
        """Device, precision, batch size, and whether the model is compiled. The precision is what the model calls its
        `dtype`, else that of its conditions; conditions that are integers do not tell it."""
        row = next(iter(self.conditions.values()))
        dtype = getattr(self.model, "dtype", row.dtype if row.is_floating_point() else None)
        known = None if dtype is None else str(dtype).removeprefix("torch.")
        return DrawnWith(str(row.device), known, self.rooms.drawing.fits, is_compiled(self.model))

    @cached_property
    def wordings(self) -> tuple[tuple[str, ...], ...]:
        """Of each prompt, those of its samples, with repeats as they are used. No prompt comes twice."""
        groups: dict[str, list[str]] = {}
        for row in self.rows:
            groups.setdefault(row.prompt.text, []).append(row.wording)
        return tuple(map(tuple, groups.values()))

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """In the order of `wordings`."""
        return tuple(self.rows[int(first)].prompt for first in self.starts)

    @cached_property
    def starts(self) -> Int[np.ndarray, " prompts"]:
        """The first row of each prompt; a prompt's rows stand together."""
        if isinstance(self.rows, Rows):
            return np.array(self.rows.starts[:-1])
        texts = [row.prompt.text for row in self.rows]
        return np.array([i for i, text in enumerate(texts) if not i or text != texts[i - 1]])

    def samples(self, numbers: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Of rows by their numbers, which sample of its prompt each is."""
        return numbers - self.starts[np.searchsorted(self.starts, numbers, side="right") - 1]

    def identity(self) -> dict[str, Any]:
        """All that the drawn tokens depend on, as plain values: two runs with one identity draw the same.

        `model_content` is None for a model whose content is not known. Conditions follow from model and wordings.
        """
        rows = [(row.prompt.text, row.wording, row.path, row.execution) for row in self.rows]
        return self.identity_of_all_rows(fingerprint_of(self.model)) | {"rows": digest(rows)}

    def identity_of_all_rows(self, content: str | None) -> dict[str, Any]:
        """The part of the identity that its rows share. `content`: the fingerprint of the model."""
        settings = self.settings
        allowed = None if settings.allowed is None else settings.allowed.nonzero().flatten().tolist()
        return {
            "model": self.model.name,
            "model_content": content,
            "settings": {
                "rule": repr(settings.rule),
                "guidance": settings.guidance,
                "temperature": settings.temperature,
                "allowed": None if allowed is None else digest(allowed),
                "top_k": settings.top_k,
                "top_p": settings.top_p,
                # By the number of steps, for two shares may be as many; none and all as in samples that are stored.
                "greedy": {0: False, settings.rule.steps: True}.get(settings.greedy_steps, settings.greedy_steps),
                "frozen": sorted(settings.frozen),
                "grid": settings.grid,
                "clustered": settings.clustered is not None,
                # Those that came later are None where they are as usual, see `store.cells`.
                "log_factors": None if settings.log_factors is None else digest(settings.log_factors.tolist()),
                "min_p": settings.min_p or None,
                "by_entropy": settings.by_entropy,
                "guided": None if settings.guided_steps == (0, settings.rule.steps) else settings.guided_steps,
                "condition_noise": settings.condition_noise and asdict(settings.condition_noise),
                "strata": settings.strata if settings.strata > 1 else None,
                "repulsion": settings.repulsion and asdict(settings.repulsion),
            },
            "seed": self.seed,
            "drawn_with": asdict(self.drawn_with),
        }


def digest(values: object) -> str:
    """A short hash of plain values."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def noise_of(rows: Sequence[Row], seed: int, strata: int = 1) -> Noise:
    """The noise that these rows are drawn with."""
    prompts, paths = [row.prompt.text for row in rows], [row.path for row in rows]
    return CounterNoise.of(seed, prompts, paths, [row.execution for row in rows], strata)


def steps(run: Run, wordings: Sequence[str], noise: Noise) -> Iterator[Moment]:
    """Fill a batch of grids under these wordings, step by step, from the empty grid on; see `loop.moments`."""
    model, settings = run.model, run.settings
    conditions = torch.stack([run.conditions[wording] for wording in wordings])
    positions = math.prod(model.grid)
    start = torch.full((len(wordings), positions), model.mask, dtype=torch.long, device=conditions.device)
    predictor = predictor_under(run, conditions, noise)
    return moments(predictor, settings, noise, start, model.mask, model.name)


def predictor_under(run: Run, conditions: Shaped[Tensor, "batch *shape"], noise: Noise) -> Predictor:
    """What the model answers, given these conditions; with noise on them, another predictor at every step."""
    model, guided, fading = run.model, run.settings.needs_guidance, run.settings.condition_noise
    if fading is None:
        return checked_predictor(model, model.predictor(conditions, guided=guided), guided)

    def call(view: View) -> tuple[Tensor, Tensor | None]:
        gamma = fading.gamma(view.step, run.settings.rule.steps)
        seen = conditions
        if gamma < 1:
            normal = noise.condition_normal(view.step, conditions[0].numel(), conditions.device)
            seen = fading.on(conditions, normal, gamma)
        return checked_predictor(model, model.predictor(seen, guided=guided), guided)(view)

    return call


@dataclass(frozen=True)
class Filled(Generic[Seen]):
    """A batch of finished grids, on the model's device.

    place: which of the run's rows these are. seen: what `see` made of the batch's steps.
    """

    run: Run
    place: slice
    tokens: Int[Tensor, "batch h w"]
    seen: Seen

    @property
    def rows(self) -> Sequence[Row]:
        return self.run.rows[self.place]

    def pictures(self) -> Float[Tensor, "batch 3 H W"]:
        """Decoded, anew at every call; where they do not fit into memory, fewer at once."""
        return pictures_of(self.run.model, self.tokens, self.run.rooms.decoding)


See = Callable[[slice, Iterator[Moment]], Seen]


def unseen(place: slice, passing: Iterator[Moment]) -> None:
    """Nobody looks."""


def fill(
    run: Run, see: See[Seen] = unseen, noise: Callable[[Sequence[Row], int], Noise] | None = None
) -> Iterator[Filled[Seen]]:
    """Fill the grids of a run, batch by batch. `see` makes what it likes of a batch's steps as they happen; steps that
    it leaves are taken all the same. Of a batch that did not fit into memory nothing is kept. `noise`: of rows and the
    seed, in place of the run's own."""

    @torch.inference_mode()
    def filled(place: slice) -> Filled[Seen]:
        asked = run.rows[place]
        rows = [*asked, *run.others_needed(asked)]
        own = noise_of(rows, run.seed, run.settings.strata) if noise is None else noise(rows, run.seed)
        passing = steps(run, [row.wording for row in rows], own)
        watched = Watched(passing if len(rows) == len(asked) else (one.of_first(len(asked)) for one in passing))
        seen, tokens = see(place, iter(watched)), watched.to_the_end()
        if bool((tokens == run.model.mask).any()):
            raise DivlensError(
                f"the path rule of {run.model.name} expects to fill the grid, but it left positions masked"
            )
        return Filled(run, place, tokens.view(-1, *run.model.grid), seen)

    return (batch for _, batch in run.rooms.drawing.parts(len(run.rows), filled))


def wording_notes(model: Model, wordings: Sequence[str]) -> Mapping[str, str]:
    """What the model did not read of a wording: tokens that were cut, words that it does not know. Empty for most."""
    distinct = list(dict.fromkeys(wordings))
    notes: dict[str, list[str]] = {wording: [] for wording in distinct}
    if isinstance(model, Limited):
        for wording, length in zip(distinct, model.lengths(distinct), strict=True):
            if length > model.limit:
                notes[wording].append(f"cut from {length} to {model.limit} tokens")
    if isinstance(model, Lexical):
        for wording, words in zip(distinct, model.unknown_words(distinct), strict=True):
            if words:
                close = model.near_words(words)
                hint = f" (did you mean {', '.join(close)}?)" if close else ""
                notes[wording].append(f"words not known: {', '.join(words)}{hint}")
    return {wording: "; ".join(found) for wording, found in notes.items() if found}
