"""Confidence unmasking without noise or with known noise. The scores are then discrete and all probabilities are
finite sums.

The rule ranks positions by (score, position): of two equal scores, the one at the later position is committed first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.scores import Scores
from divlens.information.laws.sorted_mixtures import Sorted


def atom_log_probabilities(
    scores: Scores, samples: int, shift: Float[Tensor, " rows"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P(V) and log P(V, z_V); `shift` is added to every score of a row."""
    results = [one_sample(scores.rows(scores.sample == i), shift[scores.sample == i]) for i in range(samples)]
    return torch.stack([path for path, _ in results]), torch.stack([joint for _, joint in results])


def one_sample(scores: Scores, shift: Float[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
    score = scores.location + shift[:, None]
    inside, position = scores.committed, scores.position
    mixture = Sorted.of(scores.weight, score)

    def below(threshold: Float[Tensor, " t"], at: Int[Tensor, " t"]) -> Float[Tensor, "rows t"]:
        """The probability that the (score, position) of each row is below (threshold, at)."""
        strictly, equal_too = (
            mixture.below.gather(1, mixture.place(threshold, right=right)) for right in (False, True)
        )
        return torch.where(position[:, None] < at, equal_too, strictly)

    drawn, weight = scores.of_token(score)[inside], scores.of_token(scores.weight)[inside]
    lowest = drawn.min()
    last = position[inside][drawn == lowest].min()
    joint = weight.log().sum() + below(lowest[None], last[None])[~inside].log().sum()

    row, code = ((scores.weight > 0) & inside[:, None]).nonzero(as_tuple=True)
    threshold, at = score[row, code], position[row]
    under = below(threshold, at)
    log_terms = torch.where(inside[:, None], (1 - under).clamp(min=0), under).log()
    # The row whose score is the threshold contributes the probability of that score, not of exceeding it.
    own = torch.arange(len(score), device=score.device)[:, None] == row
    log_terms = torch.where(own, scores.weight[row, code].log(), log_terms)
    return log_terms.sum(0).logsumexp(0), joint
