"""What a path rule's law tells the accounting: entropies of a step, and the chance of what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.loop import Moment


@dataclass(frozen=True)
class StepEntropies:
    """Nats per position, (batch, n), float64. `path` + `execution` is the entropy of (event, token); `state` that of
    the state after the step alone, so `state` <= `path` + `execution`."""

    path: Float[Tensor, "batch n"]
    execution: Float[Tensor, "batch n"]
    state: Float[Tensor, "batch n"]


class Law(Protocol):
    """The law of one path rule, under the sampler's own probabilities; natural logarithms, float64.

    known: False of the law that stands in for a rule which has none. path_is_certain: whether there is one path only,
    so that the probability of a grid is that of its draws. draws_once: whether every token of the grid is drawn once
    and stays, so that the execution entropy is at most H(Z|X), and a step has one reading. map_note: how a step's bits
    are divided over positions where that is a choice, or nothing.
    """

    @property
    def known(self) -> bool: ...
    @property
    def path_is_certain(self) -> bool: ...
    @property
    def draws_once(self) -> bool: ...
    @property
    def map_note(self) -> str: ...

    def entropies(self, moment: Moment) -> StepEntropies:
        """What the step adds to path and execution: its conditional entropy where that is known, else -log of the
        probability of what happened, whose mean over samples is the same.

        Where the path is frozen they are given the numbers of the frozen stream.
        """
        ...

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        """log of the chance of the state after the step, given the state before it. `certain`: the tokens that the
        draw must give, where it has no choice."""
        ...

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        """log of the chance that the rule does what it did when every draw is the token of the final grid, which the
        moment's draws are."""
        ...


def nothing_at(tokens: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """0 at every position, float64."""
    return torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)


def committed_entropies(moment: Moment) -> Float[Tensor, "batch n"]:
    """The entropy of the token draw at each committed position, given that these are: of draws that do not decide
    which positions are committed."""
    view, result = moment.view, nothing_at(moment.view.tokens)
    if moment.certain is not None:
        return result
    here = slice(view.first, view.first + view.count)
    entropy = torch.special.entr(moment.log_p.exp()).sum(-1).double()
    result[:, here] = entropy.masked_fill(~(moment.drawn & moment.result.committed[:, here]), 0.0)
    return result


def committed_log_probability(
    moment: Moment, certain: Int[Tensor, "batch m"] | None, least: float = -torch.inf
) -> Float[Tensor, " batch"]:
    """log of the chance of the committed tokens, given that these positions are committed. `least`: what a token's
    own is taken for where it is below."""
    view, law = moment.view, law_of_draw(moment, certain)
    here = slice(view.first, view.first + view.count)
    fixed = moment.drawn & moment.result.committed[:, here]
    tokens = moment.result.tokens[:, here].masked_fill(~fixed, 0)
    chance = law.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).double().clamp(min=least)
    return torch.where(fixed, chance, 0.0).sum(1)


def law_of_draw(moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, "batch m codes"]:
    """log-probabilities of the draw: the step's own, or all on the token that is certain."""
    if certain is None:
        return moment.log_p
    return torch.full_like(moment.log_p, -torch.inf).scatter(-1, certain.unsqueeze(-1), 0.0)
