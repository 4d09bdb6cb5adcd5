"""Bounds for which the model is run again: on H(Z|X) over paths, and on I(X;Z) over prompts.

All of them run the library's one loop with dictated draws: the grid is known, and the path rule fills it in, or repeats
what the record of a sample says that it did. No token is drawn from the model here.

A sample's *own path* is the one on which it was drawn; a *proposed* path is one that is drawn anew for its grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.laws import law_of
from divlens.loop import Moment
from divlens.noise import CounterNoise, Noise
from divlens.paths import Advance, Draws, PathRule
from divlens.run import Run, steps
from divlens.types import View

ALLOWED = 2.0**-10  # costs 0.0014 bits, and 10 where nothing else is left


@dataclass(frozen=True)
class Dictated:
    """Noise whose execution draw is a given grid; the path's numbers are those of `inner`."""

    grid: Int[Tensor, "batch n"]
    inner: Noise

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        return self.grid[:, first : first + probabilities.shape[1]]

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return self.inner.path_uniform(step, positions, device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        return self.inner.path_gumbel(step, positions, device)


@dataclass(frozen=True)
class Replayed:
    """A path rule that goes again through the states of a sample: `states[s]` is the grid after step s, of which
    `committed[s]` was fixed by it."""

    rule: PathRule
    states: Sequence[Int[Tensor, "batch n"]]
    committed: Sequence[Bool[Tensor, "batch n"]]

    @property
    def steps(self) -> int:
        return self.rule.steps

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        return self.rule.view(tokens, step)

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        return self.rule.drawn(view, mask)

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        unknown = torch.full((len(view.tokens),), math.nan, dtype=torch.float64)
        return Advance(self.states[view.step], self.committed[view.step], unknown)

    def silenced(self) -> PathRule:
        return self


@dataclass
class Recorder:
    """Stores the records, which `Replayed` goes through, of some rows of a batch. `rows`: the numbers of these."""

    rows: Int[Tensor, " stored"]
    states: list[Tensor] = field(default_factory=list)
    committed: list[Tensor] = field(default_factory=list)

    def add(self, moment: Moment) -> None:
        self.states.append(moment.result.tokens[self.rows])
        self.committed.append(moment.result.committed[self.rows])


def log_probabilities_of_replay(
    run: Run, rule: PathRule, wordings: Sequence[str], noise: Noise
) -> tuple[Tensor, Tensor]:
    """log P and log Q, (batch,), of what `rule` does under these wordings with the draws that `noise` dictates.

    P is the law of the run's own rule and draws, Q that of its rule when every draw is the token of the final grid.
    """
    law, greedy = law_of(run.settings.rule), run.settings.greedy
    assert law.known
    settings = replace(run.settings, rule=rule, greedy=False, frozen=frozenset())
    log_p, log_q = torch.zeros(2, len(wordings), dtype=torch.float64)
    for moment in steps(replace(run, settings=settings), wordings, noise):
        device = moment.log_p.device
        log_p = log_p.to(device) + law.log_probability(moment, moment.log_p.argmax(-1) if greedy else None)
        log_q = log_q.to(device) + law.proposal_log_probability(moment)
    return log_p, log_q


def path_key(path: int, grid: int) -> str:
    return f"path {path} of grid {grid}"


@torch.inference_mode()
def importance_log_weights(
    run: Run, wordings: Sequence[str], grids: Int[Tensor, "batch n"], keys: Sequence[str]
) -> Float[Tensor, " batch"]:
    """log w with E w <= p(grid | wording), natural: P(path, grid) / Q(path | grid) for one path drawn from Q. Each row
    has its wording, and its path belongs to its key.

    Q is the model's own rule with every draw replaced by the final token. E w = p where Q reaches every path that P
    does, as it does with noise in each step; where there is one path the weight is p itself.
    """

    def log_weights(part: slice) -> Tensor:
        own = keys[part]
        inner = CounterNoise.of(run.seed, own, [0] * len(own), [0] * len(own))
        log_p, log_q = log_probabilities_of_replay(run, run.settings.rule, wordings[part], Dictated(grids[part], inner))
        return torch.where(log_p > -math.inf, log_p - log_q, -math.inf).cpu()

    return torch.cat([weights for _, weights in run.rooms.drawing.parts(len(grids), log_weights)])


@torch.inference_mode()
def transcript_log_probabilities(
    run: Run,
    wordings: Sequence[str],
    states: Sequence[Int[Tensor, "batch n"]],
    committed: Sequence[Bool[Tensor, "batch n"]],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P of the whole record of each sample under its wording, and log Q of it given its final grid."""

    def log_p_and_q(part: slice) -> Tensor:
        rule = Replayed(run.settings.rule, [state[part] for state in states], [some[part] for some in committed])
        count = len(wordings[part])
        unused = CounterNoise.of(0, ["replay"] * count, [0] * count, [0] * count)
        return torch.stack(
            log_probabilities_of_replay(run, rule, wordings[part], Dictated(states[-1][part], unused))
        ).cpu()

    log_p, log_q = torch.cat([both for _, both in run.rooms.drawing.parts(len(wordings), log_p_and_q)], 1)
    return log_p, log_q


@dataclass(frozen=True)
class Sandwich:
    """Bounds on log p(grid | condition), natural, (batch,), from `paths` paths; see `sandwich`."""

    paths: int
    below: Float[Tensor, " batch"]
    above: Float[Tensor, " batch"]


def sandwich(
    log_weights: Float[Tensor, "batch paths"], log_p: Float[Tensor, " batch"], log_q: Float[Tensor, " batch"]
) -> Iterator[Sandwich]:
    """For 1, 2, 4, ... paths: the mean of log mean w is at most log p with paths from Q (Burda et al., 2016), and at
    least log p when one of them is the sample's own path (Grosse et al., 2015), of which `log_p` and `log_q` are given.

    What is certain, P(own path, grid) <= p(grid) <= 1, is mixed into both by a part ALLOWED. So they stay finite where
    all weights are 0, or where Q never takes the sample's own path.
    """
    count, own = log_weights.shape[1], log_p - log_q
    for paths in sorted({2**k for k in range(count.bit_length())} | {count}):
        blocks = count // paths
        parts = log_weights[:, : blocks * paths].view(-1, blocks, paths)
        with_own = torch.cat([own[:, None], log_weights[:, : paths - 1]], 1)
        below = log_mixture(log_mean_exp(parts, 2), log_p[:, None]).mean(1)
        inverse = -log_mean_exp(with_own, 1)
        yield Sandwich(paths, below, -log_mixture(inverse, torch.zeros_like(inverse)))


def log_mixture(log_values: Tensor, log_certain: Tensor) -> Tensor:
    """log of (1 - ALLOWED) values + ALLOWED certain, given the logarithms."""
    return torch.logaddexp(log_values + math.log1p(-ALLOWED), log_certain + math.log(ALLOWED))


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    return values.logsumexp(dim) - math.log(values.shape[dim])
