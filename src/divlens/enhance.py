"""More diversity without retraining: mixed-length wordings and the most used codes disabled (arXiv 2512.01831)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from divlens.diversity import load_network, lpips_diversity
from divlens.experiment.measure import PromptFigures, SampleRecord, look
from divlens.experiment.probe import judge_for
from divlens.interventions import DisableTop, Intervention, Paraphrase
from divlens.models import load
from divlens.models.protocol import Model
from divlens.sampler import sample
from divlens.statistics import Interval, bootstrap_mean, paired_change
from divlens.types import Generation, Prompt


@dataclass(frozen=True)
class Side:
    """Before or after: the pictures, and per prompt the figures and the samples."""

    generation: Generation
    figures: tuple[PromptFigures, ...]
    samples: tuple[SampleRecord, ...]

    def mean(self, name: str, seed: int = 0) -> Interval:
        """Mean over prompts of "diversity", "coverage" or "fidelity"; the interval needs two prompts."""
        return bootstrap_mean(self.column(name), seed)

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in self.figures], float)


@dataclass(frozen=True)
class Enhanced:
    """What `enhance` returns. `images` and `tokens` are those after; `before` and `after` hold everything."""

    before: Side
    after: Side

    @property
    def images(self):
        return self.after.generation.images

    @property
    def tokens(self):
        return self.after.generation.tokens

    def change(self, name: str = "diversity", seed: int = 0) -> Interval:
        """Mean over prompts of after - before, paired; NaN bounds for a single prompt."""
        return paired_change(self.after.column(name), self.before.column(name), seed)


def enhancer(disable_top: float = 0.05) -> tuple[Intervention, ...]:
    """The paper's enhancer as it stands."""
    return (Paraphrase(lengths="mixed"), DisableTop(disable_top))


def enhance(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 16,
    seed: int = 0,
    *,
    disable_top: float = 0.05,
    lpips: str = "stlpips",
    on_batch: Callable[[int], None] = lambda count: None,
) -> Enhanced:
    """Draw `n` samples of each prompt without and with the enhancer, from the same noise, and measure both.

    Raises DivlensError for bad input, before anything is drawn.
    """
    chosen = load(model) if isinstance(model, str) else model
    asked = [prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts]
    network, judge, after = load_network(lpips), judge_for(chosen), enhancer(disable_top)

    def side(condition: str, interventions: Sequence[Intervention]) -> Side:
        drawn = sample(chosen, asked, n, seed, interventions, trace=False, on_batch=on_batch)
        diversity = lpips_diversity(drawn.images, network)
        looked = [look(drawn, i, float(diversity[i]), chosen.name, condition, judge) for i in range(len(asked))]
        figures = tuple(row for row, _ in looked)
        return Side(drawn, figures, tuple(record for _, records in looked for record in records))

    return Enhanced(side("before", ()), side("after", after))
