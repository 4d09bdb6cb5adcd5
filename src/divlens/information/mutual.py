"""I(X;Z) over the prompt set, X uniform on it.

- AR: log p(z|x) is exact for every prompt x, so the mean of log p(z|x) - log mean_x' p(z|x') is unbiased.
- Other known rules, from above: the same for the whole record T of a sample, whose probability is exact under every
  prompt; Z is a function of T, so I(X;Z) <= I(X;T).
- From below: log2(prompts) + E log q(x|z) for any q (Barber and Agakov, 2003). q is the posterior over prompts that
  importance-weighted estimates of p(z|x) give, the same number of paths for each prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.accounting import is_known
from divlens.information.bounds import Target, importance_log_weights, log_mean_exp, transcript_log_probabilities
from divlens.information.records import BITS, Estimate, estimate
from divlens.information.strata import Strata, Sums, moments_of
from divlens.interventions import Settings
from divlens.models.protocol import Model
from divlens.paths import Raster
from divlens.sampler import Encoded, Row


@dataclass(frozen=True)
class Kept:
    """Samples that are asked again: their rows, prompts, wordings (`stratum`, of the run's `strata`), records, and bits
    of the joint (of states for diffusion)."""

    rows: Sequence[Row]
    prompt: Int[Tensor, " kept"]
    stratum: Int[Tensor, " kept"]
    strata: Strata
    states: Sequence[Int[Tensor, "kept n"]]
    committed: Sequence[Bool[Tensor, "kept n"]]
    joint: Float[Tensor, " kept"]

    @property
    def grids(self) -> Int[Tensor, "kept n"]:
        return self.states[-1]

    @property
    def usable(self) -> tuple[Strata, Int[Tensor, " strata"]]:
        """Strata that have a variance, and into which of them each of `strata` goes."""
        return self.strata.with_variance(self.stratum.bincount(minlength=len(self.strata)))


@dataclass(frozen=True)
class Asked:
    """What stays the same when a grid is asked under another condition. wordings: those of each prompt, with repeats
    as they were used."""

    model: Model
    settings: Settings
    encoded: Encoded
    seed: int
    batch_size: int
    wordings: Sequence[Sequence[str]]

    def target(self, wordings: Sequence[str]) -> Target:
        return Target(self.model, self.settings, self.encoded, wordings, self.batch_size)


def mixed(asked: Asked, by_wording: dict[str, Float[Tensor, " kept"]]) -> Float[Tensor, "kept prompts"]:
    """log p(z|x) of every prompt x: the mixture over its wordings, each by the share of samples that used it."""
    columns = []
    for used in asked.wordings:
        share = shares(used)
        weighted = [by_wording[text] + math.log(share[text]) for text in share]
        columns.append(torch.stack(weighted).logsumexp(0))
    return torch.stack(columns, 1)


def shares(used: Sequence[str]) -> dict[str, float]:
    """Each wording once, with its share of the samples."""
    return {text: count / len(used) for text, count in Counter(used).items()}


def distinct(asked: Asked) -> list[str]:
    return list(dict.fromkeys(text for used in asked.wordings for text in used))


def log_weights(asked: Asked, kept: Kept) -> Float[Tensor, "kept prompts"]:
    """log of an unbiased estimate of p(z|x), exact for AR, of every kept sample under every prompt."""
    grids, count = kept.grids, len(kept.grids)
    found = {
        text: importance_log_weights(asked.target([text] * count), grids, asked.seed, path)
        for path, text in enumerate(distinct(asked))
    }
    return mixed(asked, found)


def log_transcripts(asked: Asked, kept: Kept) -> Float[Tensor, "kept prompts"]:
    count = len(kept.grids)
    found = {
        text: transcript_log_probabilities(asked.target([text] * count), kept.states, kept.committed)[0]
        for text in distinct(asked)
    }
    return mixed(asked, found)


def density(log_p: Float[Tensor, "kept prompts"], prompt: Int[Tensor, " kept"]) -> Float[Tensor, " kept"]:
    """log2 of p(z|x) over its mean over prompts, at the sample's own prompt; NaN where every prompt gives it 0."""
    own = log_p.gather(1, prompt[:, None])[:, 0]
    return (own - log_mean_exp(log_p, 1)) * BITS


def per_prompt(values: Float[Tensor, " kept"], kept: Kept, prompts: int, note: str) -> Estimate:
    sums = Sums.of(values[:, None]).gathered(kept.stratum, len(kept.strata))
    return estimate(moments_of(kept.strata, sums, skewed=False), note, limits=(0.0, math.log2(prompts)))


def classified(log_w: Float[Tensor, "kept prompts"], prompt: Int[Tensor, " kept"]) -> Float[Tensor, " kept"]:
    """log2(prompts) + log2 q(x|z) at each sample's prompt, q(x|z) proportional to w^power.

    Few paths make w noisy and its posterior overconfident, hence the power, in [0, 1]; it is chosen on the other half
    of the samples, so the mean stays a lower bound. At power 0 it is 0 bits.
    """
    held = torch.maximum(log_w, log_w.amax(1, keepdim=True) - 100).nan_to_num(0.0, neginf=0.0)
    powers = torch.linspace(0, 1, 21, dtype=held.dtype)
    bits = torch.stack([density(held * power, prompt) for power in powers])
    half = torch.arange(len(prompt)) % 2 == 0
    result = torch.zeros_like(bits[0])
    for own in (half, ~half):
        if own.any() and (~own).any():
            result[own] = bits[bits[:, ~own].mean(1).argmax(), own]
    return result


def mutual_information(asked: Asked, kept: Kept) -> tuple[Estimate, Estimate]:
    """I(X;Z) from below and from above, bits per image; the same estimate twice for AR, where it is exact."""
    rule, prompts = asked.settings.rule, len(asked.wordings)
    assert is_known(rule)
    count = f"{len(kept.rows)} samples"
    log_w = log_weights(asked, kept)
    if isinstance(rule, Raster):
        exact = per_prompt(density(log_w, kept.prompt), kept, prompts, f"exact likelihoods of {count}")
        return exact, exact
    lower = per_prompt(classified(log_w, kept.prompt), kept, prompts, f"one path per prompt, {count}")
    records = density(log_transcripts(asked, kept), kept.prompt)
    upper = per_prompt(records, kept, prompts, f"I(X;T) of whole records T, {count}")
    return lower, upper
