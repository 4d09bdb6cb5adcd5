"""Bounds that run the model again on known grids: bounds on H(Z|X), which average over paths, and bounds on I(X;Z),
which compare prompts.

They all use the sampling loop of the library with draws that are fixed in advance: no token is drawn from the model,
because the grid is already known. The path rule either fills in the grid along a new path, or repeats the path in the
record of the sample.

The *own path* of a sample is the path on which it was drawn. A *proposed* path is a new path drawn for its grid.
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

# Mixing with this weight costs 0.0014 bits as a rule, and 10 bits if nothing but the safe value is left.
ALLOWED = 2.0**-10


@dataclass(frozen=True)
class Dictated:
    """Noise that gives the tokens of a known grid instead of random draws. The noise of the path comes from `inner`."""

    grid: Int[Tensor, "batch n"]
    inner: Noise

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        return self.grid[:, first : first + probabilities.shape[1]]

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return self.inner.path_uniform(step, positions, device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        return self.inner.path_gumbel(step, positions, device)

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        return self.inner.condition_normal(step, numbers, device)


@dataclass(frozen=True)
class Replayed:
    """A path rule that repeats the steps of recorded samples. `states[s]` is the grid after step s, and `committed[s]`
    says which positions that step committed."""

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
    """Stores the records of some rows of a batch, which `Replayed` can repeat. `rows`: the indices of these rows."""

    rows: Int[Tensor, " stored"]
    states: list[Tensor] = field(default_factory=list)
    committed: list[Tensor] = field(default_factory=list)

    def add(self, moment: Moment) -> None:
        self.states.append(moment.result.tokens[self.rows])
        self.committed.append(moment.result.committed[self.rows])


def log_probabilities_of_replay(
    run: Run, rule: PathRule, wordings: Sequence[str], noise: Noise
) -> tuple[Tensor, Tensor]:
    """log P and log Q, (batch,), of the steps that `rule` takes under these wordings when `noise` gives all tokens.

    P is the probability of these steps and tokens in the run itself. Q is the probability of the steps when every draw
    is the token of the final grid.
    """
    law = law_of(run.settings.rule)
    assert law.known
    settings = replace(run.settings, rule=rule, greedy=0.0, frozen=frozenset())
    log_p, log_q = torch.zeros(2, len(wordings), dtype=torch.float64)
    for moment in steps(replace(run, settings=settings), wordings, noise):
        device = moment.log_p.device
        certain = moment.log_p.argmax(-1) if run.settings.greedy_at(moment.view.step) else None
        log_p = log_p.to(device) + law.log_probability(moment, certain)
        log_q = log_q.to(device) + law.proposal_log_probability(moment)
    return log_p, log_q


def path_key(path: int, grid: int) -> str:
    return f"path {path} of grid {grid}"


@torch.inference_mode()
def importance_log_weights(
    run: Run, wordings: Sequence[str], grids: Int[Tensor, "batch n"], keys: Sequence[str]
) -> Float[Tensor, " batch"]:
    """The natural logarithm of the importance weight w = P(path, grid) / Q(path | grid) for one path drawn from Q. Each
    row has its own wording, and its key determines the noise of its path.

    Q is the path rule of the run with every draw replaced by the token of the final grid. In general
    E w <= p(grid | wording). Equality holds if Q can reach every path that P can, as it does when every step has noise.
    If there is only one path, w is exactly p.
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
    """log P of the whole record of each sample under its wording, and log Q of its path given its final grid."""

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
    """Bounds on the natural logarithm of p(grid | condition), (batch,), from `paths` paths; see `sandwich`."""

    paths: int
    below: Float[Tensor, " batch"]
    above: Float[Tensor, " batch"]


def sandwich(
    log_weights: Float[Tensor, "batch paths"], log_p: Float[Tensor, " batch"], log_q: Float[Tensor, " batch"]
) -> Iterator[Sandwich]:
    """Bounds on log p(grid) from 1, 2, 4, ... paths.

    If all paths are drawn from Q, the expectation of the log of the mean weight is at most log p (Burda et al., 2016).
    If one of them is the own path of the sample, it is at least log p (Grosse et al., 2015). `log_p` and `log_q` are
    those of the own path.

    It is always true that P(own path, grid) <= p(grid) <= 1. Both bounds are mixed with these values, to which ALLOWED
    gives the weight, so that they stay finite if all weights are 0 or if Q can never take the own path.
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
    """The log of (1 - ALLOWED) * values + ALLOWED * certain, from the logarithms of both."""
    return torch.logaddexp(log_values + math.log1p(-ALLOWED), log_certain + math.log(ALLOWED))


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    return values.logsumexp(dim) - math.log(values.shape[dim])
