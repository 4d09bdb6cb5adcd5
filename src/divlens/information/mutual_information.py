"""I(X;Z), where X is uniform on the prompt set.

- For AR it is exact, see `exact_autoregressive`.
- For other rules whose law is known, it is at most I(X;T) = H(X) - E H(X|T), where T is the whole record of a sample.
  The bound holds because Z is a function of T. The probability of T is known exactly under every prompt.
- It is at least log2(prompts) + E log2 q(x|z) for any q (Barber and Agakov, 2003). Here q is the posterior over prompts
  that follows from importance-weighted estimates of p(z|x), with one path for each wording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import BITS, Estimate
from divlens.information.replay import (
    importance_log_weights,
    log_mean_exp,
    path_key,
    transcript_log_probabilities,
)
from divlens.information.stored import StoredSamples, batches, distinct_wordings, estimate_of_stored, shares
from divlens.information.unseen import wider_for_unseen_grids
from divlens.run import Run

DOUBT = 2.0**-7  # costs 0.011 bits; without it, a single unusual grid could lower the bound without limit
LEAST = math.log2(DOUBT)


def log_p_of_prompts(run: Run, log_p: Mapping[str, Float[Tensor, " stored"]]) -> Float[Tensor, "stored prompts"]:
    """log p(z|x) under every prompt x, a mixture over its wordings, each weighted by its share of the samples."""
    columns = []
    for used in run.wordings:
        share = shares(used)
        weighted = [log_p[text] + math.log(share[text]) for text in share]
        columns.append(torch.stack(weighted).logsumexp(0))
    return torch.stack(columns, 1)


# A function that gives the log-probability of every stored grid under several wordings. Its first argument repeats each
# wording once for every grid, and its second argument is the list of the indices of these wordings.
LogProbability = Callable[[Sequence[str], Sequence[int]], Float[Tensor, " rows"]]


def under_each(run: Run, stored: StoredSamples, log_p: LogProbability) -> dict[str, Float[Tensor, " stored"]]:
    """The log-probability of every stored grid under every wording of every prompt. Each run computes it for as many
    wordings as fill a batch."""
    texts, count, found = distinct_wordings(run), len(stored.rows), list[Tensor]()
    for part in batches(run, count, len(texts)):
        wordings = [texts[i] for i in part for _ in range(count)]
        found.extend(log_p(wordings, part).view(len(part), count))
    return dict(zip(texts, found, strict=True))


def log_p_by_wording(run: Run, stored: StoredSamples) -> dict[str, Float[Tensor, " stored"]]:
    """The log of an unbiased estimate of p(z|wording). For AR the estimate is exact."""

    def log_p(wordings: Sequence[str], numbers: Sequence[int]) -> Float[Tensor, " rows"]:
        keys = [path_key(number, i) for number in numbers for i in range(len(stored.rows))]
        return importance_log_weights(run, wordings, stored.grids.repeat(len(numbers), 1), keys)

    return under_each(run, stored, log_p)


def log_p_of_records(run: Run, stored: StoredSamples) -> Float[Tensor, "stored prompts"]:
    """The log-probability of the whole record of every stored sample under every prompt."""

    def log_p(wordings: Sequence[str], numbers: Sequence[int]) -> Float[Tensor, " rows"]:
        states, committed = (
            [step.repeat(len(numbers), 1) for step in part] for part in (stored.states, stored.committed)
        )
        return transcript_log_probabilities(run, wordings, states, committed)[0]

    return log_p_of_prompts(run, under_each(run, stored, log_p))


def bits_about_choice(log_p: Float[Tensor, "stored choices"], share: Sequence[float]) -> Float[Tensor, " stored"]:
    """H(choice) - H(choice | Z = z) in bits: how much less uncertain the choice is given each grid. `log_p`: the
    natural log-probability of the grid under each choice; `share`: how often each choice is made."""
    prior = torch.tensor(share, dtype=log_p.dtype)
    posterior = (log_p + prior.log()).softmax(1)
    return (torch.special.entr(prior).sum() - torch.special.entr(posterior).sum(1)) * BITS


def bits_about_prompt(log_p: Float[Tensor, "stored prompts"]) -> Float[Tensor, " stored"]:
    prompts = log_p.shape[1]
    return bits_about_choice(log_p, [1 / prompts] * prompts)


def density(log_p: Float[Tensor, "stored prompts"], prompt: Int[Tensor, " stored"]) -> Float[Tensor, " stored"]:
    """log2 of the ratio of p(z|x) at the sample's own prompt to the mean of p(z|x) over all prompts."""
    own = log_p.gather(1, prompt[:, None])[:, 0]
    return (own - log_mean_exp(log_p, 1)) * BITS


def bits_of_classifier(
    log_w: Float[Tensor, "stored prompts"], prompt: Int[Tensor, " stored"]
) -> Float[Tensor, " stored"]:
    """log2(prompts) + log2 q(x|z) for the prompt x of each sample, which is never below LEAST. q is a mixture of the
    uniform distribution, with weight DOUBT, and a distribution proportional to w^power.

    With few paths w is noisy and the posterior is overconfident, which a power in [0, 1] corrects. The power for each
    half of the samples is chosen on the other half, so the mean is still a lower bound. With power 0 the result is 0.
    """
    finite = torch.maximum(log_w, log_w.amax(1, keepdim=True) - 100).nan_to_num(0.0, neginf=0.0)
    powers = torch.linspace(0, 1, 21, dtype=finite.dtype)
    bits = torch.stack([((1 - DOUBT) * density(finite * power, prompt).exp2() + DOUBT).log2() for power in powers])
    half = torch.arange(len(prompt)) % 2 == 0
    result = torch.zeros_like(bits[0])
    for own in (half, ~half):
        if own.any() and (~own).any():
            result[own] = bits[bits[:, ~own].mean(1).argmax(), own]
    return result


def mutual_information(run: Run, stored: StoredSamples) -> tuple[Estimate, Estimate]:
    """The lower and the upper bound on I(X;Z), in bits per image."""
    most, count = math.log2(len(run.wordings)), f"{len(stored.rows)} samples"
    below = bits_of_classifier(log_p_of_prompts(run, log_p_by_wording(run, stored)), stored.prompt)
    lower = estimate_of_stored(below, stored, most, f"one path per wording, {count}")
    log_p = log_p_of_records(run, stored)
    # Rounding differs between batches, so a filter may exclude a token that was drawn. That sample then gives no bound.
    known = log_p.gather(1, stored.prompt[:, None])[:, 0] > -math.inf
    above = bits_about_prompt(log_p).masked_fill(~known, math.nan)
    upper = estimate_of_stored(above, stored, most, f"I(X;T) of whole records T, {count}")
    lower = wider_for_unseen_grids(lower, run, stored, below, LEAST)
    return lower, wider_for_unseen_grids(upper, run, stored, above, 0.0, most)
