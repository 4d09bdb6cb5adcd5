"""How probable a generator finds a picture: exact for AR, bounds from above for the other two; in bits.

A generator is a backbone and a path rule here. The bounds are Monte-Carlo estimates of an expectation over corruptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.zoo.networks import Backbone
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster
from divlens.paths.reverse_step import reverse_step
from divlens.progress import OnBatch
from divlens.zoo.objectives import corrupted, hidden_at_random, position_nats

TOGETHER = 64  # pictures that are asked for at once
DRAWS = 16  # corruptions of each picture for a masked model


def raster_nats(
    backbone: Backbone, rule: Raster, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """-log p(tokens | text), exact, whatever the place."""
    return position_nats(backbone(tokens[:, :-1], conditions), tokens).sum(1)


def unmasking_nats(
    backbone: Backbone, rule: ConfidenceUnmasking, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """The order-agnostic bound (Uria et al., 2014; Hoogeboom et al., 2022): one token at a time in a random order.

    With m of N positions masked, m uniform in 1..N, N / m times the summed loss of the masked ones is unbiased. `place`
    in [0, 1) chooses m; rows are spread evenly from there.
    """
    batch, positions = tokens.shape
    places = (place + torch.arange(batch, device=tokens.device, dtype=torch.float64) / batch) % 1
    count = (places * positions).long().clamp(max=positions - 1)[:, None] + 1
    hidden = hidden_at_random(tokens, count)
    loss = position_nats(backbone(tokens.masked_fill(hidden, backbone.sizes.codes), conditions), tokens)
    return (loss * hidden).sum(1) * positions / count.squeeze(1)


def diffusion_nats(
    backbone: Backbone, rule: MaskReplaceDiffusion, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """The variational bound of the chain (VQ-Diffusion, equation 6): one step of it, at `place` in [0, 1) along the
    chain, times the step count."""
    codes = mask = backbone.sizes.codes
    time = min(int(place * rule.steps), rule.steps - 1) + 1
    state = corrupted(tokens, rule.kept[time], rule.masked[time], codes)
    log_p = backbone(state, conditions).float().log_softmax(-1).double()
    if time == 1:
        return -log_p.gather(-1, tokens[..., None]).squeeze(-1).sum(1) * rule.steps
    truth = F.one_hot(tokens, codes).double()
    q, p = (reverse_step(rule, time, state, mask, origin) for origin in (truth, log_p.exp()))
    divergence = torch.where(q > 0, q * (q.clamp(min=1e-300) / p.clamp(min=1e-300)).log(), 0.0).sum(-1)
    return divergence.sum(1) * rule.steps


BOUNDS: dict[type, Callable[..., Float[Tensor, " batch"]]] = {
    Raster: raster_nats,
    ConfidenceUnmasking: unmasking_nats,
    MaskReplaceDiffusion: diffusion_nats,
}


def rounds_of(rule: PathRule, draws: int) -> int:
    """How often the backbone is asked for each picture: of a diffusion once for every step of the chain, so that no
    step's share of the bound is left out."""
    return {Raster: 1, MaskReplaceDiffusion: rule.steps}.get(type(rule), draws)


def is_exact(rule: PathRule) -> bool:
    return isinstance(rule, Raster)


@torch.inference_mode()
def bits_of_pictures(
    backbone: Backbone,
    rule: PathRule,
    tokens: Int[Tensor, "n positions"],
    conditions: Float[Tensor, "n d"],
    draws: int = DRAWS,
    seed: int = 0,
    on_batch: OnBatch = lambda count: None,
) -> Float[np.ndarray, " n"]:
    """Bits of each picture given its text, without guidance. `draws`: corruptions of each for a masked model, see
    `rounds_of`. `on_batch` is told how many pictures were asked for, each in every round."""
    torch.manual_seed(seed)
    rounds = rounds_of(rule, draws)
    total = torch.zeros(len(tokens), dtype=torch.float64)
    start = float(torch.rand(()))
    for turn in range(rounds):
        place = (turn + start) / rounds  # a systematic sample: unbiased, and no part of the chain is left out
        for first in range(0, len(tokens), TOGETHER):
            rows = slice(first, first + TOGETHER)
            nats = BOUNDS[type(rule)](backbone, rule, tokens[rows], conditions[rows], place)
            total[rows] += nats.double().cpu() / rounds
            on_batch(len(nats))
    return (total / math.log(2)).numpy()
