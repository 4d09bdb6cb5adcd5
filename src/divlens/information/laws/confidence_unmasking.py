"""The law of confidence unmasking: which positions are committed depends on the tokens that were drawn.

A step has one number for its path and one for its tokens. Maps need numbers per position, so both are divided over the
committed positions: the path evenly, and the tokens in proportion to -log p of each token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.law import (
    StepEntropies,
    committed_entropies,
    committed_log_probability,
    nothing_at,
)
from divlens.information.laws.scores import scores_of
from divlens.information.laws.unmasking_events import event_log_probabilities
from divlens.loop import Moment
from divlens.paths import ConfidenceUnmasking


@dataclass(frozen=True)
class UnmaskingLaw:
    rule: ConfidenceUnmasking
    known: bool = True
    draws_once: bool = True
    map_note: str = "maps: a step's bits are divided over the positions it committed"

    @property
    def path_is_certain(self) -> bool:
        return self.rule.steps == 1

    def is_last(self, moment: Moment) -> bool:
        """Whether this is the last step, which commits all open positions, so that there is nothing to choose."""
        return moment.view.step == self.rule.steps - 1

    def entropies(self, moment: Moment) -> StepEntropies:
        view, committed, zero = moment.view, moment.result.committed, nothing_at(moment.view.tokens)
        certain = moment.certain
        if self.is_last(moment):
            execution = committed_entropies(moment)
            return StepEntropies(zero, execution, execution)
        tau, shift = self.rule.tau(view.step), None
        if tau > 0 and "path" in moment.settings.frozen:
            gumbel = moment.noise.path_gumbel(view.step, view.tokens.shape[1], moment.log_p.device)
            shift = tau * gumbel[moment.drawn]
        scores = scores_of(moment.log_p, moment.drawn, committed, moment.draws.tokens, certain)
        log_path, log_joint = event_log_probabilities(scores, len(moment.log_p), tau, shift)
        surprise = torch.where(committed, -moment.draws.log_probability.double(), 0.0)
        count = committed.sum(1, keepdim=True).clamp(min=1)
        total = surprise.sum(1, keepdim=True)
        share = torch.where(total > 0, surprise / total.clamp(min=1e-300), committed / count)
        path = -log_path[:, None] * (committed / count)
        execution = zero if certain is not None else (log_path - log_joint)[:, None] * share
        return StepEntropies(path, execution, path + execution)

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        if self.is_last(moment):
            return committed_log_probability(moment, certain)
        committed = moment.result.committed
        tokens = torch.where(committed, moment.result.tokens, 0)
        scores = scores_of(moment.log_p, moment.drawn, committed, tokens, certain)
        return event_log_probabilities(scores, len(moment.log_p), self.rule.tau(moment.view.step))[1]

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        grid = moment.draws.tokens
        if self.is_last(moment):
            return torch.zeros(len(grid), dtype=torch.float64, device=grid.device)
        scores = scores_of(moment.log_p, moment.drawn, moment.result.committed, grid, certain=grid)
        return event_log_probabilities(scores, len(grid), self.rule.tau(moment.view.step))[0]
