"""Draws that keep apart from each other: what earlier samples of a prompt hold at a place is drawn there less often."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.noise import CounterNoise
from divlens.settings import Settings, filter_logits
from divlens.types import Repulsion, View


def drawn_apart(
    logits: Float[Tensor, "batch m codes"],
    repulsion: Repulsion,
    settings: Settings,
    noise: CounterNoise,
    view: View,
    drawn: Bool[Tensor, "batch m"],
) -> tuple[Float[Tensor, "batch m codes"], Int[Tensor, "batch m"]]:
    """The law of each draw, given what the samples before it hold there, and the tokens that were drawn by it.

    `logits`: guided. `drawn`: where a draw matters; elsewhere a sample holds the token of its state. Of every row the
    batch must have all that come before it in its block (`run.fill` adds those that are not asked for). Rows of one
    rank are drawn at once, and the network was asked once for all.
    """
    earlier = noise.earlier_in_block(repulsion.among)
    held = view.tokens[:, view.first : view.first + view.count].clone()
    tokens, log_p = torch.empty_like(held), torch.empty_like(logits, dtype=torch.float32)
    for rank in range(max(map(len, earlier)) + 1):
        rows = [row for row, before in enumerate(earlier) if len(before) == rank]
        others = held[torch.tensor([earlier[row] for row in rows], dtype=torch.long, device=held.device)]
        law = filter_logits(repelled(logits[rows], others, repulsion.strength), settings)
        greedy = settings.greedy_at(view.step)
        tokens[rows] = law.argmax(-1) if greedy else noise.of_rows(rows).draw(law.exp(), view.step, view.first)
        log_p[rows] = law
        held[rows] = torch.where(drawn[rows], tokens[rows], held[rows])
    return log_p, tokens


def repelled(
    logits: Float[Tensor, "rows m codes"], others: Int[Tensor, "rows some m"], strength: float
) -> Float[Tensor, "rows m codes"]:
    """Logits, less `strength` for each of the `others` that holds a code; those that hold none are no code."""
    codes = logits.shape[-1]
    holds = (others >= 0) & (others < codes)
    less = torch.where(holds, -strength, 0.0).to(logits.device, torch.float32)
    return logits.float().scatter_add(-1, others.clamp(0, codes - 1).movedim(1, -1), less.movedim(1, -1))
