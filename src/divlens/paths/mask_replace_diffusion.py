"""The path of mask-and-replace diffusion (VQ-Diffusion, Gu et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from reprlib import repr as shortened
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, check_whole, is_number
from divlens.noise import Noise
from divlens.paths.rule import Advance, Draws
from divlens.types import View

CHANCE_ROUNDING = 1e-6  # chances may have been float32


@final
@dataclass(frozen=True)
class MaskReplaceDiffusion:
    """x_{t-1} ~ q(x_{t-1} | x_t, x_0) with the x_0 that was drawn (VQ-Diffusion, equations 7 to 11).

    `kept` and `masked` are the cumulative chances, after 0, 1, ..., steps forward steps, that a token is still itself
    and that it is masked, so they begin with 1 and 0; what is left is spread evenly over the codebook, the token itself
    included. Step s goes from x_t to x_{t-1} with t = steps - s; from x_1 it takes x_0 itself everywhere.

    Summed over x_0 the two draws are exactly the usual reverse step, at a fraction of its cost: a uniform and a handful
    of numbers per position.
    """

    kept: tuple[float, ...]
    masked: tuple[float, ...]
    codes: int
    silent: bool = False

    def __post_init__(self) -> None:
        if len(self.kept) != len(self.masked) or len(self.kept) < 2:
            raise DivlensError(
                "MaskReplaceDiffusion expects as many chances in `kept` as in `masked`, one more than it has steps, "
                f"got {len(self.kept)} and {len(self.masked)}"
            )
        check_whole("MaskReplaceDiffusion(codes=...)", self.codes, 1)
        if not is_forward_process(list(zip(self.kept, self.masked, strict=True))):
            raise DivlensError(
                "MaskReplaceDiffusion expects the chances of a chain: kept falls from 1, masked rises from 0, above 0 "
                "and below 1 until the last step, and no step keeps and masks more than all there is; "
                f"got kept {shortened(self.kept)}, masked {shortened(self.masked)}"
            )

    @classmethod
    def vq_diffusion(
        cls, codes: int, steps: int = 100, ends: tuple[float, float] = (0.99999, 0.000009)
    ) -> MaskReplaceDiffusion:
        """The published linear schedule: kept runs from ends[0] to ends[1], masked from ends[1] to ends[0]."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        kept = ends[0] + ramp * (ends[1] - ends[0])
        masked = ends[1] + ramp * (ends[0] - ends[1])
        return cls((1.0, *kept.tolist()), (0.0, *masked.tolist()), codes)

    @property
    def steps(self) -> int:
        return len(self.kept) - 1

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return View(step, tokens, first=0, count=tokens.shape[1], time=self.steps - 1 - step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return torch.ones_like(view.tokens, dtype=torch.bool)

    def uniforms(self, view: View, noise: Noise) -> Float[Tensor, "batch n two"]:
        batch, positions = view.tokens.shape
        if not self.silent:
            return noise.path_uniform(view.step, positions, view.tokens.device)
        # A fixed low-discrepancy sequence: the schedule's share is revealed at each step, always at the same places.
        place = torch.arange(positions, dtype=torch.float64, device=view.tokens.device)
        fixed = torch.stack([place * 0.7548776662 + view.step * 0.5698402910, place * 0.5698402910], dim=-1)
        return ((fixed + 0.5) % 1.0).expand(batch, positions, 2)

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        now, origin = view.tokens, draws.tokens
        time = view.time + 1  # the number of forward steps that made the present state
        if time == 1:
            exact = torch.zeros(len(now), dtype=torch.float64, device=now.device)
            return Advance(origin.clone(), torch.ones_like(now, dtype=torch.bool), exact)
        tokens = self.outcome(time, now, origin, mask, self.uniforms(view, noise)).tokens
        path = self.log_probability(time, now, tokens, origin, mask).sum(1)
        return Advance(tokens, tokens != now, torch.zeros_like(path) if self.silent else path)

    def outcome(
        self,
        time: int,
        now: Int[Tensor, "*shape"],
        origin: Int[Tensor, "*shape"],
        mask: int,
        uniform: Float[Tensor, "*shape two"],
    ) -> Outcome:
        """What these uniforms make of x_t = `now` and x_0 = `origin`: one for the event, one for the code that a
        replacement brings."""
        stay, reveal, replaced, others = self.events(time, now == mask, now == origin)
        event, place = uniform.unbind(-1)
        is_other = (event >= stay + reveal) & (replaced > 0)
        is_reveal = (event >= stay) & ~is_other
        other = self.other_code(place, now, origin, others)
        return Outcome(is_reveal, is_other, torch.where(is_other, other, torch.where(is_reveal, origin, now)))

    def log_probability(
        self,
        time: int,
        now: Int[Tensor, "*shape"],
        after: Int[Tensor, "*shape"],
        origin: Int[Tensor, "*shape"],
        mask: int,
    ) -> Float[Tensor, "*shape"]:
        """log q(x_{t-1} = after | x_t = now, x_0 = origin) of each position, natural, float64; -inf where it cannot
        happen."""
        if time == 1:
            return torch.where(after == origin, 0.0, -torch.inf).double()
        stay, reveal, replaced, others = self.events(time, now == mask, now == origin)
        moved = torch.where(after == origin, reveal, replaced / others)
        again = (after == mask) & (now != mask)  # nothing is masked again
        return torch.where(after == now, stay, moved).masked_fill(again, 0.0).log()

    def events(self, time: int, is_mask: Tensor, agree: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chances, float64 (batch, n), that a position stays as it is, takes x_0, or takes another code; and how
        many other codes there are. Where x_t equals x_0, staying and taking it are one event (`stay`)."""
        codes = self.codes
        kept, kept_before = self.kept[time], self.kept[time - 1]
        masked, masked_before = self.masked[time], self.masked[time - 1]
        spread = positive(1 - kept - masked) / codes
        spread_before = positive(1 - kept_before - masked_before) / codes
        keep = kept / kept_before  # of the one step from time - 1 to time
        mask = (masked - masked_before) / (1 - masked_before)
        blur = positive(1 - keep - mask) / codes

        def pick(if_mask: float, if_agree: float, if_differ: float) -> Tensor:
            like = torch.full(is_mask.shape, if_differ, dtype=torch.float64, device=is_mask.device)
            return like.masked_fill(agree, if_agree).masked_fill(is_mask, if_mask)

        same = kept + spread
        # Without replacement x_t cannot differ from x_0, yet a model may say so: an unmasked token then stays.
        stay_differ = (keep + blur) * spread_before / spread if spread > 0 else 1.0
        reveal_differ = blur * (kept_before + spread_before) / spread if spread > 0 else 0.0
        stay_agree = (keep + blur) * (kept_before + spread_before) / same if same > 0 else 1.0
        stay = pick(masked_before / masked, stay_agree, stay_differ)
        reveal = pick(mask * (kept_before + spread_before) / masked, 0.0, reveal_differ)
        others = pick(codes - 1, codes - 1, codes - 2)
        # Where there are no others, not even by rounding.
        replaced = (1 - stay - reveal).clamp(min=0).masked_fill(others <= 0, 0.0)
        return stay, reveal, replaced, others.clamp(min=1)

    def other_code(self, uniform: Tensor, now: Tensor, origin: Tensor, others: Tensor) -> Tensor:
        """The index-th of the codes that are neither x_t nor x_0: counted up, skipping the two in order."""
        now = torch.where(now < 0, self.codes, now)  # a mask id below 0 is no code either
        index = (uniform * others).long().clamp(max=self.codes - 1)
        low, high = torch.minimum(now, origin), torch.maximum(now, origin)
        index = index + (index >= low)
        return index + ((index >= high) & (high > low) & (high < self.codes))

    def silenced(self) -> MaskReplaceDiffusion:
        return replace(self, silent=True)


@dataclass(frozen=True)
class Outcome:
    """Of one reverse step at every position: whether x_0 was taken, whether another code came, and x_{t-1}."""

    taken: Bool[Tensor, "*shape"]
    replaced: Bool[Tensor, "*shape"]
    tokens: Int[Tensor, "*shape"]


def is_forward_process(chances: Sequence[tuple[float, float]]) -> bool:
    """Whether these are the cumulative (kept, masked) of a chain, of which every reverse step is defined."""
    if not all(is_number(kept) and is_number(masked) for kept, masked in chances) or chances[0] != (1, 0):
        return False
    chances = [(float(kept), float(masked)) for kept, masked in chances]  # of float32 the sums would be float32, too
    for step, ((kept, masked), (kept_after, masked_after)) in enumerate(pairwise(chances), 1):
        if not (kept > 0 and masked < 1 and 0 <= kept_after <= kept and masked <= masked_after <= 1):
            return False
        if kept_after / kept + (masked_after - masked) / (1 - masked) > 1 + CHANCE_ROUNDING:
            return False
        if step > 1 and masked_after == 0:
            return False
    return True


def positive(chance: float) -> float:
    """A difference of chances without its rounding error: 0 where it should be 0, never below."""
    return chance if chance > 1e-12 else 0.0
