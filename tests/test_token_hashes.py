"""Every sample stays the same, token for token: hashes that were recorded once, of every model and intervention.

A change of a hash is a change of samples, which CHANGELOG.md must announce. To record them anew:

    python tests/test_token_hashes.py > tests/data/token_hashes.json
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

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
from divlens.models.llamagen.adapter import load as load_llamagen
from divlens.models.loading import Options
from divlens.models.wrap import wrap
from oracles import tiny_diffusers, tiny_llamagen, tiny_transformers

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


@cache
def tiny_llamagen_model() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return load_llamagen(str(tiny_llamagen.save(Path(folder))), Options())


MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: divlens.load(name) for name in ("toy/ar", "toy/mim", "toy/diffusion")},
    **{name: lambda name=name: divlens.load(name) for name in ("zoo/ar", "zoo/mim", "zoo/diffusion")},
    "aMUSEd": cache(lambda: wrap(tiny_diffusers.amused())),
    "VQ-Diffusion": cache(lambda: wrap(tiny_diffusers.vq_diffusion())),
    "LlamaGen": tiny_llamagen_model,
    "Janus": cache(lambda: wrap(*tiny_transformers.janus())),
    "Emu3": cache(
        lambda: replace(cast(Any, wrap(*tiny_transformers.emu3())), grid=(3, 5))
    ),  # the published one has 8,100
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
