"""How probable a zoo generator finds a picture: exact for AR, bounds from above for the other two; bits per image.

The bounds are Monte-Carlo estimates of an expectation over corruptions; their error is that of the mean over pictures
and draws.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.zoo.adapter import ZooModel
from divlens.models.zoo.networks import CODES, MASK, POSITIONS
from divlens.paths import MaskReplaceDiffusion
from divlens.paths.reverse_step import reverse_step
from divlens.zoo.objectives import corrupted, hidden_at_random, position_nats


def ar_nats(
    model: ZooModel, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """-log p(tokens | text), exact, whatever the place."""
    return position_nats(model.backbone(tokens[:, :-1], conditions), tokens).sum(1)


def mim_nats(
    model: ZooModel, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """The order-agnostic bound (Uria et al., 2014; Hoogeboom et al., 2022): one token at a time in a random order.

    With m of N positions masked, m uniform in 1..N, N / m times the summed loss of the masked ones is unbiased. `place`
    in [0, 1) chooses m; rows are spread evenly from there.
    """
    places = (place + torch.arange(len(tokens), device=tokens.device, dtype=torch.float64) / len(tokens)) % 1
    count = (places * POSITIONS).long().clamp(max=POSITIONS - 1)[:, None] + 1
    hidden = hidden_at_random(tokens, count)
    loss = position_nats(model.backbone(tokens.masked_fill(hidden, MASK), conditions), tokens)
    return (loss * hidden).sum(1) * POSITIONS / count.squeeze(1)


def diffusion_nats(
    model: ZooModel, tokens: Int[Tensor, "batch n"], conditions: Tensor, place: float
) -> Float[Tensor, " batch"]:
    """The variational bound of the chain (VQ-Diffusion, equation 6): one step of it, at `place` in [0, 1) along the
    chain, times the step count."""
    rule = model.rule
    assert isinstance(rule, MaskReplaceDiffusion)
    time = min(int(place * rule.steps), rule.steps - 1) + 1
    state = corrupted(tokens, rule.kept[time], rule.masked[time], CODES)
    log_p = model.backbone(state, conditions).float().log_softmax(-1).double()
    if time == 1:
        return -log_p.gather(-1, tokens[..., None]).squeeze(-1).sum(1) * rule.steps
    truth = F.one_hot(tokens, CODES).double()
    q, p = (reverse_step(rule, time, state, MASK, origin) for origin in (truth, log_p.exp()))
    divergence = torch.where(q > 0, q * (q.clamp(min=1e-300) / p.clamp(min=1e-300)).log(), 0.0).sum(-1)
    return divergence.sum(1) * rule.steps


BOUNDS = {"ar": ar_nats, "mim": mim_nats, "diffusion": diffusion_nats}


@torch.inference_mode()
def bits_per_image(
    model: ZooModel, tokens: Int[Tensor, "n positions"], texts: list[str], draws: int = 16, seed: int = 0
) -> tuple[float, float]:
    """Mean over pictures and its standard error (pictures are the clusters), in bits per image of 64 tokens.

    `draws`: corruptions of each picture for the masked model; for the diffusion it is one of every step of the chain,
    so that no step's share of the bound is left out.
    """
    torch.manual_seed(seed)
    distinct = sorted(set(texts))
    place = {text: i for i, text in enumerate(distinct)}
    table = model.encode(distinct)
    conditions = table[torch.tensor([place[text] for text in texts])]
    rounds = {"ar": 1, "mim": draws, "diffusion": model.rule.steps}[model.family]
    total = torch.zeros(len(tokens), dtype=torch.float64)
    start = float(torch.rand(()))
    for turn in range(rounds):
        place = (turn + start) / rounds  # a systematic sample: unbiased, and no part of the chain is left out
        for first in range(0, len(tokens), 128):
            rows = slice(first, first + 128)
            total[rows] += BOUNDS[model.family](model, tokens[rows], conditions[rows], place).double() / rounds
    bits = total / math.log(2)
    return float(bits.mean()), float(bits.std() / math.sqrt(len(bits)))
