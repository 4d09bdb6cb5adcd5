"""The parts of a diffusers pipeline: from a folder in the published layout, or from a pipeline that is loaded already.

diffusers and transformers are optional; nothing here imports them, and the factories do so when they are called.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from divlens.errors import DivlensError
from divlens.models.building import check_numbers, network_from
from divlens.models.fingerprint import weights_digits
from divlens.models.loading import Options, find_files, json_object, read_parts

CONFIGS = {  # of the parts that have another than config.json
    "tokenizer": "tokenizer_config.json",
    "processor": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
DECODERS = ("vqvae", "vae")


@dataclass(frozen=True)
class Layout:
    """A published diffusers folder: the model's name, the pipeline's class, its parts with theirs, and where one can be
    had. `others`: further classes of pipelines that are made of the same parts."""

    name: str
    pipeline: str
    parts: Mapping[str, Any]
    source: str
    others: tuple[str, ...] = ()


def packages_for(name: str) -> tuple[Any, Any]:
    """diffusers and transformers. Raises DivlensError that names the extra which brings them."""
    try:
        return importlib.import_module("diffusers"), importlib.import_module("transformers")
    except ImportError as error:
        raise DivlensError(
            f"{name} needs the packages diffusers and transformers ({error}): pip install 'divlens[diffusers]'"
        ) from error


def load_parts(checkpoint: str | None, layout: Layout, options: Options) -> tuple[str, dict[str, Any]]:
    """The model's name, and every part of a folder or a hub repository (None: the layout's source), in place.

    Raises DivlensError that names all missing files, another pipeline or part than expected, and tensors that are
    missing, extra or of another shape.
    """
    checkpoint = checkpoint or layout.source
    files = {name: f"{name}/{CONFIGS.get(name, 'config.json')}" for name in layout.parts}
    found = find_files(checkpoint, ["model_index.json", *files.values()], layout.source)
    check_class(found["model_index.json"], layout.pipeline)
    for name, kind in layout.parts.items():
        check_class(found[files[name]], kind.__name__)
    parts = {name: load_part(checkpoint, name, layout, found[files[name]]) for name in layout.parts}
    # The decoder stays in float32: in half precision it may overflow, and it runs once per picture only.
    own: dict[str, Options] = dict.fromkeys(DECODERS, replace(options, dtype="float32"))
    placed = {name: own.get(name, options).place(part) for name, part in parts.items() if isinstance(part, nn.Module)}
    return f"{layout.name}:{checkpoint}", parts | placed


def check_class(config: Path, expected: str) -> None:
    """Raises DivlensError when a configuration file says that it is of another class; some do not say."""
    found = json_object(config, f"a {expected}").get("_class_name", expected)
    if found != expected:
        raise DivlensError(f"{config} expects a {expected}, got a {found}")


def load_part(checkpoint: str, name: str, layout: Layout, config: Path) -> Any:
    """One part, whose configuration file is `config`. A network must find exactly its own tensors."""
    kind = layout.parts[name]
    if issubclass(kind, nn.Module):
        return network_from(kind, checkpoint, config, layout.source, subfolder=name)

    def read() -> Any:
        if name == "scheduler":  # a tokenizer may call the length of its texts 10**30, for any
            check_numbers(config)
        return kind.from_pretrained(checkpoint, subfolder=name)

    return read_parts(f"{checkpoint}/{name}", f"the files of a {kind.__name__}", layout.source, read)


def wrapped_parts(pipeline: Any, layout: Layout) -> tuple[str, dict[str, Any]]:
    """The model's name, and the parts of a pipeline that is loaded already. Raises DivlensError for another pipeline or
    part.

    Its networks are set to evaluation and otherwise used as they are, where they are: of a model's options, `truncate`
    and `compile` count.
    """
    if type(pipeline).__name__ not in (layout.pipeline, *layout.others):
        raise DivlensError(f"expected a diffusers {layout.pipeline}, got a {type(pipeline).__name__}")
    parts = {name: getattr(pipeline, name) for name in layout.parts}
    for name, kind in layout.parts.items():
        # By name: the class of one part stands beside its pipeline in diffusers, and in divlens, too.
        if kind.__name__ not in [one.__name__ for one in type(parts[name]).__mro__]:
            raise DivlensError(
                f"the {name} of a {layout.pipeline} expects a {kind.__name__}, got {type(parts[name]).__name__}"
            )
    networks = [part.eval() for part in parts.values() if isinstance(part, nn.Module)]
    return f"{layout.name}:wrapped-{weights_digits(*networks)}", parts
