"""Confidence unmasking without noise, or with known noise: scores are atoms and chances are finite sums.

The rule ranks by (score, position): of two equal scores the one further back in the grid is committed first. With a
noise that is small beside all differences of scores, and there, any of the equal ones is, each order alike: as if every
score had a place of its own, even on (0, 1), by which equal ones are ranked. Chances are then means over the place of
the lowest committed score, polynomials of a degree below the number of equal scores: a Gauss-Legendre rule is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.scores import Scores


def atom_log_probabilities(
    scores: Scores, samples: int, shift: Float[Tensor, " rows"], *, ties_to_any: bool = False
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P(V) and log P(V, z_V); `shift` is added to every score of a row. Ties go to the position further back, or to
    any."""
    one_sample = tied_to_any if ties_to_any else tied_by_position
    results = [one_sample(scores.rows(scores.sample == i), shift[scores.sample == i]) for i in range(samples)]
    return torch.stack([path for path, _ in results]), torch.stack([joint for _, joint in results])


@dataclass(frozen=True)
class Below:
    """The chance that the score of each row is below, and at or below, a threshold."""

    ordered: Float[Tensor, "rows codes"]
    mass: Float[Tensor, "rows more"]

    @classmethod
    def of(cls, score: Float[Tensor, "rows codes"], weight: Float[Tensor, "rows codes"]) -> Below:
        ordered, order = score.sort(1)
        return cls(ordered, torch.nn.functional.pad(weight.gather(1, order).cumsum(1), (1, 0)))

    def __call__(self, threshold: Float[Tensor, " t"]) -> tuple[Float[Tensor, "rows t"], Float[Tensor, "rows t"]]:
        wanted = threshold.expand(len(self.ordered), -1).contiguous()
        strictly = self.mass.gather(1, torch.searchsorted(self.ordered, wanted))
        return strictly, self.mass.gather(1, torch.searchsorted(self.ordered, wanted, right=True))


def tied_by_position(scores: Scores, shift: Float[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
    score = scores.location + shift[:, None]
    inside, position, chances = scores.committed, scores.position, Below.of(score, scores.weight)

    def below(threshold: Float[Tensor, " t"], at: Int[Tensor, " t"]) -> Float[Tensor, "rows t"]:
        """The chance that each row's (score, position) is below (threshold, at)."""
        strictly, equal_too = chances(threshold)
        return torch.where(position[:, None] < at, equal_too, strictly)

    drawn, weight = scores.of_token(score)[inside], scores.of_token(scores.weight)[inside]
    lowest = drawn.min()
    last = position[inside][drawn == lowest].min()
    joint = weight.log().sum() + below(lowest[None], last[None])[~inside].log().sum()
    row, code = ((scores.weight > 0) & inside[:, None]).nonzero(as_tuple=True)
    under = below(score[row, code], position[row])
    return chosen_with(scores, row, code, under), joint


def tied_to_any(scores: Scores, shift: Float[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
    score = scores.location + shift[:, None]
    inside, chances = scores.committed, Below.of(score, scores.weight)
    drawn, weight = scores.of_token(score)[inside], scores.of_token(scores.weight)[inside]
    row, code = ((scores.weight > 0) & inside[:, None]).nonzero(as_tuple=True)
    strictly, equal_too = chances(score[row, code])
    lowest = drawn.min()
    out_strictly, out_too = (part[~inside] for part in chances(lowest[None]))
    equal = int((drawn == lowest).sum())
    tied = max(int((equal_too > strictly).sum(0).max()), equal + int((out_too > out_strictly).sum()))
    places, shares = np.polynomial.legendre.leggauss((tied + 1) // 2)
    paths, joints = [], []
    for place, share in zip(((places + 1) / 2).tolist(), (shares / 2).tolist(), strict=True):
        paths.append(chosen_with(scores, row, code, strictly + place * (equal_too - strictly)) + math.log(share))
        others = (out_strictly + place * (out_too - out_strictly)).log().sum()
        # The lowest place of the equal ones has the density equal * (1 - place)^(equal - 1).
        joints.append(others + math.log(share * equal * (1 - place) ** (equal - 1)))
    return torch.stack(paths).logsumexp(0), weight.log().sum() + torch.stack(joints).logsumexp(0)


def chosen_with(
    scores: Scores, row: Int[Tensor, " t"], code: Int[Tensor, " t"], under: Float[Tensor, "rows t"]
) -> Float[Tensor, ""]:
    """log P(V): the sum over which score is the lowest committed one, that of `row` and `code`. `under`: the chance
    that each row is below it."""
    log_terms = torch.where(scores.committed[:, None], (1 - under).clamp(min=0), under).log()
    # The row that holds the threshold contributes the chance of its own atom instead.
    own = torch.arange(len(under), device=under.device)[:, None] == row
    log_terms = torch.where(own, scores.weight[row, code].log(), log_terms)
    return log_terms.sum(0).logsumexp(0)
