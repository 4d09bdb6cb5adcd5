"""Bounds that need the model again: on H(Z|X) over paths, and on I(X;Z) over prompts.

All of them run the library's one loop with the draws dictated: the grid is known, and the rule, or a record of what it
did, fills it in. Nothing is drawn from the model here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.laws import Law, law_of
from divlens.interventions import Settings
from divlens.models.protocol import Model
from divlens.noise import CounterNoise, Noise
from divlens.paths import Advance, Draws, PathRule
from divlens.sampler import Encoded, Moment, Observer, filled_from
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
    """An observer that keeps what `Replayed` needs, for the rows it is told to keep."""

    keep: Int[Tensor, " kept"]
    states: list[Tensor] = field(default_factory=list)
    committed: list[Tensor] = field(default_factory=list)

    def __call__(self, moment: Moment) -> None:
        self.states.append(moment.result.tokens[self.keep])
        self.committed.append(moment.result.committed[self.keep])


@dataclass
class Weigher:
    """An observer that sums log P(step) and log Q(step) along a path."""

    law: Law
    greedy: bool
    log_p: Any = 0.0
    log_q: Any = 0.0

    def __call__(self, moment: Moment) -> None:
        self.log_p = self.log_p + self.law.log_probability(moment, moment.log_p.argmax(-1) if self.greedy else None)
        self.log_q = self.log_q + self.law.proposal_log_probability(moment)


@dataclass(frozen=True)
class Target:
    """Whose probability is asked: the model under its settings, row by row under these wordings."""

    model: Model
    settings: Settings
    encoded: Encoded
    wordings: Sequence[str]
    batch_size: int

    def run(self, rule: PathRule, noise: Noise, observer: Observer, rows: slice) -> None:
        settings = replace(self.settings, rule=rule, greedy=False, frozen=frozenset())
        filled_from(self.model, settings, self.encoded.of(self.wordings[rows]), noise, [observer])


def path_key(path: int, grid: int) -> str:
    return f"path {path} of grid {grid}"


@torch.inference_mode()
def importance_log_weights(
    target: Target, grids: Int[Tensor, "batch n"], seed: int, keys: Sequence[str]
) -> Float[Tensor, " batch"]:
    """log w with E w <= p(grid | condition), natural: P(path, grid) / Q(path | grid) for one path drawn from Q. Each
    row's path belongs to its key.

    Q is the model's own rule with every draw replaced by the final token. E w = p where Q reaches every path that P
    does, as it does with noise in each step; for AR the weight is p itself.
    """
    rule, law = target.settings.rule, law_of(target.settings.rule)
    assert law.known
    parts = []
    for first in range(0, len(grids), target.batch_size):
        rows = slice(first, first + target.batch_size)
        own = keys[rows]
        inner = CounterNoise.of(seed, own, [0] * len(own), [0] * len(own))
        weigher = Weigher(law, target.settings.greedy)
        target.run(rule, Dictated(grids[rows], inner), weigher, rows)
        parts.append(torch.where(weigher.log_p > -math.inf, weigher.log_p - weigher.log_q, -math.inf))
    return torch.cat(parts).cpu()


@torch.inference_mode()
def transcript_log_probabilities(
    target: Target, states: Sequence[Int[Tensor, "batch n"]], committed: Sequence[Bool[Tensor, "batch n"]]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P of the whole record of each sample under the target's conditions, and log Q of it given its final grid."""
    rule, law = target.settings.rule, law_of(target.settings.rule)
    assert law.known
    log_p, log_q = [], []
    for first in range(0, len(states[0]), target.batch_size):
        rows = slice(first, first + target.batch_size)
        replayed = Replayed(rule, [state[rows] for state in states], [part[rows] for part in committed])
        count = len(states[0][rows])
        unused = CounterNoise.of(0, ["replay"] * count, [0] * count, [0] * count)
        weigher = Weigher(law, target.settings.greedy)
        target.run(replayed, Dictated(states[-1][rows], unused), weigher, rows)
        log_p.append(weigher.log_p)
        log_q.append(weigher.log_q)
    return torch.cat(log_p).cpu(), torch.cat(log_q).cpu()


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

    Both are held in by what is certain, P(own path, grid) <= p(grid) <= 1, of which a part ALLOWED is mixed in: weights
    that all are 0, or an own path that Q never takes, leave them finite.
    """
    count, own = log_weights.shape[1], log_p - log_q
    for paths in sorted({2**k for k in range(count.bit_length())} | {count}):
        blocks = count // paths
        parts = log_weights[:, : blocks * paths].view(-1, blocks, paths)
        with_own = torch.cat([own[:, None], log_weights[:, : paths - 1]], 1)
        below = mixed_in(log_mean_exp(parts, 2), log_p[:, None]).mean(1)
        inverse = -log_mean_exp(with_own, 1)
        yield Sandwich(paths, below, -mixed_in(inverse, torch.zeros_like(inverse)))


def mixed_in(log_values: Tensor, log_certain: Tensor) -> Tensor:
    """log of (1 - ALLOWED) values + ALLOWED certain."""
    return torch.logaddexp(log_values + math.log1p(-ALLOWED), log_certain + math.log(ALLOWED))


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    return values.logsumexp(dim) - math.log(values.shape[dim])
