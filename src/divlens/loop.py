"""The one loop for all families: ask the model, draw tokens, draw the path, again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.protocol import Predictor
from divlens.noise import CounterNoise, Noise
from divlens.paths import Advance, Draws
from divlens.repulsion import drawn_apart
from divlens.settings import Settings, filter_logits
from divlens.types import View


@dataclass(frozen=True)
class Moment:
    """One step of a batch.

    `log_p`: natural log-probabilities of the draw at the positions of the view, after guidance and filters. `drawn`:
    the positions of the view at which the draw matters. `result`: what the path rule made of it. `noise`: what draws
    and path were drawn from.
    """

    view: View
    log_p: Float[Tensor, "batch m codes"]
    drawn: Bool[Tensor, "batch m"]
    draws: Draws
    result: Advance
    settings: Settings
    mask: int
    noise: Noise

    def of_first(self, rows: int) -> Moment:
        """The step of the first rows of the batch alone."""
        draws, result = self.draws, self.result
        table = None if draws.log_p is None else draws.log_p[:rows]
        parts = (result.tokens, result.committed, result.path_log_probability)
        return replace(
            self,
            view=replace(self.view, tokens=self.view.tokens[:rows]),
            log_p=self.log_p[:rows],
            drawn=self.drawn[:rows],
            draws=Draws(draws.tokens[:rows], draws.log_probability[:rows], table),
            result=Advance(*(part[:rows] for part in parts)),
        )

    @property
    def certain(self) -> Int[Tensor, "batch m"] | None:
        """The tokens that were drawn, where the draw had no choice; None where it had."""
        known = self.settings.greedy_at(self.view.step) or "execution" in self.settings.frozen
        return self.draws.tokens if known else None


def guide(
    conditional: Float[Tensor, "batch m codes"], unconditional: Float[Tensor, "batch m codes"] | None, scale: float
) -> Float[Tensor, "batch m codes"]:
    """Classifier-free guidance (Ho and Salimans, 2022) in float32; the conditional logits when there is no other."""
    if unconditional is None:
        return conditional.float()
    return torch.lerp(unconditional.float(), conditional.float(), scale)


def moments(
    predictor: Predictor,
    settings: Settings,
    noise: Noise,
    start: Int[Tensor, "batch n"],
    mask: int,
    name: str = "the model",
) -> Iterator[Moment]:
    """Fill a batch of token grids, step by step. `start` holds `mask` wherever nothing is given. `name`: the model's,
    for the DivlensError that NaN logits raise.

    To be read under `torch.inference_mode`: a generator cannot turn it on for its own steps alone.
    """
    rule, tokens = settings.rule, start
    for step in range(rule.steps):
        view = rule.view(tokens, step)
        logits, drawn = guide(*predictor(view), settings.scale_at(step)), rule.drawn(view, mask)
        if settings.repulsion is not None:
            check_finite(logits, name, step)
            assert isinstance(noise, CounterNoise), "samples are known by their numbers"
            log_p, proposed = drawn_apart(logits, settings.repulsion, settings, noise, view, drawn)
        else:
            log_p = filter_logits(logits, settings)
            check_finite(log_p, name, step)
            proposed = log_p.argmax(-1) if settings.greedy_at(step) else noise.draw(log_p.exp(), step, view.first)
        draws = Draws(proposed, log_p.gather(-1, proposed.unsqueeze(-1)).squeeze(-1), log_p)
        result = rule.advance(view, draws, mask, noise)
        yield Moment(view, log_p, drawn, draws, result, settings, mask, noise)
        tokens = result.tokens


def check_finite(found: Float[Tensor, "batch m codes"], name: str, step: int) -> None:
    if found.isnan().any():
        raise DivlensError(f"{name} gave NaN logits at step {step}, or infinite ones: expected finite numbers")


class Watched:
    """Moments as they pass by, and the grids after the last of them."""

    def __init__(self, passing: Iterator[Moment]) -> None:
        self.passing = passing
        self.last: Moment | None = None

    def __iter__(self) -> Iterator[Moment]:
        for moment in self.passing:
            self.last = moment
            yield moment

    def to_the_end(self) -> Int[Tensor, "batch n"]:
        """The grids after the last step, once those that are left have passed by."""
        for _ in self:
            pass
        assert self.last is not None, "a path rule has a step at least"
        return self.last.result.tokens


@torch.inference_mode()
def filled(
    predictor: Predictor, settings: Settings, noise: Noise, start: Int[Tensor, "batch n"], mask: int
) -> Int[Tensor, "batch n"]:
    """The grids after the last step."""
    return Watched(moments(predictor, settings, noise, start, mask)).to_the_end()
