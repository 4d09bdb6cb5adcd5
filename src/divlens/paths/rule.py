"""What a path rule is: which drawn tokens are committed at a step, and what the next state is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.noise import Noise
from divlens.types import View


@dataclass(frozen=True)
class Draws:
    """The execution draws of one step at the positions of a view: tokens and their natural log-probabilities.

    log_p: those of all codes, for rules that look at the law of a draw in place of the token; the loop always says it.
    """

    tokens: Int[Tensor, "batch m"]
    log_probability: Float[Tensor, "batch m"]
    log_p: Float[Tensor, "batch m codes"] | None = None


@dataclass(frozen=True)
class Advance:
    """The state after a step, what was committed, and the log-probability of the path event given the draws.

    `path_log_probability` is NaN where the rule does not know it in closed form.
    """

    tokens: Int[Tensor, "batch n"]
    committed: Bool[Tensor, "batch n"]
    path_log_probability: Float[Tensor, " batch"]


@runtime_checkable
class PathRule(Protocol):
    """A path: how many steps, what is asked at each, and what becomes of the answers."""

    @property
    def steps(self) -> int: ...

    def view(self, tokens: Int[Tensor, "batch n"], step: int) -> View:
        """What the model is asked at `step`."""
        ...

    def drawn(self, view: View, mask: int) -> Bool[Tensor, "batch m"]:
        """The positions of the view at which the execution draw matters."""
        ...

    def advance(self, view: View, draws: Draws, mask: int, noise: Noise) -> Advance:
        """The path draw."""
        ...

    def silenced(self) -> PathRule:
        """The same rule without randomness (a fixed path)."""
        ...
