"""H(Z) of single tokens over the prompt set: from counts, clustered by image.

The tokens of one image are not independent draws, so every correction takes the image as the draw. Estimators, nats:

- plug-in: the entropy of the histogram; biased down by about sum_k Var(p_k) / (2 p_k);
- Miller-Madow (Miller, 1955), clustered: adds that sum with the variance between the images of a prompt. With one
  independent token per image it is Miller and Madow's (codes used - 1) / (2 images);
- Chao-Shen (Chao and Shen, 2003), clustered: the codes seen get the share of the codebook's mass that a new image is
  estimated to fall on, and each is weighed by its chance of occurring in any of the images. With one independent
  token per image it is Chao and Shen's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.statistics import bootstrap_mean, student_t

GROUPS = 8  # of samples, for the error: one group of every prompt is left out at a time
ESTIMATORS = ("plug_in", "miller_madow", "chao_shen")


@dataclass
class TokenCounts:
    """Running counts; their size does not depend on the number of samples.

    images: (prompts, groups). count, squares, images_with: (prompts, groups, codes): how often a code occurs, the sum
    over images of the square of that, and in how many images it occurs.
    """

    images: Int[np.ndarray, "prompts groups"]
    count: Float[np.ndarray, "prompts groups codes"]
    squares: Float[np.ndarray, "prompts groups codes"]
    images_with: Float[np.ndarray, "prompts groups codes"]

    @classmethod
    def empty(cls, prompts: int, codes: int) -> TokenCounts:
        zeros = np.zeros((prompts, GROUPS, codes))
        return cls(np.zeros((prompts, GROUPS), int), zeros, zeros.copy(), zeros.copy())

    def add(
        self, tokens: Int[Tensor, "batch n"], prompt: Int[np.ndarray, " batch"], group: Int[np.ndarray, " batch"]
    ) -> None:
        """`prompt`: index of each row's; `group`: modulo GROUPS. Changes the counts in place."""
        codes = self.count.shape[-1]
        place = (tokens.cpu() + codes * torch.arange(len(tokens))[:, None]).flatten()
        per_image = torch.bincount(place, minlength=codes * len(tokens)).view(-1, codes).numpy().astype(float)
        where = (prompt, group % GROUPS)
        np.add.at(self.images, where, 1)
        np.add.at(self.count, where, per_image)
        np.add.at(self.squares, where, per_image**2)
        np.add.at(self.images_with, where, per_image > 0)

    def merged(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.images + other.images,
            self.count + other.count,
            self.squares + other.squares,
            self.images_with + other.images_with,
        )

    def without(self, prompt: int | None = None, group: int | None = None) -> TokenCounts:
        """Left out: one prompt, one group of every prompt, or none."""
        prompts = np.arange(len(self.images)) != prompt
        groups = np.arange(self.images.shape[1]) != group
        parts = (self.images, self.count, self.squares, self.images_with)
        return TokenCounts(*(part[prompts][:, groups] for part in parts))

    def pooled(self) -> TokenCounts:
        """All groups as one."""
        parts = (self.images, self.count, self.squares, self.images_with)
        return TokenCounts(*(part.sum(1, keepdims=True) for part in parts))


def plug_in(share: Float[np.ndarray, " codes"]) -> float:
    used = share[share > 0]
    return float(-(used * np.log(used)).sum())


def entropies(counts: TokenCounts) -> dict[str, float]:
    """Nats per token by each of ESTIMATORS. The corrected ones are NaN where a prompt has one image only."""
    total = counts.count.sum((0, 1))
    tokens = total.sum()
    if tokens == 0:
        return dict.fromkeys(ESTIMATORS, math.nan)
    share = total / tokens
    plain = plug_in(share)
    images = counts.images.sum(1)
    if (images[images > 0] < 2).any():
        return {"plug_in": plain, "miller_madow": math.nan, "chao_shen": math.nan}
    some = images > 0
    per_prompt, squares, n = counts.count.sum(1)[some], counts.squares.sum(1)[some], images[some][:, None]
    variance = (n / (n - 1) * (squares - per_prompt**2 / n)).sum(0) / tokens**2
    used = share > 0
    corrected = plain + float((variance[used] / share[used]).sum()) / 2
    # A code that occurs in one image only is what that image brings when it is the new one.
    alone = counts.images_with.sum((0, 1)) == 1
    coverage = 1 - total[alone].sum() / tokens
    covered = coverage * share[used]
    occurs = coverage * counts.images_with.sum((0, 1))[used] / images.sum()
    seen = 1 - (1 - occurs) ** images.sum()
    chao_shen = float((-covered * np.log(covered) / seen).sum()) if coverage > 0 else math.nan
    return {"plug_in": plain, "miller_madow": corrected, "chao_shen": chao_shen}


@dataclass(frozen=True)
class TokenEntropy:
    """Nats per token. low, high: 95% interval over prompts; mc_error: standard error over the samples of the given
    prompts, and mc_low, mc_high their 95% interval; see `token_entropies`."""

    value: float
    low: float
    high: float
    mc_error: float
    mc_low: float
    mc_high: float


def token_entropies(counts: TokenCounts, most: float) -> dict[str, TokenEntropy]:
    """Each estimator, at most `most`, with its intervals by the jackknife over prompts and over groups of samples.

    Over prompts: that of `bootstrap_mean` for the jackknife's pseudo-values of the prompts, around the estimate. Over
    samples: Student's, for the root of what the plug-in falls short of `most`, the entropy of codes that are all used
    alike. Near there the shortfall is a square, whose own error is small just when it happens to be small; the root's
    is the same everywhere. It is widened where the estimator scatters more than the plug-in. Squared back, the
    correction for bias is added, less what squaring has added already.
    """
    whole = entropies(counts)
    prompts, groups = len(counts.images), int((counts.images.sum(0) > 0).sum())
    pooled = counts.pooled()
    by_prompt = [entropies(pooled.without(prompt=i)) for i in range(prompts)] if prompts > 1 else []
    # Of two groups both may happen to tell the same.
    by_group = [entropies(counts.without(group=g)) for g in range(groups)] if groups > 2 else []
    root, *roots = (math.sqrt(max(most - each["plug_in"], 0.0)) for each in (whole, *by_group))
    spread, errors = scatter(roots), {name: scatter([each[name] for each in by_group]) for name in whole}
    result = {}
    for name, value in whole.items():
        left = np.array([each[name] for each in by_prompt])
        interval = bootstrap_mean(prompts * value - (prompts - 1) * left)
        # Chao and Shen's correction is too small where codes come often but in clumps: Miller and Madow's is at hand.
        corrected = value if name == "plug_in" else max(value, whole["miller_madow"])
        bias = max(min(corrected, most) - whole["plug_in"] - spread**2, 0.0)
        value = min(value, most)
        wider = max(errors[name] / errors["plug_in"], 1.0) if errors["plug_in"] > 0 else 1.0
        reach = wider * spread * student_t(groups - 1) if math.isfinite(errors[name]) else math.nan
        shortfall = np.array([root + reach, max(root - reach, 0.0)]) ** 2
        shift = value - interval.value
        sides = np.clip([interval.low + shift, interval.high + shift, *(most - shortfall + bias)], 0.0, most)
        low, high, mc_low, mc_high = (float(side) for side in sides)
        result[name] = TokenEntropy(value, low, high, errors[name], min(mc_low, value), max(mc_high, value))
    return result


def scatter(without: Sequence[float]) -> float:
    """The jackknife's standard error, from a statistic with one group after the other left out; NaN for one group."""
    return math.sqrt((len(without) - 1) * np.var(without)) if len(without) else math.nan


def usage(counts: TokenCounts) -> float:
    """The share of the codebook that occurs at least once."""
    return float((counts.count.sum((0, 1)) > 0).mean())
