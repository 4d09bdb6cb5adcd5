"""`result.plot`: figures of a result for papers and notebooks, by matplotlib (`pip install 'divlens[plots]'`).

Each call returns a `matplotlib.figure.Figure` of its own, which pyplot knows nothing of: `figure.savefig("a.pdf")`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from divlens.errors import DivlensError, is_whole
from divlens.plots import figures, planes
from divlens.types import Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ProbePlots:
    """Figures of a probe."""

    table: pd.DataFrame = field(repr=False)

    def changes(self) -> Any:
        """The change of LPIPS diversity under each condition, and the fidelity there."""
        return figures.changes(self.table)


@dataclass(frozen=True)
class SharePlots:
    """Figures of `decompose`."""

    table: pd.DataFrame = field(repr=False)

    def shares(self) -> Any:
        """Which share of LPIPS diversity each source makes."""
        return figures.shares(self.table)


@dataclass(frozen=True)
class InformationPlots:
    """Figures of `information`."""

    table: pd.DataFrame = field(repr=False)

    def plane(self) -> Any:
        """H(Z) against H(Z|X), and the bottleneck plane."""
        return planes.plane(self.table)


@dataclass(frozen=True)
class FrontierPlots:
    """Figures of `frontier`."""

    settings: pd.DataFrame = field(repr=False)

    def frontier(self) -> Any:
        """Diversity against fidelity of every setting."""
        return figures.frontier(self.settings)


@dataclass(frozen=True)
class GenerationPlots:
    """Figures of `sample`, which need `trace=True`."""

    images: Float[Tensor, "prompts n 3 H W"] = field(repr=False)
    prompts: tuple[str, ...]
    grid: tuple[int, ...]
    trace: Trace | None = field(repr=False)

    def replay(self, prompt: int = 0, sample: int = 0) -> Any:
        """How one picture was filled in: since which step each token stands, and the bits that each step decided.

        `prompt`, `sample`: places among those that were drawn. Raises DivlensError without a trace, and for another
        place.
        """
        if self.trace is None:
            raise DivlensError("plot.replay expects what divlens.sample(..., trace=True) returns, got no trace")
        n = self.images.shape[1]
        for name, place, count in (("prompt", prompt, len(self.prompts)), ("sample", sample, n)):
            if not is_whole(place) or not 0 <= place < count:
                raise DivlensError(f"plot.replay expects a {name} from 0 to {count - 1}, got {place!r:.40}")
        row = prompt * n + sample
        committed = np.stack([step.committed[row].numpy() for step in self.trace.steps])
        surprise = np.stack([step.log_probability[row].double().numpy() for step in self.trace.steps]) / -np.log(2)
        states = np.stack([step.state[row].numpy() for step in self.trace.steps])
        changed = np.concatenate([committed[:1], states[1:] != states[:-1]])  # a diffusion draws all again at its end
        last = len(changed) - 1 - changed[::-1].argmax(0)
        since = np.where(changed.any(0), last, -1).reshape(self.grid)
        title = f"\u201c{self.prompts[prompt]}\u201d, sample {sample}"
        return figures.replay(self.images[prompt, sample].numpy(), since, (surprise * committed).sum(1), title)
