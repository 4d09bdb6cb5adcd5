"""Every sample stays the same, token for token: hashes that were recorded once, of every model and intervention.

A change of a hash is a change of samples, which CHANGELOG.md must announce. To record them anew:

    python tests/test_token_hashes.py > tests/data/token_hashes.json
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import divlens
from divlens.interventions import (
    Argmax,
    DisableTop,
    Freeze,
    Guidance,
    Intervention,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
)
from divlens.models import known
from oracles.every_model import made, small

RECORDED = Path(__file__).parent / "data" / "token_hashes.json"
PROMPTS = ("red heart", "a rocket on a blue background")

CONDITIONS: dict[str, tuple[Intervention, ...]] = {
    "none": (),
    "Subset": (Subset(0.5),),
    "Argmax": (Argmax(),),
    "Paraphrase": (Paraphrase(),),
    "DisableTop": (DisableTop(0.1),),
    "Temperature, TopK, TopP": (Temperature(1.3), TopK(12), TopP(0.9)),
    "Guidance": (Guidance(2.0),),
    "Freeze path": (Freeze("path"),),
    "Freeze execution": (Freeze("execution"),),
}


# Those of the package as they are; of the others the published layout with few weights, and with a small grid where
# the published one is large.
LARGE = ("emu3", "glm-image")
MODELS: dict[str, Callable[[], Any]] = {
    name: partial(divlens.load if name.startswith(("toy/", "zoo/")) else small if name in LARGE else made, name)
    for name in known()
}
# All interventions of the models that run fast, two of the others.
CASES = [
    (model, condition)
    for model in MODELS
    for condition in CONDITIONS
    if not model.startswith("zoo/") or condition in ("none", "Paraphrase")
]


def token_hash(model: Any, prompts: Sequence[str], interventions: Sequence[Intervention], seed: int = 0) -> str:
    n = 16 if model.name.startswith("toy/") else 2  # the grids of toys are small
    tokens = divlens.sample(model, prompts, n, seed, interventions).tokens
    return hashlib.blake2b(tokens.to(torch.int32).numpy().tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize(("model", "condition"), CASES)
def test_samples_are_those_that_were_recorded(model, condition):
    recorded = json.loads(RECORDED.read_text())
    assert token_hash(MODELS[model](), PROMPTS, CONDITIONS[condition]) == recorded[model][condition]


def test_hashes_tell_models_interventions_and_seeds_apart():
    """The control: a condition may leave a model as it is, but most do not."""
    recorded = json.loads(RECORDED.read_text())
    assert recorded.keys() == MODELS.keys()
    assert len({hashes["none"] for hashes in recorded.values()}) == len(MODELS)
    for name in ("toy/ar", "toy/mim", "toy/diffusion"):
        assert len(set(recorded[name].values())) >= 6
    assert token_hash(MODELS["toy/mim"](), PROMPTS, (), seed=1) != recorded["toy/mim"]["none"]


if __name__ == "__main__":
    found: dict[str, dict[str, str]] = {}
    for model, condition in CASES:
        found.setdefault(model, {})[condition] = token_hash(MODELS[model](), PROMPTS, CONDITIONS[condition])
    print(json.dumps(found, indent=1))
