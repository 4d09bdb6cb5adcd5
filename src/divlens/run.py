"""A run: all of it decided, none of it drawn. `plan` decides and refuses, `fill` draws."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.calibration import SAMPLES, frequencies_of
from divlens.errors import DivlensError, check_whole, is_whole
from divlens.interventions import Intervention, Settings, Wordings, apply_all, wordings_under
from divlens.loop import Moment, Watched, moments
from divlens.models.answers import calibration_prompts_of, checked_predictor, conditions_of, pictures_of
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Lexical, Limited, Model, Templated, check_model
from divlens.models.room import Rooms
from divlens.noise import CounterNoise, Noise
from divlens.paraphrase import wordings_of
from divlens.types import DrawnWith, Prompt

BATCH_SIZE = 96
MOST_SAMPLES = 10**6  # of a prompt: every sample has a row from the start
BatchSize = int | Literal["auto"]
Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Row:
    """One sample to draw: `path` and `execution` say which of the prompt's noise it gets."""

    prompt: Prompt
    wording: str
    path: int
    execution: int


@dataclass(frozen=True, eq=False)
class Run:
    """What is to be drawn, under which settings.

    conditions: what the model encodes of every wording, a row of it each. rooms: how many samples are drawn and decoded
    at once, which an automatic batch size finds out.
    """

    model: Model
    settings: Settings
    seed: int
    rows: tuple[Row, ...]
    conditions: Mapping[str, Tensor]
    rooms: Rooms

    @property
    def device(self) -> torch.device:
        """Where the loop runs."""
        return next(iter(self.conditions.values())).device

    @property
    def drawn_with(self) -> DrawnWith:
        """Device, precision and batch size. The precision is what the model calls its `dtype`, else that of its
        conditions; conditions that are integers do not tell it."""
        row = next(iter(self.conditions.values()))
        dtype = getattr(self.model, "dtype", row.dtype if row.is_floating_point() else None)
        known = None if dtype is None else str(dtype).removeprefix("torch.")
        return DrawnWith(str(row.device), known, self.rooms.drawing.fits)

    @cached_property
    def wordings(self) -> tuple[tuple[str, ...], ...]:
        """Of each prompt, those of its samples, with repeats as they are used. No prompt comes twice."""
        groups: dict[str, list[str]] = {}
        for row in self.rows:
            groups.setdefault(row.prompt.text, []).append(row.wording)
        return tuple(map(tuple, groups.values()))

    def identity(self) -> dict[str, Any]:
        """All that the drawn tokens depend on, as plain values: two runs with one identity draw the same.

        `model_content` is None for a model whose content is not known. Conditions follow from model and wordings.
        """
        settings = self.settings
        allowed = None if settings.allowed is None else settings.allowed.nonzero().flatten().tolist()
        rows = [(row.prompt.text, row.wording, row.path, row.execution) for row in self.rows]
        return {
            "model": self.model.name,
            "model_content": fingerprint_of(self.model),
            "settings": {
                "rule": repr(settings.rule),
                "guidance": settings.guidance,
                "temperature": settings.temperature,
                "allowed": None if allowed is None else digest(allowed),
                "top_k": settings.top_k,
                "top_p": settings.top_p,
                "greedy": settings.greedy,
                "frozen": sorted(settings.frozen),
            },
            "seed": self.seed,
            "rows": digest(rows),
            "drawn_with": asdict(self.drawn_with),
        }


def digest(values: object) -> str:
    """A short hash of plain values."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


class Reading:
    """What a model is asked while its runs are planned, each thing once: conditions of wordings, code frequencies."""

    def __init__(self, model: Model, batch_size: BatchSize = BATCH_SIZE) -> None:
        check_model(model)
        self.model = model
        automatic = batch_size == "auto"
        self.rooms = Rooms.of(BATCH_SIZE if automatic else batch_size, asked_for=not automatic)
        self.conditions: dict[str, Tensor] = {}
        self.shares: Float[Tensor, " codes"] | None = None

    @property
    def defaults(self) -> Settings:
        """The model's published settings."""
        model = self.model
        return Settings(rule=model.rule, guidance=model.guidance, top_k=getattr(model, "top_k", 0))

    @torch.inference_mode()
    def read(self, wordings: Sequence[str]) -> None:
        """Encode those that are new. Raises DivlensError for one that the model cannot read."""
        missing = [wording for wording in dict.fromkeys(wordings) if wording not in self.conditions]
        if not missing:
            return
        found = conditions_of(self.model, missing)
        shape = next(iter(self.conditions.values()), found[0]).shape
        if found.shape[1:] != shape:
            raise DivlensError(
                f"{self.model.name} expects to encode every wording in one shape, got {tuple(found.shape[1:])} "
                f"after {tuple(shape)}"
            )
        self.conditions |= zip(missing, found, strict=True)

    def can_read(self, wording: str) -> bool:
        try:
            self.read([wording])
        except DivlensError:
            return False
        return True

    def wordings(self, prompt: Prompt) -> tuple[str, ...]:
        """The prompt itself, then its paraphrases, or the templates around it that the model can read."""
        templates = self.model.paraphrase_templates if isinstance(self.model, Templated) else ()
        return wordings_of(prompt, self.can_read, templates)

    def settings(self, interventions: Sequence[Intervention]) -> Settings:
        """The published settings, changed by the interventions in order."""
        return apply_all(interventions, self.defaults, self.frequencies)

    def frequencies(self) -> Float[Tensor, " codes"]:
        """How often each code comes out, by a calibration run where that is not known."""
        if self.shares is None:
            self.shares = frequencies_of(self.model, lambda: fingerprint_of(self.model), self.calibrate)
        return self.shares

    def calibrate(self) -> Int[Tensor, "n h w"]:
        """The tokens of the calibration prompts; nothing is decoded."""
        prompts = [Prompt(text) for text in calibration_prompts_of(self.model)]
        rows = [row for prompt in prompts for row in rows_of(prompt, SAMPLES, (), self.defaults, self.wordings)]
        run = self.run(rows, self.defaults, seed=0)
        return torch.cat([filled.tokens.cpu() for filled in fill(run)])

    def run(self, rows: Sequence[Row], settings: Settings, seed: int) -> Run:
        """The run of these rows, all of whose wordings are read."""
        self.read([row.wording for row in rows])
        return Run(self.model, settings, seed, tuple(rows), self.conditions, self.rooms)


def rows_of(
    prompt: Prompt, n: int, interventions: Sequence[Intervention], settings: Settings, wordings: Wordings
) -> list[Row]:
    """A prompt's samples: each with its wording and noise of its own, but for a stream that is frozen."""
    used, held = wordings_under(interventions, prompt, wordings), settings.frozen
    return [
        Row(prompt, used[i % len(used)], path=0 if "path" in held else i, execution=0 if "execution" in held else i)
        for i in range(n)
    ]


def plan(
    model: Model,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: BatchSize = BATCH_SIZE,
) -> Run:
    """The run of `n` samples of each prompt. Every DivlensError that a request can raise is raised here."""
    return plans(model, prompts, n, seed, {"": interventions}, batch_size=batch_size)[""]


def plans(
    model: Model,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    conditions: Mapping[str, Sequence[Intervention]],
    *,
    batch_size: BatchSize = BATCH_SIZE,
) -> dict[str, Run]:
    """A run under each condition. A wording that several use is encoded once, and the model calibrated once at most."""
    check_request(n, seed, batch_size)
    reading, found = Reading(model, batch_size), dict[str, Run]()
    for name, interventions in conditions.items():
        settings = reading.settings(interventions)
        rows = [row for prompt in prompts for row in rows_of(prompt, n, interventions, settings, reading.wordings)]
        found[name] = reading.run(rows, settings, seed)
    return found


def check_request(n: int, seed: int, batch_size: BatchSize) -> None:
    """`n`: samples of each prompt."""
    check_whole("n", n, 1)
    if n > MOST_SAMPLES:
        raise DivlensError(f"n expects at most {MOST_SAMPLES:,} samples of each prompt, got {n:,}")
    if batch_size != "auto" and (not is_whole(batch_size) or batch_size < 1):
        raise DivlensError(f'batch_size expects at least 1, or "auto", got {batch_size!r}')
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise DivlensError(f"seed expects an integer in [0, 2**64), got {seed!r}")


def noise_of(rows: Sequence[Row], seed: int) -> Noise:
    """The noise that these rows are drawn with."""
    return CounterNoise.of(seed, [r.prompt.text for r in rows], [r.path for r in rows], [r.execution for r in rows])


def steps(run: Run, wordings: Sequence[str], noise: Noise) -> Iterator[Moment]:
    """Fill a batch of grids under these wordings, step by step, from the empty grid on; see `loop.moments`."""
    model, settings = run.model, run.settings
    conditions = torch.stack([run.conditions[wording] for wording in wordings])
    positions = math.prod(model.grid)
    start = torch.full((len(wordings), positions), model.mask, dtype=torch.long, device=conditions.device)
    guided = settings.guidance != 1.0
    predictor = checked_predictor(model, model.predictor(conditions, guided=guided), guided)
    return moments(predictor, settings, noise, start, model.mask, model.name)


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
    run: Run, see: See[Seen] = unseen, noise: Callable[[Sequence[Row], int], Noise] = noise_of
) -> Iterator[Filled[Seen]]:
    """Fill the grids of a run, batch by batch. `see` makes what it likes of a batch's steps as they happen; steps that
    it leaves are taken all the same. Of a batch that did not fit into memory nothing is kept."""

    @torch.inference_mode()
    def filled(place: slice) -> Filled[Seen]:
        rows = run.rows[place]
        watched = Watched(steps(run, [row.wording for row in rows], noise(rows, run.seed)))
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
