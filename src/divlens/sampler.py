"""The one loop for all families: ask the model, draw tokens, draw the path, again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.calibration import SAMPLES, frequencies_of
from divlens.interventions import Intervention, Settings, apply_all, filter_logits
from divlens.models.protocol import Model, Predictor
from divlens.noise import CounterNoise, Noise
from divlens.paraphrase import wordings_for_samples
from divlens.paths import Advance, Draws
from divlens.types import DivlensError, Generation, Prompt, Step, Trace, View

BATCH_SIZE = 96


def settings_for(model: Model, interventions: Sequence[Intervention]) -> Settings:
    """The model's published defaults, changed by the interventions in order."""
    defaults = Settings(rule=model.rule, guidance=model.guidance)

    def calibrate() -> Int[Tensor, "*any"]:
        return sample(model, list(model.calibration_prompts()), n=SAMPLES, trace=False).tokens

    return apply_all(interventions, defaults, lambda: frequencies_of(model, calibrate))


def guide(
    conditional: Float[Tensor, "batch m codes"], unconditional: Float[Tensor, "batch m codes"] | None, scale: float
) -> Float[Tensor, "batch m codes"]:
    """Classifier-free guidance (Ho and Salimans, 2022) in float32; the conditional logits when there is no other."""
    if unconditional is None:
        return conditional.float()
    return torch.lerp(unconditional.float(), conditional.float(), scale)


@torch.inference_mode()
def run_loop(
    predictor: Predictor,
    settings: Settings,
    noise: Noise,
    start: Int[Tensor, "batch n"],
    mask: int,
    trace: list[Step] | None = None,
) -> Int[Tensor, "batch n"]:
    """Fill a batch of token grids. `start` holds `mask` wherever nothing is given; a Step per step goes to `trace`."""
    rule, tokens = settings.rule, start
    for step in range(rule.steps):
        view = rule.view(tokens, step)
        log_p = filter_logits(guide(*predictor(view), settings.guidance), settings)
        if log_p.isnan().any():
            raise DivlensError(f"the model gave NaN logits at step {step}: expected finite numbers")
        proposed = log_p.argmax(-1) if settings.greedy else noise.draw(log_p.exp(), step, view.first)
        draws = Draws(proposed, log_p.gather(-1, proposed.unsqueeze(-1)).squeeze(-1))
        result = rule.advance(view, draws, mask, noise)
        if trace is not None:
            trace.append(traced(view, rule.drawn(view, mask), draws, log_p, settings.greedy, result))
        tokens = result.tokens
    return tokens


def traced(view: View, drawn: Tensor, draws: Draws, log_p: Tensor, greedy: bool, result: Advance) -> Step:
    """What a step leaves behind, scattered to the whole grid. A greedy draw has probability 1 and entropy 0."""

    def place(values: Tensor) -> Tensor:
        whole = torch.zeros(view.tokens.shape, dtype=values.dtype, device=values.device)
        whole[:, view.first : view.first + view.count] = values
        return whole

    entropy = torch.special.entr(log_p.exp()).sum(-1)
    zero = torch.zeros_like(entropy)
    return Step(
        drawn=place(drawn),
        committed=result.committed,
        tokens=place(draws.tokens.masked_fill(~drawn, 0)),
        log_probability=place(zero if greedy else torch.where(drawn, draws.log_probability, zero)),
        entropy=place(zero if greedy else torch.where(drawn, entropy, zero)),
        path_log_probability=result.path_log_probability,
    )


@dataclass(frozen=True)
class Row:
    """One sample to draw."""

    prompt: Prompt
    sample: int
    wording: str


class Encoded:
    """Conditions of wordings, each encoded once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rows: dict[str, Tensor] = {}

    def can_read(self, wording: str) -> bool:
        """Whether the model takes the wording; what it encodes on the way is kept."""
        try:
            self.of([wording])
        except DivlensError:
            return False
        return True

    @torch.inference_mode()
    def of(self, wordings: Sequence[str]) -> Tensor:
        """A row per wording. Raises DivlensError for one that the model cannot read."""
        missing = [wording for wording in wordings if wording not in self.rows]
        if missing:
            self.rows |= zip(missing, self.model.encode(missing), strict=True)
        return torch.stack([self.rows[wording] for wording in wordings])


def batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def sample(
    model: Model,
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: int = BATCH_SIZE,
    trace: bool = True,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Generation:
    """Draw `n` samples of each prompt.

    A sample is a function of (seed, prompt, its index, interventions): it does not depend on `batch_size`, on the
    other prompts, or on `n`. `on_batch` is told how many samples are done. Raises DivlensError for an empty list of
    prompts, an empty prompt, a wording the model cannot read, n < 1, a seed that is
    no unsigned 64-bit number, or interventions that leave nothing to draw.
    """
    asked = tuple(prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts)
    if not asked:
        raise DivlensError("expected at least one prompt, got none")
    if n < 1:
        raise DivlensError(f"n expects at least 1 sample, got {n}")
    if batch_size < 1:
        raise DivlensError(f"batch_size expects at least 1, got {batch_size}")
    if not 0 <= seed < 2**64:
        raise DivlensError(f"seed expects an integer in [0, 2**64), got {seed}")
    settings = settings_for(model, interventions)
    samples = tuple(range(n))
    encoded = Encoded(model)
    wordings = tuple(wordings_for_samples(prompt, interventions, samples, encoded.can_read) for prompt in asked)
    rows = [Row(p, i, w) for p, texts in zip(asked, wordings, strict=True) for i, w in zip(samples, texts, strict=True)]
    distinct = list(dict.fromkeys(row.wording for row in rows))
    conditions = encoded.of(distinct)
    index = {wording: i for i, wording in enumerate(distinct)}
    tokens, images, steps = [], [], []
    height, width = model.grid
    for batch in batches(rows, batch_size):
        recorded: list[Step] | None = [] if trace else None
        start = torch.full((len(batch), height * width), model.mask, dtype=torch.long, device=conditions.device)
        noise = CounterNoise.of(seed, [r.prompt.text for r in batch], [r.sample for r in batch], settings.frozen)
        with torch.inference_mode():
            chosen = conditions[torch.tensor([index[row.wording] for row in batch], device=conditions.device)]
            filled = run_loop(
                model.predictor(chosen, guided=settings.guidance != 1.0), settings, noise, start, model.mask, recorded
            ).view(-1, height, width)
            images.append(model.decode(filled))
        tokens.append(filled.cpu())
        steps.append(recorded)
        on_batch(len(batch))
    pictures = torch.cat(images)
    return Generation(
        prompts=asked,
        wordings=wordings,
        seed=seed,
        samples=samples,
        tokens=torch.cat(tokens).view(len(asked), n, height, width),
        images=pictures.view(len(asked), n, *pictures.shape[1:]),
        trace=joined(steps) if trace else None,
    )


def joined(batches: Sequence[Sequence[Step] | None]) -> Trace:
    """The steps of several batches, batch dimension concatenated."""
    names = ("drawn", "committed", "tokens", "log_probability", "entropy", "path_log_probability")
    together = zip(*(steps for steps in batches if steps is not None), strict=True)
    return Trace(
        tuple(
            Step(**{name: torch.cat([getattr(s, name) for s in steps]).cpu() for name in names}) for steps in together
        )
    )
