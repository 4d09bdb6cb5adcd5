"""I(X;Z) over the prompt set, X uniform on it.

- AR: exact, see `exact`.
- Other known rules, from above: H(X) - E H(X|T) for the whole record T of a sample, whose probability is exact under
  every prompt; Z is a function of T, so I(X;Z) <= I(X;T).
- From below: log2(prompts) + E log q(x|z) for any q (Barber and Agakov, 2003). q is the posterior over prompts that
  importance-weighted estimates of p(z|x) give, one path for each wording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import BITS, Estimate
from divlens.information.kept import Kept, batches, cautious, distinct, per_prompt, shares
from divlens.information.replay import (
    importance_log_weights,
    log_mean_exp,
    path_key,
    transcript_log_probabilities,
)
from divlens.run import Run

DOUBT = 2.0**-7  # costs 0.011 bits; without any, a grid that no sample showed could cost any number of them
LEAST = math.log2(DOUBT)


def mixed(run: Run, log_p: Mapping[str, Float[Tensor, " kept"]]) -> Float[Tensor, "kept prompts"]:
    """log p(z|x) of every prompt x: the mixture over its wordings, each by the share of samples that used it."""
    columns = []
    for used in run.wordings:
        share = shares(used)
        weighted = [log_p[text] + math.log(share[text]) for text in share]
        columns.append(torch.stack(weighted).logsumexp(0))
    return torch.stack(columns, 1)


# Of every kept grid under several wordings, each repeated for every grid; the numbers say which wordings these are.
LogProbability = Callable[[Sequence[str], Sequence[int]], Float[Tensor, " rows"]]


def under_each(run: Run, kept: Kept, log_p: LogProbability) -> dict[str, Float[Tensor, " kept"]]:
    """Of every kept sample under every wording of every prompt, as many wordings in a run as fill a batch."""
    texts, count, found = distinct(run), len(kept.rows), list[Tensor]()
    for part in batches(run, count, len(texts)):
        wordings = [texts[i] for i in part for _ in range(count)]
        found.extend(log_p(wordings, part).view(len(part), count))
    return dict(zip(texts, found, strict=True))


def by_wording(run: Run, kept: Kept) -> dict[str, Float[Tensor, " kept"]]:
    """log of an unbiased estimate of p(z|wording), exact for AR."""

    def log_p(wordings: Sequence[str], numbers: Sequence[int]) -> Float[Tensor, " rows"]:
        keys = [path_key(number, i) for number in numbers for i in range(len(kept.rows))]
        return importance_log_weights(run, wordings, kept.grids.repeat(len(numbers), 1), keys)

    return under_each(run, kept, log_p)


def log_transcripts(run: Run, kept: Kept) -> Float[Tensor, "kept prompts"]:
    def log_p(wordings: Sequence[str], numbers: Sequence[int]) -> Float[Tensor, " rows"]:
        states, committed = ([step.repeat(len(numbers), 1) for step in part] for part in (kept.states, kept.committed))
        return transcript_log_probabilities(run, wordings, states, committed)[0]

    return mixed(run, under_each(run, kept, log_p))


def told(log_p: Float[Tensor, "kept choices"], share: Sequence[float]) -> Float[Tensor, " kept"]:
    """H(choice) - H(choice | z), bits; `log_p` is natural, of z under each choice, `share` how often each is made."""
    prior = torch.tensor(share, dtype=log_p.dtype)
    posterior = (log_p + prior.log()).softmax(1)
    return (torch.special.entr(prior).sum() - torch.special.entr(posterior).sum(1)) * BITS


def told_of_prompts(log_p: Float[Tensor, "kept prompts"]) -> Float[Tensor, " kept"]:
    prompts = log_p.shape[1]
    return told(log_p, [1 / prompts] * prompts)


def density(log_p: Float[Tensor, "kept prompts"], prompt: Int[Tensor, " kept"]) -> Float[Tensor, " kept"]:
    """log2 of p(z|x) over its mean over prompts, at the sample's own prompt."""
    own = log_p.gather(1, prompt[:, None])[:, 0]
    return (own - log_mean_exp(log_p, 1)) * BITS


def classified(log_w: Float[Tensor, "kept prompts"], prompt: Int[Tensor, " kept"]) -> Float[Tensor, " kept"]:
    """log2(prompts) + log2 q(x|z) at each sample's prompt, never below LEAST: q is uniform by a part DOUBT and for the
    rest proportional to w^power.

    Few paths make w noisy and its posterior overconfident, hence the power, in [0, 1]; it is chosen on the other half
    of the samples, so the mean stays a lower bound. At power 0 it is 0 bits.
    """
    held = torch.maximum(log_w, log_w.amax(1, keepdim=True) - 100).nan_to_num(0.0, neginf=0.0)
    powers = torch.linspace(0, 1, 21, dtype=held.dtype)
    bits = torch.stack([((1 - DOUBT) * density(held * power, prompt).exp2() + DOUBT).log2() for power in powers])
    half = torch.arange(len(prompt)) % 2 == 0
    result = torch.zeros_like(bits[0])
    for own in (half, ~half):
        if own.any() and (~own).any():
            result[own] = bits[bits[:, ~own].mean(1).argmax(), own]
    return result


def mutual_information(run: Run, kept: Kept) -> tuple[Estimate, Estimate]:
    """I(X;Z) from below and from above, bits per image."""
    most, count = math.log2(len(run.wordings)), f"{len(kept.rows)} samples"
    below = classified(mixed(run, by_wording(run, kept)), kept.prompt)
    lower = per_prompt(below, kept, most, f"one path per wording, {count}")
    log_p = log_transcripts(run, kept)
    # In another batch rounding may let a filter stop a token that was drawn: then nothing is known of that sample.
    known = log_p.gather(1, kept.prompt[:, None])[:, 0] > -math.inf
    above = told_of_prompts(log_p).masked_fill(~known, math.nan)
    upper = per_prompt(above, kept, most, f"I(X;T) of whole records T, {count}", skewed=True)
    return cautious(lower, run, kept, below, LEAST), cautious(upper, run, kept, above, 0.0, most)
