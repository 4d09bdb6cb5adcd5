"""I(X;Z) of AR by the chain rule, exact: how far the law of each token is from what it would be without the prompt.

    I(X;Z) = sum_i E KL( p(z_i | z_<i, x) || p(z_i | z_<i) ),  p(z_i | z_<i) = sum_x' p(x' | z_<i) p(z_i | z_<i, x'),

with the expectation over samples only; that over the token itself is the sum in KL. So the estimate has none of the
noise of the single draw that log p(z|x) - log p(z) has (Rao and Blackwell), and no sample's value is below 0. The same
holds for a prompt's wordings: I(W;Z|X), which H(Z|X) has beyond H(Z|X,W).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import Tally
from divlens.information.asking import Asked, Kept, distinct, per_prompt, shares
from divlens.information.bounds import Dictated
from divlens.information.conditional import controlled
from divlens.information.records import BITS, Estimate
from divlens.noise import CounterNoise
from divlens.sampler import Moment

UNREAD = CounterNoise.of(0, [], [], [])  # a raster has no path to draw


@dataclass
class Chain:
    """An observer of a batch in which every grid stands once for each wording, in order.

    log_share: natural, (3, grids, wordings): how wordings are mixed before a token is known; the sample's own alone,
    those of its prompt, those of all prompts. told: bits, (2, grids), summed over the tokens so far: of which wording
    of the prompt's it was, and of which prompt.
    """

    log_share: Float[Tensor, "three grids wordings"]
    greedy: bool
    told: Tensor

    def __call__(self, moment: Moment) -> None:
        grids, wordings = self.log_share.shape[1:]
        log_p = moment.log_p[:, 0].double()
        if self.greedy:
            log_p = torch.full_like(log_p, -math.inf).scatter(-1, log_p.argmax(-1, keepdim=True), 0.0)
        # One mixture after the other: (grids, wordings, codes) is the largest table that is held.
        table = log_p.view(grids, wordings, -1)
        laws = [(table + share[:, :, None]).logsumexp(1) - share.logsumexp(1)[:, None] for share in self.log_share]
        for row, (law, without) in enumerate(pairwise(laws)):
            ratio = torch.where(law > -math.inf, law - without, 0.0)
            self.told[row] += (law.exp() * ratio).sum(-1).clamp(min=0) * BITS
        token = moment.result.tokens[:, moment.view.first, None]
        seen = log_p.gather(-1, token).view(grids, wordings)
        # In another batch rounding can put a token just outside of what a filter lets through: it then tells nothing.
        impossible = (self.log_share[0] + seen).logsumexp(1, keepdim=True) == -math.inf
        self.log_share = self.log_share + seen.masked_fill(impossible, 0.0)


def log_shares(asked: Asked, kept: Kept) -> Float[Tensor, "three kept wordings"]:
    """What `Chain` starts from, for all kept samples."""
    texts = distinct(asked)
    own = torch.tensor([[float(row.wording == text) for text in texts] for row in kept.rows])
    by_prompt = torch.tensor([[shares(used).get(text, 0.0) for text in texts] for used in asked.wordings])
    every = by_prompt.mean(0).expand(len(kept.rows), -1)
    return torch.stack([own, by_prompt[kept.prompt], every]).double().log()


@torch.inference_mode()
def told_by_tokens(asked: Asked, kept: Kept) -> Float[Tensor, "two kept"]:
    """Bits of each kept sample, of I(W;Z|X) and of I(X;Z).

    A batch holds at least one grid under every wording, so there may be no more of these than the batch has rows.
    """
    texts, start, grids = distinct(asked), log_shares(asked, kept), kept.grids
    at_once, parts = max(asked.batch_size // len(texts), 1), []
    for first in range(0, len(grids), at_once):
        batch = grids[first : first + at_once].repeat_interleave(len(texts), 0)
        count = len(batch)
        target = asked.target(texts * (count // len(texts)))
        share = start[:, first : first + at_once].to(batch.device)
        chain = Chain(share, asked.settings.greedy, share.new_zeros(2, share.shape[1]))
        target.run(asked.settings.rule, Dictated(batch, UNREAD), chain, slice(0, count))
        parts.append(chain.told.cpu())
    return torch.cat(parts, 1)


@dataclass(frozen=True)
class Exact:
    """Of AR, bits per image, exact but for the samples that they are means of: H(Z|X), I(X;Z), H(Z)."""

    conditional: Estimate
    mutual: Estimate
    sequence: Estimate


def exact_for_ar(asked: Asked, tally: Tally, kept: Kept, most: float) -> Exact:
    """`most`: the bits that no image exceeds.

    H(Z|X) is H(Z|X,W) + I(W;Z|X) and H(Z) is H(Z|X) + I(X;Z), of which H(Z|X,W) is known from all samples of the tally.
    """
    note = f"exact, token by token, of {len(kept.rows)} samples"
    wording, prompt = told_by_tokens(asked, kept)

    def beyond(bits: Float[Tensor, " kept"]) -> Estimate:
        return controlled(tally, kept, kept.joint + bits, kept.joint, 1.0, note, limits=(0.0, most))

    mutual = per_prompt(prompt, kept, math.log2(len(asked.wordings)), note, skewed=True)
    return Exact(beyond(wording), mutual, beyond(wording + prompt))
