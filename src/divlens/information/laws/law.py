"""What the accounting needs to know of a path rule: the entropies of a step and the probability of its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.loop import Moment


@dataclass(frozen=True)
class StepEntropies:
    """The entropies of a step in nats per position, (batch, n), float64.

    `path` + `execution` is the entropy of the event and the token. `state` is the entropy of only the state after the
    step, so `state` <= `path` + `execution`.
    """

    path: Float[Tensor, "batch n"]
    execution: Float[Tensor, "batch n"]
    state: Float[Tensor, "batch n"]


class Law(Protocol):
    """The law of one path rule under the sampler's own probabilities. All logarithms are natural, in float64.

    known: False for `UnknownLaw`, the substitute for rules without a law. path_is_certain: whether there is only one
    path, so that the probability of a grid is that of its token draws. draws_once: whether every token of the grid is
    drawn once and never changes; the execution entropy is then at most H(Z|X). map_note: how the bits of a step are
    divided over positions, if there is more than one way to divide them; otherwise empty.
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
        """What the step adds to path and execution. This is its conditional entropy where a formula for it is known,
        and otherwise -log of the probability of the outcome, which has the same mean over samples.

        If the path is frozen, the entropies are conditional on the random numbers of its noise.
        """
        ...

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        """The log-probability of the state after the step, given the state before it. `certain`: the only tokens that
        could be drawn, if the draw is not random."""
        ...

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        """The log-probability that the rule makes this step when every draw is the token of the final grid. The draws
        of the moment must be these tokens."""
        ...


def nothing_at(tokens: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """0 at every position, float64."""
    return torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)


def committed_entropies(moment: Moment) -> Float[Tensor, "batch n"]:
    """The entropy of the token draw at each committed position, given which positions are committed. This holds for
    rules where the draws do not influence which positions are committed."""
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
    """The log-probability of the committed tokens, given that these positions are committed. The log-probability of a
    token counts as `least` if it is below that."""
    view, law = moment.view, law_of_draw(moment, certain)
    here = slice(view.first, view.first + view.count)
    fixed = moment.drawn & moment.result.committed[:, here]
    tokens = moment.result.tokens[:, here].masked_fill(~fixed, 0)
    chance = law.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).double().clamp(min=least)
    return torch.where(fixed, chance, 0.0).sum(1)


def law_of_draw(moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, "batch m codes"]:
    """The log-probabilities of the draw: those of the step, or 0 for the tokens `certain` and -inf for all others."""
    if certain is None:
        return moment.log_p
    return torch.full_like(moment.log_p, -torch.inf).scatter(-1, certain.unsqueeze(-1), 0.0)
