"""What the loop is told: the settings that interventions change, and the law of a token draw under them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.condition_noise import FadingNoise
from divlens.paths import PathRule
from divlens.types import Repulsion

COLDEST, HOTTEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max  # what float32 can divide by


@dataclass(frozen=True)
class Settings:
    """Everything an intervention may change, besides the wording.

    allowed: bool (codes,), or None for all. greedy: the share of the steps, from the first on, in which the token draw
    is deterministic, in [0, 1]; one step at least where it is above 0. log_factors: what is added to the logits of each
    code after guidance, (codes,), natural, or None for nothing. by_entropy: (t0, alpha, theta) of the temperature that
    follows the entropy of each draw, see `methods.EntropyTemperature`, or None. guided: from which to which share of
    the steps guidance acts. grid: (h, w) of the model, for orders of positions. clustered: gives, when called,
    the codes of the model cluster after cluster (`codebook.order_by_clusters`), or None where their vectors are not
    known. condition_noise: what is done to encoded conditions at every step, or None. strata: see `noise.CounterNoise`;
    1 for independent executions. repulsion: of samples of a prompt from what others hold, or None.
    """

    rule: PathRule
    guidance: float
    temperature: float = 1.0
    allowed: Bool[Tensor, " codes"] | None = None
    top_k: int = 0
    top_p: float = 1.0
    greedy: float = 0.0
    frozen: frozenset[str] = frozenset()
    log_factors: Float[Tensor, " codes"] | None = None
    min_p: float = 0.0
    by_entropy: tuple[float, float, float] | None = None
    guided: tuple[float, float] = (0.0, 1.0)
    grid: tuple[int, int] | None = None
    clustered: Callable[[], Int[Tensor, " codes"]] | None = None
    condition_noise: FadingNoise | None = None
    strata: int = 1
    repulsion: Repulsion | None = None

    @property
    def given(self) -> frozenset[str]:
        """The streams of noise whose numbers a likelihood would need: what is frozen, and the noise of a condition."""
        return self.frozen | (frozenset() if self.condition_noise is None else {"condition"})

    @property
    def joint(self) -> str:
        """The method under which samples of a prompt are not independent of each other; empty for none."""
        if self.repulsion is not None:
            return f"RepulseTokens({self.repulsion.strength:g})"
        return f"StratifiedNoise({self.strata})" if self.strata > 1 else ""

    @property
    def guided_steps(self) -> tuple[int, int]:
        """The first step in which guidance acts, and the first after it in which it does no more."""
        first, last = (round(share * self.rule.steps) for share in self.guided)
        return first, last

    def scale_at(self, step: int) -> float:
        """The scale of guidance at a step; 1 is off."""
        first, last = self.guided_steps
        return self.guidance if first <= step < last else 1.0

    @property
    def needs_guidance(self) -> bool:
        """Whether unconditional logits are needed at some step."""
        first, last = self.guided_steps
        return self.guidance != 1.0 and first < last

    @property
    def greedy_steps(self) -> int:
        """In how many steps, from the first on, the token draw is deterministic."""
        return max(1, round(self.greedy * self.rule.steps)) if self.greedy else 0

    def greedy_at(self, step: int) -> bool:
        """Whether the token draw of a step is deterministic: the most probable token at every position."""
        return step < self.greedy_steps

    @property
    def without_noise(self) -> frozenset[str]:
        """The streams that make no draw: the path of a rule without one, the execution where all draws are greedy."""
        path = {"path"} if self.rule.silenced() == self.rule else set()
        return frozenset(path | ({"execution"} if self.greedy_steps == self.rule.steps else set()))


def filter_logits(logits: Float[Tensor, "batch m codes"], settings: Settings) -> Float[Tensor, "batch m codes"]:
    """Guided logits to log-probabilities of the draw, float32: banned codes, factors, top-k, temperature, top-p, min-p.

    Codes are banned here, after guidance: minus infinity before it would give NaN. Codes tied with the k-th stay, as
    in LlamaGen; top-k comes before the division by the temperature, whose rounding could tie others.
    """
    logits = logits.float()
    if settings.allowed is not None:
        logits = logits.masked_fill(~settings.allowed.to(logits.device), -math.inf)
    if settings.log_factors is not None:
        logits = logits + settings.log_factors.to(logits)
    if 0 < settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if settings.temperature != 1.0 or settings.by_entropy is not None:
        # The largest is 0 before the division, so that a low temperature cannot overflow.
        logits = (logits - logits.amax(-1, keepdim=True)) / temperature_of(logits, settings)
    if settings.top_p < 1.0:
        ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        # A code stays when those before it have not reached p yet; the first always stays, however small p is: in
        # float32 it may be 0.
        dropped = (ordered.cumsum(-1) - ordered) >= settings.top_p
        dropped[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -math.inf)
    if settings.min_p > 0:
        least = logits.amax(-1, keepdim=True) + math.log(settings.min_p)
        logits = logits.masked_fill(logits < least, -math.inf)
    return logits.log_softmax(-1)


def temperature_of(logits: Float[Tensor, "batch m codes"], settings: Settings) -> Float[Tensor, "batch m one"] | float:
    """What the logits of each draw are divided by."""
    if settings.by_entropy is None:
        return settings.temperature
    t0, alpha, theta = settings.by_entropy
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1, keepdim=True)
    found = settings.temperature * (t0 * torch.exp(-entropy.double() / alpha) + theta)
    return found.clamp(COLDEST, HOTTEST).to(logits.dtype)
