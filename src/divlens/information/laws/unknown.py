"""The substitute law for rules whose law is not in this folder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.law import StepEntropies, committed_entropies
from divlens.loop import Moment


@dataclass(frozen=True)
class UnknownLaw:
    """The path entropy is NaN. The execution entropy is that of the token draws at the committed positions."""

    known: bool = False
    path_is_certain: bool = False
    draws_once: bool = True
    map_note: str = ""

    def entropies(self, moment: Moment) -> StepEntropies:
        execution = committed_entropies(moment)
        path = torch.full_like(execution, torch.nan)
        return StepEntropies(path, execution, path)

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        return torch.full((len(moment.view.tokens),), torch.nan, dtype=torch.float64)

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        return torch.full((len(moment.view.tokens),), torch.nan, dtype=torch.float64)
