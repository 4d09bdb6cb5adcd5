"""Guidance asks a network twice at every step: both branches in one pass, the rows of one below those of the other."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def for_branches(rows: Tensor, guided: bool) -> Tensor:
    """What both branches are given alike: the rows, with guidance a second time below."""
    return torch.cat([rows, rows]) if guided else rows


def branches_of(
    logits: Float[Tensor, "rows m codes"], guided: bool, *, unconditional_first: bool = False
) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
    """The conditional and, with guidance, the unconditional logits: the halves of the rows."""
    if not guided:
        return logits, None
    first, second = logits.chunk(2)
    return (second, first) if unconditional_first else (first, second)
