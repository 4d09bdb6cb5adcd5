"""The tokenizer's codebook while it is trained: moving averages, a k-means start and revival of unused codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.zoo.tokenizer import Tokenizer


class MovingCodebook:
    """Exponential moving averages of what is assigned to each code (van den Oord et al., 2017, appendix A.1).

    A code that is used less often than `rare` times the mean starts anew at a random feature. Features far from their
    code are the likelier ones (as in k-means++), for most features are alike: they are background.
    """

    def __init__(self, tokenizer: Tokenizer, decay: float = 0.99, rare: float = 0.02) -> None:
        self.tokenizer, self.decay, self.rare = tokenizer, decay, rare
        self.codes = len(tokenizer.codebook)
        self.counts = torch.ones(self.codes, device=tokenizer.codebook.device)

    def start(self, features: Float[Tensor, "n c"], rounds: int = 10) -> None:
        """k-means from random features."""
        codebook = self.tokenizer.codebook
        codebook.copy_(features[torch.randperm(len(features), device=features.device)[: self.codes]])
        for _ in range(rounds):
            self.update(features, self.tokenizer.quantise(features), decay=0.0)
        self.counts.fill_(len(features) / self.codes)

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n c"], ids: Int[Tensor, " n"], decay: float | None = None) -> None:
        decay = self.decay if decay is None else decay
        codebook = self.tokenizer.codebook
        counts = torch.bincount(ids, minlength=self.codes).to(features.dtype)
        sums = torch.zeros_like(codebook).index_add_(0, ids, features)
        total = decay * self.counts + (1 - decay) * counts
        mixed = decay * self.counts[:, None] * codebook + (1 - decay) * sums
        codebook.copy_(torch.where(total[:, None] > 1e-6, mixed / total.clamp(min=1e-6)[:, None], codebook))
        self.counts.copy_(total)
        dead = torch.nonzero(self.counts < self.rare * len(features) / self.codes).flatten()
        if len(dead):
            codebook[dead] = features[self.fresh(features, ids, len(dead))]
            self.counts[dead] = 0.5 * len(features) / self.codes

    def codes_of(
        self, features: Float[Tensor, "batch gh gw c"], since: int
    ) -> tuple[Float[Tensor, "batch gh gw c"], Float[Tensor, ""]]:
        """What the decoder gets for an encoder's output, with the gradient of the latter, and the commitment loss.

        `since`: steps since quantising began, at 0 with k-means; before that it is the output itself.
        """
        if since < 0:
            return features, features.square().mean() * 0.01
        flat = features.detach().reshape(-1, features.shape[-1])
        if since == 0:
            self.start(flat)
        ids = self.tokenizer.quantise(flat)
        self.update(flat, ids)
        nearest = self.tokenizer.codebook[ids].view_as(features)
        return features + (nearest - features).detach(), F.mse_loss(features, nearest)

    def fresh(self, features: Float[Tensor, "n c"], ids: Int[Tensor, " n"], count: int) -> Int[Tensor, " count"]:
        """Which features codes start anew at."""
        distance = (features - self.tokenizer.codebook[ids]).square().sum(1)
        return torch.multinomial(distance + 1e-9, count, replacement=count > len(features))


def perplexity(counts: Float[Tensor, " codes"]) -> float:
    share = counts / counts.sum()
    return float(torch.special.entr(share).sum().exp())
