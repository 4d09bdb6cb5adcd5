"""The one loop for all families: ask the model, draw tokens, draw the path, again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.calibration import SAMPLES, frequencies_of
from divlens.interventions import Intervention, Settings, apply_all, filter_logits
from divlens.models.answers import (
    calibration_prompts_of,
    check_same_size,
    checked_predictor,
    conditions_of,
    loaded_model,
    pictures_of,
)
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Lexical, Limited, Model, Predictor, Templated, check_model
from divlens.models.room import Room
from divlens.noise import CounterNoise, Noise, entropy_of
from divlens.paraphrase import wordings_for_samples, wordings_of
from divlens.paths import Advance, Draws
from divlens.progress import OnBatch, followed
from divlens.prompts import as_prompts
from divlens.types import (
    DivlensError,
    DrawnWith,
    Generation,
    Prompt,
    Step,
    Trace,
    View,
    check_whole,
    is_whole,
)

BATCH_SIZE = 96
MOST_SAMPLES = 10**6  # of a prompt: every sample has a row from the start
BatchSize = int | Literal["auto"]


def settings_for(
    model: Model,
    interventions: Sequence[Intervention],
    encoded: Encoded | None = None,
    batch_size: BatchSize = BATCH_SIZE,
) -> Settings:
    """The model's published defaults, changed by the interventions in order.

    `encoded`, `batch_size`: for the calibration run that Subset and DisableTop ask for, where the model has no
    frequencies yet.
    """
    check_model(model)
    defaults = Settings(rule=model.rule, guidance=model.guidance, top_k=getattr(model, "top_k", 0))
    known = encoded or Encoded(model)

    def calibrate() -> Int[Tensor, "*any"]:
        prompts = [Prompt(text) for text in calibration_prompts_of(model)]
        rows = [row for prompt in prompts for row in rows_of(prompt, range(SAMPLES), (), defaults, known)]
        drawn = fill(model, rows, 0, defaults, known, batch_size=batch_size)  # tokens only: nothing is decoded
        return torch.cat([filled.tokens.cpu() for filled in drawn])

    return apply_all(interventions, defaults, lambda: known.frequencies(calibrate))


def guide(
    conditional: Float[Tensor, "batch m codes"], unconditional: Float[Tensor, "batch m codes"] | None, scale: float
) -> Float[Tensor, "batch m codes"]:
    """Classifier-free guidance (Ho and Salimans, 2022) in float32; the conditional logits when there is no other."""
    if unconditional is None:
        return conditional.float()
    return torch.lerp(unconditional.float(), conditional.float(), scale)


@dataclass(frozen=True)
class Moment:
    """What an observer sees of one step of a batch.

    `log_p`: natural log-probabilities of the draw at the positions of the view, after guidance and filters. `drawn`:
    the positions of the view at which the draw matters. `result`: what the path rule made of it.
    """

    view: View
    log_p: Float[Tensor, "batch m codes"]
    drawn: Bool[Tensor, "batch m"]
    draws: Draws
    result: Advance
    settings: Settings
    mask: int


Observer = Callable[[Moment], None]


@torch.inference_mode()
def run_loop(
    predictor: Predictor,
    settings: Settings,
    noise: Noise,
    start: Int[Tensor, "batch n"],
    mask: int,
    observers: Sequence[Observer] = (),
    name: str = "the model",
) -> Int[Tensor, "batch n"]:
    """Fill a batch of token grids. `start` holds `mask` wherever nothing is given; observers see every step."""
    rule, tokens = settings.rule, start
    for step in range(rule.steps):
        view = rule.view(tokens, step)
        log_p = filter_logits(guide(*predictor(view), settings.guidance), settings)
        if log_p.isnan().any():
            raise DivlensError(f"{name} gave NaN logits at step {step}, or infinite ones: expected finite numbers")
        proposed = log_p.argmax(-1) if settings.greedy else noise.draw(log_p.exp(), step, view.first)
        draws = Draws(proposed, log_p.gather(-1, proposed.unsqueeze(-1)).squeeze(-1))
        result = rule.advance(view, draws, mask, noise)
        if observers:
            moment = Moment(view, log_p, rule.drawn(view, mask), draws, result, settings, mask)
            for observe in observers:
                observe(moment)
        tokens = result.tokens
    return tokens


def traced(moment: Moment) -> Step:
    """What a step leaves behind, scattered to the whole grid. A greedy draw has probability 1 and entropy 0."""
    view, drawn, greedy = moment.view, moment.drawn, moment.settings.greedy

    def place(values: Tensor) -> Tensor:
        whole = torch.zeros(view.tokens.shape, dtype=values.dtype, device=values.device)
        whole[:, view.first : view.first + view.count] = values
        return whole

    entropy = entropy_of(moment.log_p)
    zero = torch.zeros_like(entropy)
    return Step(
        drawn=place(drawn),
        committed=moment.result.committed,
        tokens=place(moment.draws.tokens.masked_fill(~drawn, 0)),
        state=moment.result.tokens,
        log_probability=place(zero if greedy else torch.where(drawn, moment.draws.log_probability, zero)),
        entropy=place(zero if greedy else torch.where(drawn, entropy, zero)),
        path_log_probability=moment.result.path_log_probability,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One sample to draw: `path` and `execution` say which of the prompt's noise it gets."""

    prompt: Prompt
    wording: str
    path: int
    execution: int


class Encoded:
    """What is learned of a model once in a run: conditions of wordings, code frequencies, and the batch that fits."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rows: dict[str, Tensor] = {}
        self.drawing, self.decoding = Room(BATCH_SIZE), Room(BATCH_SIZE)  # of an automatic batch
        self.shares: Tensor | None = None

    @cached_property
    def fingerprint(self) -> str | None:
        """Of the model's content; None where that is not known."""
        return fingerprint_of(self.model)

    def frequencies(self, generate: Callable[[], Int[Tensor, "*any"]]) -> Float[Tensor, " codes"]:
        """How often each code comes out; `generate` draws the tokens of a calibration run where that is not known."""
        if self.shares is None:
            self.shares = frequencies_of(self.model, lambda: self.fingerprint, generate)
        return self.shares

    def can_read(self, wording: str) -> bool:
        """Whether the model takes the wording; what it encodes on the way is kept."""
        try:
            self.of([wording])
        except DivlensError:
            return False
        return True

    def rewording(self, prompt: Prompt) -> tuple[str, ...]:
        """The wordings of a prompt that the model takes: itself, then its paraphrases or the templates around it."""
        templates = self.model.paraphrase_templates if isinstance(self.model, Templated) else ()
        return wordings_of(prompt, self.can_read, templates)

    @torch.inference_mode()
    def of(self, wordings: Sequence[str]) -> Tensor:
        """A row per wording. Raises DivlensError for one that the model cannot read."""
        missing = list(dict.fromkeys(wording for wording in wordings if wording not in self.rows))
        if missing:
            found = conditions_of(self.model, missing)
            shape = next(iter(self.rows.values()), found[0]).shape
            if found.shape[1:] != shape:
                raise DivlensError(
                    f"{self.model.name} expects to encode every wording in one shape, got {tuple(found.shape[1:])} "
                    f"after {tuple(shape)}"
                )
            self.rows |= zip(missing, found, strict=True)
        return torch.stack([self.rows[wording] for wording in wordings])


def drawn_with(encoded: Encoded, batch_size: BatchSize) -> DrawnWith:
    """How a run was drawn that is done. The precision is what the model calls its `dtype`, else that of its conditions;
    conditions that are integers do not tell it."""
    row = next(iter(encoded.rows.values()))
    dtype = getattr(encoded.model, "dtype", row.dtype if row.is_floating_point() else None)
    known = None if dtype is None else str(dtype).removeprefix("torch.")
    return DrawnWith(str(row.device), known, encoded.drawing.fits if batch_size == "auto" else batch_size)


def rows_of(
    prompt: Prompt, samples: Sequence[int], interventions: Sequence[Intervention], settings: Settings, encoded: Encoded
) -> list[Row]:
    """A prompt's samples: each with its wording and noise of its own, but for a stream that is frozen."""
    wordings = wordings_for_samples(prompt, interventions, samples, encoded.rewording)
    held = settings.frozen
    return [
        Row(prompt, wording, path=0 if "path" in held else i, execution=0 if "execution" in held else i)
        for i, wording in zip(samples, wordings, strict=True)
    ]


@dataclass(frozen=True)
class Filled:
    """A batch of finished grids, on the model's device. `pictures` decodes them, anew at every call."""

    rows: Sequence[Row]
    tokens: Int[Tensor, "batch h w"]
    pictures: Callable[[], Float[Tensor, "batch 3 H W"]]


def fill(
    model: Model,
    rows: Sequence[Row],
    seed: int,
    settings: Settings,
    encoded: Encoded,
    *,
    batch_size: BatchSize = BATCH_SIZE,
    observers: Callable[[Sequence[Row]], Sequence[Observer]] = lambda rows: (),
) -> Iterator[Filled]:
    """Fill the grids of `rows`, batch by batch. `observers` gives those of one batch; they see its every step.

    "auto" starts with the usual batch and halves it whenever the device runs out of memory, and `encoded` remembers;
    observers of a batch that did not fit are dropped. Where pictures do not fit, fewer are decoded at once, and nothing
    is drawn again.
    """
    encoded.of(list(dict.fromkeys(row.wording for row in rows)))
    if batch_size == "auto":
        drawing, decoding = encoded.drawing, encoded.decoding
    else:
        drawing = decoding = Room(batch_size, asked_for=True)

    def drawn(part: slice) -> Int[Tensor, "batch h w"]:
        batch = rows[part]
        return fill_batch(model, batch, seed, settings, encoded.of([row.wording for row in batch]), observers)

    for part, tokens in drawing.parts(len(rows), drawn):
        yield Filled(rows[part], tokens, partial(pictures_of, model, tokens, decoding))


@torch.inference_mode()
def fill_batch(
    model: Model,
    rows: Sequence[Row],
    seed: int,
    settings: Settings,
    conditions: Tensor,
    observers: Callable[[Sequence[Row]], Sequence[Observer]],
) -> Int[Tensor, "batch h w"]:
    tokens = filled_from(model, settings, conditions, noise_of(rows, seed), observers(rows))
    return tokens.view(-1, *model.grid)


def noise_of(rows: Sequence[Row], seed: int) -> CounterNoise:
    """The noise that these rows are drawn with."""
    return CounterNoise.of(seed, [r.prompt.text for r in rows], [r.path for r in rows], [r.execution for r in rows])


def filled_from(
    model: Model, settings: Settings, conditions: Tensor, noise: Noise, observers: Sequence[Observer]
) -> Int[Tensor, "batch n"]:
    """The loop from the empty grid on, a row per condition."""
    positions = math.prod(model.grid)
    start = torch.full((len(conditions), positions), model.mask, dtype=torch.long, device=conditions.device)
    guided = settings.guidance != 1.0
    predictor = checked_predictor(model, model.predictor(conditions, guided=guided), guided)
    tokens = run_loop(predictor, settings, noise, start, model.mask, observers, model.name)
    if bool((tokens == model.mask).any()):
        raise DivlensError(f"the path rule of {model.name} expects to fill the grid, but it left positions masked")
    return tokens


def sample(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: BatchSize = BATCH_SIZE,
    trace: bool = True,
    encoded: Encoded | None = None,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> Generation:
    """Draw `n` samples of each prompt.

    `model`: a model, or the spec of one ("zoo/mim"). The noise of a sample is a function of (seed, prompt, its index):
    it does not depend on `batch_size`, on the other prompts, or on `n`. Nor does the sample of a model whose logits do
    not, as the zoo's on a processor. Logits of other models may differ by a rounding error with the number of rows, so
    that a draw falls the other way now and then; `drawn_with` of the result records it.

    `batch_size="auto"` finds what fits the device. `encoded`: conditions of this model that several calls share, so
    that a wording is encoded once. `progress`: True shows a bar on stderr. `on_batch` is told how many more samples are
    done. All pictures are returned, so memory grows with prompts * n, and with `trace` by what every step left behind;
    `divlens.probe` measures more samples than fit.

    Raises DivlensError for an empty list of prompts, an empty prompt, a wording the model cannot read, n < 1 or above a
    million, a seed that is no unsigned 64-bit number, interventions that leave nothing to draw, and a model whose
    answers do not fit.
    """
    known = loaded_model(model)
    asked = as_prompts(prompts)
    check_request(n, seed, batch_size)
    encoded, samples = encoded or Encoded(known), tuple(range(n))
    settings = settings_for(known, interventions, encoded, batch_size)
    rows = [row for prompt in asked for row in rows_of(prompt, samples, interventions, settings, encoded)]
    tokens = torch.empty(len(rows), *known.grid, dtype=torch.long)
    images, steps, done = torch.empty(0), [], 0

    def tracers(batch: Sequence[Row]) -> Sequence[Observer]:
        recorded.clear()
        return [lambda moment: recorded.append(traced(moment))] if trace else ()

    recorded: list[Step] = []
    with followed(progress, on_batch, len(rows), known.name) as told:
        for filled in fill(known, rows, seed, settings, encoded, batch_size=batch_size, observers=tracers):
            pictures, last = filled.pictures(), done + len(filled.rows)
            if not done:
                images = torch.empty(len(rows), *pictures.shape[1:])
            check_same_size(known, pictures, images)
            tokens[done:last], images[done:last], done = filled.tokens.cpu(), pictures, last
            steps.append(tuple(recorded))
            told.advance(len(filled.rows))
    return Generation(
        prompts=asked,
        wordings=tuple(tuple(row.wording for row in rows[i : i + n]) for i in range(0, len(rows), n)),
        seed=seed,
        drawn_with=drawn_with(encoded, batch_size),
        samples=samples,
        tokens=tokens.view(len(asked), n, *known.grid),
        images=images.view(len(asked), n, *images.shape[1:]),
        trace=joined(steps) if trace else None,
        notes=wording_notes(known, [row.wording for row in rows]),
    )


def check_request(n: int, seed: int, batch_size: BatchSize) -> None:
    """`n`: samples of each prompt."""
    check_whole("n", n, 1)
    if n > MOST_SAMPLES:
        raise DivlensError(f"n expects at most {MOST_SAMPLES:,} samples of each prompt, got {n:,}")
    if batch_size != "auto" and (not is_whole(batch_size) or batch_size < 1):
        raise DivlensError(f'batch_size expects at least 1, or "auto", got {batch_size!r}')
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise DivlensError(f"seed expects an integer in [0, 2**64), got {seed!r}")


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


def joined(batches: Sequence[Sequence[Step]]) -> Trace:
    """The steps of several batches, batch dimension concatenated."""
    names = [field.name for field in fields(Step)]
    return Trace(
        tuple(
            Step(**{name: torch.cat([getattr(s, name) for s in steps]).cpu() for name in names})
            for steps in zip(*batches, strict=True)
        )
    )
