"""H(Z) of single tokens over the prompt set, from counts by image.

The tokens of one image are not independent, so every correction for bias treats the image as one draw. The estimators,
in nats:

- plug-in: the entropy of the histogram; biased down by about sum_k Var(p_k) / (2 p_k);
- Miller-Madow (Miller, 1955), clustered: adds that sum with the variance between the images of a prompt. With one
  independent token per image it is Miller and Madow's (codes used - 1) / (2 images);
- Chao-Shen (Chao and Shen, 2003), clustered: the probabilities of the observed codes are scaled down to the estimated
  share of tokens in a new image that have one of these codes, and each term is divided by the probability that the
  code occurs in any of the images. With one independent token per image it is Chao and Shen's estimator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import Estimate
from divlens.statistics import Interval, bootstrap_mean, student_t

GROUPS = 8  # of samples; the jackknife leaves out one group of every prompt at a time
ESTIMATORS = ("plug_in", "miller_madow", "chao_shen")


@dataclass
class TokenCounts:
    """Running counts, whose size does not depend on the number of samples.

    images: the number of images of each prompt and group of samples. count: the number of times that each code occurs
    in them. squares: the sum over the images of the squared count of each code. images_with: the number of images in
    which each code occurs.
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
        """Add a batch in place. `prompt`, `group`: the indices of the prompt and the group of each row. Groups are
        taken modulo GROUPS."""
        codes = self.count.shape[-1]
        place = (tokens.cpu() + codes * torch.arange(len(tokens))[:, None]).flatten()
        per_image = torch.bincount(place, minlength=codes * len(tokens)).view(-1, codes).numpy().astype(float)
        where = (prompt, group % GROUPS)
        np.add.at(self.images, where, 1)
        np.add.at(self.count, where, per_image)
        np.add.at(self.squares, where, per_image**2)
        np.add.at(self.images_with, where, per_image > 0)

    def without(self, prompt: int | None = None, group: int | None = None) -> TokenCounts:
        """The counts without one prompt, or without one group of every prompt."""
        prompts = np.arange(len(self.images)) != prompt
        groups = np.arange(self.images.shape[1]) != group
        parts = (self.images, self.count, self.squares, self.images_with)
        return TokenCounts(*(part[prompts][:, groups] for part in parts))

    def over_all_groups(self) -> TokenCounts:
        """The counts with all groups of samples merged into one."""
        parts = (self.images, self.count, self.squares, self.images_with)
        return TokenCounts(*(part.sum(1, keepdims=True) for part in parts))


def plug_in(share: Float[np.ndarray, " codes"]) -> float:
    used = share[share > 0]
    return float(-(used * np.log(used)).sum())


def entropies(counts: TokenCounts) -> dict[str, float]:
    """The entropy of a token in nats by each of ESTIMATORS. The corrected ones are NaN if a prompt has only one
    image."""
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
    # If an image were the new one, the codes that occur in no other image would be new.
    alone = counts.images_with.sum((0, 1)) == 1
    coverage = 1 - total[alone].sum() / tokens
    covered = coverage * share[used]
    occurs = coverage * counts.images_with.sum((0, 1))[used] / images.sum()
    seen = 1 - (1 - occurs) ** images.sum()
    chao_shen = float((-covered * np.log(covered) / seen).sum()) if coverage > 0 else math.nan
    return {"plug_in": plain, "miller_madow": corrected, "chao_shen": chao_shen}


def token_entropies(counts: TokenCounts, most: float) -> dict[str, Estimate]:
    """Each estimator in nats per token, at most `most`, with jackknife intervals over prompts and over samples.

    The interval over prompts is that of `bootstrap_mean` for the jackknife's pseudo-values of the prompts, shifted to
    the estimate. The interval over samples is Student's interval for the square root of the shortfall, which is `most`
    minus the plug-in; `most` is the entropy when all codes are equally frequent. Near `most` the shortfall behaves like
    a square, and its estimated error is too small whenever the shortfall happens to be small. The error of the root
    does not depend on the shortfall. The interval is widened if the estimator scatters more than the plug-in. Its ends
    are squared again, and the correction for bias is added, minus what squaring has already added.
    """
    whole = entropies(counts)
    prompts, groups = len(counts.images), int((counts.images.sum(0) > 0).sum())
    pooled = counts.over_all_groups()
    by_prompt = [entropies(pooled.without(prompt=i)) for i in range(prompts)] if prompts > 1 else []
    # With two groups, the entropies may happen to be equal, and the error would then seem to be 0.
    by_group = [entropies(counts.without(group=g)) for g in range(groups)] if groups > 2 else []
    root, *roots = (math.sqrt(max(most - each["plug_in"], 0.0)) for each in (whole, *by_group))
    spread = jackknife_error(roots)
    errors = {name: jackknife_error([each[name] for each in by_group]) for name in whole}
    result = {}
    for name, value in whole.items():
        left = np.array([each[name] for each in by_prompt])
        interval = bootstrap_mean(prompts * value - (prompts - 1) * left)
        # Chao-Shen corrects too little if codes are frequent but clustered in images. Miller-Madow is used then.
        corrected = value if name == "plug_in" else max(value, whole["miller_madow"])
        bias = max(min(corrected, most) - whole["plug_in"] - spread**2, 0.0)
        value = min(value, most)
        wider = max(errors[name] / errors["plug_in"], 1.0) if errors["plug_in"] > 0 else 1.0
        reach = wider * spread * student_t(groups - 1) if math.isfinite(errors[name]) else math.nan
        low, high = (most - (max(root + side, 0.0)) ** 2 + bias for side in (reach, -reach))
        shift = value - interval.value
        over_prompts = Interval(value, interval.low + shift, interval.high + shift).within(0.0, most)
        result[name] = Estimate(over_prompts, Interval(value, low, high).within(0.0, most), errors[name])
    return result


def jackknife_error(without: Sequence[float]) -> float:
    """The jackknife's standard error. `without`: the statistic without each group in turn. It is NaN without groups."""
    return math.sqrt((len(without) - 1) * np.var(without)) if len(without) else math.nan


def usage(counts: TokenCounts) -> float:
    """The share of the codes that occur at least once."""
    return float((counts.count.sum((0, 1)) > 0).mean())
