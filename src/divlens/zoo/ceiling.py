"""The tokenizer's ceiling: what real pictures are worth under a codebook of which only a part may be used.

Scenes are drawn from the law of each prompt, so that nothing is lacking in them, and encoded with the nearest codes of
those that are left. What their pictures lose is the damage that decoder and codes do by themselves; what a generator
under the same intervention loses beyond it is lost by the generator. The nearest code of each token need not give the
best picture that the codes can make together: the ceiling is what is reached at least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from divlens.diversity import FeatureNetwork
from divlens.experiment.measure import IMAGES_PER_PASS, values_of
from divlens.experiment.measures import LAW_DISTANCE, Look, usual_measures
from divlens.fidelity import Judge
from divlens.interventions import Intervention, apply_all
from divlens.lab.evaluation import drawn_from_law
from divlens.lab.reading import read
from divlens.models.protocol import Model
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.planning import Reading
from divlens.types import Prompt
from divlens.zoo.train_tokenizer import pictures_of, squared_error

SIGNAL = "signal_to_noise"


def allowed_codes(model: Model, interventions: Sequence[Intervention]) -> Bool[Tensor, " codes"] | None:
    """The codes that interventions leave a model that ships the frequencies of its codes; None for all of them."""

    def frequencies() -> Float[Tensor, " codes"]:
        found = model.frequencies()
        assert found is not None, f"{model.name} ships no frequencies"
        return found

    return apply_all(interventions, Reading(model).defaults, frequencies).allowed


@torch.inference_mode()
def tokenizer_ceiling(
    tokenizer: Tokenizer,
    judge: Judge,
    network: FeatureNetwork,
    prompts: Sequence[Prompt],
    n: int,
    allowed: Bool[Tensor, " codes"] | None = None,
    seed: int = 0,
) -> Mapping[str, Float[np.ndarray, " prompts"]]:
    """The usual measures of `n` scenes of each prompt as the tokenizer draws them with the codes that are `allowed`,
    the distance to the law, and the mean peak signal to noise (dB), each by its name a value of every prompt.

    The scenes depend on the prompts, n and the seed alone, so that two sets of codes compare picture by picture.
    Raises DivlensError for a prompt that the laboratory cannot read.
    """
    scenes = drawn_from_law([read(prompt.text) for prompt in prompts], n, np.random.default_rng(seed))
    found: dict[str, list[float]] = {}
    for prompt, of_prompt in zip(prompts, scenes, strict=True):
        images = pictures_of(of_prompt)
        tokens = tokenizer.encode(images, allowed)
        drawn = tokenizer.decode(tokens).float()
        looks = [Look(prompt, part, "the law", network, judge) for part in drawn.split(IMAGES_PER_PASS)]
        values = values_of((*usual_measures(judge), LAW_DISTANCE), prompt, tokens.flatten(1), looks)
        values[SIGNAL] = float(-10 * squared_error(drawn, images).log10().mean())
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}
