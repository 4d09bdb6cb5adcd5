"""What generators are trained for and measured by: tokens that are hidden or replaced, and the loss of each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def position_nats(logits: Float[Tensor, "batch n codes"], tokens: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """-log p(token) at each position."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


def hidden_at_random(tokens: Int[Tensor, "batch n"], count: Tensor) -> Bool[Tensor, "batch n"]:
    """`count` positions of each row, (batch, 1), chosen uniformly at random."""
    return torch.rand(tokens.shape, device=tokens.device).argsort(1).argsort(1) < count


def corrupted(
    tokens: Int[Tensor, "batch n"], kept: Tensor | float, masked: Tensor | float, codes: int
) -> Int[Tensor, "batch n"]:
    """x_t ~ q(x_t | x_0) of mask-and-replace diffusion; the mask is `codes`. `kept`, `masked`: the cumulative chances,
    a number or (batch, 1)."""
    event = torch.rand(tokens.shape, device=tokens.device)
    anything = torch.randint(codes, tokens.shape, device=tokens.device)
    noisy = torch.where(event < masked + kept, tokens, anything)
    return torch.where(event < masked, codes, noisy)
