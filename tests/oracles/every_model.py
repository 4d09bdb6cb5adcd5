"""Every model of the registry, and one from outside of the package: each with few random weights, and a line here.

`tests/test_every_model.py` runs all of them through one battery, and fails for a name of the registry without a line.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler

from divlens.models import load, vq_diffusion
from divlens.models.wrap import wrap
from divlens.models.zoo import adapter
from divlens.models.zoo.networks import Backbone, Sizes
from divlens.paths import ConfidenceUnmasking, RandomOrder
from oracles import tiny_diffusers, tiny_glm_image, tiny_llamagen, tiny_transformers
from oracles.small_models import Small

FAMILIES = ("ar", "mim", "diffusion")


def whole(model: Any) -> Any:
    return model


@dataclass(frozen=True)
class Kind:
    """make: the model whose weights come from a seed. small: the same with few steps or positions, where it has many.

    Of a published model, save: its files with the weights of a seed, as published; and parts: what `divlens.wrap` is
    given, where it takes such a model. head: the module that the logits come out of, where there is one.
    """

    make: Callable[[int], Any]
    small: Callable[[Any], Any] = whole
    save: Callable[[Path, int], object] | None = None
    parts: Callable[[int], tuple[Any, ...]] | None = None
    head: str = ""


def wrapped(saved: Callable[[Any, Path], object], parts: Callable[[int], tuple[Any, ...]], **known: Any) -> Kind:
    """A published model that comes as one object, or as a network and its processor."""

    def save(folder: Path, seed: int) -> object:
        found = parts(seed)
        return saved(found[0] if len(found) == 1 else found, folder)

    return Kind(lambda seed: wrap(*parts(seed)), save=save, parts=parts, **known)


def llamagen(seed: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return load(f"llamagen:{tiny_llamagen.save(Path(folder), seed=seed)}")


def narrow_zoo(family: str, seed: int = 0) -> Any:
    """The packaged generator with few steps and a narrow random network in the place of its own."""
    model: Any = load(f"zoo/{family}")
    torch.manual_seed(seed)
    backbone = Backbone(Sizes(len(model.vocabulary), causal=family == "ar", width=32, layers=1, rank=8))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return with_few_steps(replace(model, backbone=backbone.eval().requires_grad_(False)))


def with_few_steps(model: Any) -> Any:
    few = {"mim": ConfidenceUnmasking(4, (2.0, 0.0)), "diffusion": adapter.diffusion_rule(4)}
    return replace(model, rule=few.get(model.family, model.rule))


def in_ten_steps(model: Any) -> Any:
    return replace(model, rule=vq_diffusion.rule_of(VQDiffusionScheduler(model.codes + 1), steps=10))


def of_fifteen_codes(model: Any) -> Any:
    """The published picture has 8,100 codes; this one has 15, in lines of five."""
    return replace(model, grid=(3, 5))


def of_few_codes(model: Any) -> Any:
    """The published picture has 1,024 codes and its preview 256; this one has 4 and 2, and is decoded in 2 steps."""
    return replace(model, size=(2, 2), preview=(1, 2), decoder=replace(model.decoder, steps=2))


MODELS: Mapping[str, Kind] = {
    **{f"toy/{of}": Kind(lambda seed, of=of: load(f"toy/{of}:{seed}")) for of in FAMILIES},
    **{
        f"zoo/{family}": Kind(lambda seed, of=family: narrow_zoo(of, seed), head="backbone.head") for family in FAMILIES
    },
    "amused": wrapped(tiny_diffusers.saved, lambda seed: (tiny_diffusers.amused(seed=seed),), head="network.mlm_layer"),
    "vq-diffusion": wrapped(
        tiny_diffusers.saved,
        lambda seed: (tiny_diffusers.vq_diffusion(seed=seed),),
        small=in_ten_steps,
        head="network.__self__.transformer.out",
    ),
    "llamagen": Kind(llamagen, save=lambda folder, seed: tiny_llamagen.save(folder, seed=seed), head="gpt.output"),
    "janus": wrapped(
        tiny_transformers.saved, lambda seed: tiny_transformers.janus(seed=seed), head="network.model.generation_head"
    ),
    "emu3": wrapped(
        tiny_transformers.saved,
        lambda seed: tiny_transformers.emu3(seed=seed),
        small=of_fifteen_codes,
        head="network.lm_head",
    ),
    "glm-image": wrapped(
        tiny_glm_image.saved, lambda seed: (tiny_glm_image.glm_image(seed=seed),), small=of_few_codes, head="head"
    ),
    "outside": Kind(lambda seed: Small(RandomOrder(3), codes=3, seed=seed)),
}
PUBLISHED = [name for name, kind in MODELS.items() if kind.save]
WRAPPED = [name for name, kind in MODELS.items() if kind.parts]
NETWORKS = [name for name, kind in MODELS.items() if kind.head]


@cache
def made(name: str, seed: int = 0) -> Any:
    """The model as it is published but for its size: with all its steps and positions."""
    return MODELS[name].make(seed)


@cache
def small(name: str, seed: int = 0) -> Any:
    return MODELS[name].small(made(name, seed))


def loaded(name: str, folder: Path, seed: int = 0, **options: Any) -> Any:
    """A small published model, through its files and the registry."""
    save = MODELS[name].save
    assert save is not None
    if not folder.exists():
        save(folder, seed)
    return MODELS[name].small(load(f"{name}:{folder}", **options))


def with_head(name: str, change: Callable[[torch.nn.Module], object]) -> Any:
    """A copy of the small model whose last layer, which the logits come out of, was changed."""
    model = copy.deepcopy(small(name))
    with torch.no_grad():
        change(attrgetter(MODELS[name].head)(model))
    return model
