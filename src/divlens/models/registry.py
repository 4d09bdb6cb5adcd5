"""Where models are found: a name, where its factory lives, and the arguments it gets.

A name comes from this table, from `register`, or from an installed package that offers it:

    [project.entry-points."divlens.models"]
    "studio/painter" = "studio.divlens:load_painter"

A factory takes (checkpoint: str | None, options: divlens.models.loading.Options), and the arguments it was registered
with, and returns a `divlens.models.protocol.Model`. It is imported when the model is loaded, not before; so is torch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from divlens.errors import DivlensError

if TYPE_CHECKING:  # these import torch, which listing the models must not
    import torch

    from divlens.models.protocol import Model

GROUP = "divlens.models"
Factory = Callable[..., "Model"]


@dataclass(frozen=True)
class Facts:
    """What a user wants to know of a model before loading it; empty where it is not known.

    family: autoregressive, masked or diffusion. extra: of the package, which brings what the model needs. checkpoint:
    an example of what follows the colon of its spec; about: what it is, in a few words.
    """

    family: str = ""
    extra: str = ""
    checkpoint: str = ""
    about: str = ""


@dataclass(frozen=True)
class Registered:
    """A factory, or where it lives ("module:attribute"), and the keyword arguments it gets besides the usual two."""

    factory: Factory | str
    arguments: Mapping[str, object] = field(default_factory=dict)
    facts: Facts = Facts()

    def resolved(self) -> Factory:
        if not isinstance(self.factory, str):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        return getattr(importlib.import_module(module), attribute)


FAMILIES = {"ar": "autoregressive", "mim": "masked", "diffusion": "diffusion"}
ZOO, TOY = "emoji scenes whose law is known, inside the package", "tiny and enumerable, for tests and learning"


def built_in(place: str, family: str, extra: str = "", checkpoint: str = "", about: str = "") -> Registered:
    return Registered(f"divlens.models.{place}", facts=Facts(FAMILIES[family], extra, checkpoint, about))


TABLE: dict[str, Registered] = {
    **{f"zoo/{f}": built_in(f"zoo.adapter:load_{f}", f, checkpoint=".zoo/weights", about=ZOO) for f in FAMILIES},
    **{f"toy/{f}": built_in(f"toy:load_{f}", f, checkpoint="7", about=TOY) for f in FAMILIES},
    "amused": built_in("amused:load", "mim", "diffusers", "amused/amused-256"),
    "vq-diffusion": built_in("vq_diffusion:load", "diffusion", "diffusers", "microsoft/vq-diffusion-ithq"),
    "llamagen": built_in("llamagen.adapter:load", "ar", "transformers", "FOLDER#256"),
    "janus": built_in("janus:load", "ar", "transformers", "deepseek-community/Janus-Pro-1B"),
    "emu3": built_in("emu3:load", "ar", "transformers", "BAAI/Emu3-Gen-hf"),
    "glm-image": built_in("glm_image:load", "ar", "diffusers", "zai-org/GLM-Image"),
}


def offered() -> dict[str, list[EntryPoint]]:
    """What installed packages offer, by name; looked up anew, so that a package just installed is found."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def register(name: str, factory: Factory | str, **arguments: object) -> None:
    """Make `load(name)` call `factory(checkpoint, options, **arguments)`.

    `factory`: a callable, or "module:attribute", which is imported at the first load. Raises DivlensError for a name
    that is taken, is empty or holds a colon or a space, and for a string without a colon.
    """
    if not name or ":" in name or name != "".join(name.split()):
        raise DivlensError(f'register expects a name without colons or spaces, such as "studio/painter", got {name!r}')
    if isinstance(factory, str) and not all(factory.partition(":")):
        raise DivlensError(f'register expects a callable or "module:attribute" for {name!r}, got {factory!r}')
    if name in TABLE or name in offered():
        raise DivlensError(f"register expects a new name, but {name!r} is registered already")
    TABLE[name] = Registered(factory, arguments)


def known() -> list[str]:
    """The names that `load` understands, sorted."""
    return sorted({*TABLE, *offered()})


def facts_of(name: str) -> Facts:
    """What is known of a model without importing it: for one from another package, who offers it."""
    if name in TABLE:
        return TABLE[name].facts
    packages = sorted({entry.dist.name for entry in offered().get(name, []) if entry.dist})
    return Facts(about=f"from the package {', '.join(packages)}" if packages else "")


def factory_of(name: str) -> tuple[Factory, Mapping[str, object]]:
    """The factory behind a name. Raises DivlensError when there is none, or more than one."""
    offers = offered().get(name, [])
    places = [entry.value for entry in offers]
    if name in TABLE:
        if offers:
            raise DivlensError(f"{name!r} is registered already, but an installed package offers it too: {places}")
        return TABLE[name].resolved(), TABLE[name].arguments
    if len(set(places)) > 1:
        raise DivlensError(f"{name!r} is offered by more than one installed package: {places}")
    if offers:
        return offers[0].load(), {}
    raise not_known(name)


def place_of(name: str) -> str:
    """Where the factory behind a name lives, "module:attribute"; nothing is imported. Raises DivlensError for none."""
    if name in TABLE:
        factory = TABLE[name].factory
        return factory if isinstance(factory, str) else f"{factory.__module__}:{getattr(factory, '__name__', '')}"
    if offers := offered().get(name):
        return offers[0].value
    raise not_known(name)


def not_known(name: str) -> DivlensError:
    names = known()
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return DivlensError(f"no model is called {name!r}; {hint}known: {', '.join(names)}")


def load(
    spec: str,
    device: str | torch.device = "cpu",
    *,
    dtype: str = "float32",
    truncate: bool = False,
    compile: bool = False,
) -> Model:
    """The model that `spec` names: "zoo/mim", or "name:checkpoint", where all after the first colon is the factory's:
    a folder, or a repository on the model hub.

    `device`: as torch names it, "cpu" or "cuda:0", or a torch.device. `dtype`: of the weights, "float32", "bfloat16" or
    "float16"; draws stay in float32, and so do decoders. `truncate`: cut a wording that the text encoder cannot read
    whole, and record it, in place of an error. `compile`: `torch.compile` the network.

    Raises DivlensError, in one line, for a name that is not known, an empty checkpoint, a factory that cannot be
    imported or fails, whatever its error, which is the cause, and one that returns something other than a model.
    """
    if not isinstance(spec, str):
        raise DivlensError(f'load expects a name such as "zoo/mim", or "name:checkpoint", got {spec!r:.80}')
    name, colon, checkpoint = spec.partition(":")
    if colon and not checkpoint:
        raise DivlensError(f"{spec!r} expects a checkpoint after the colon, got nothing")
    from divlens.models.failures import one_line
    from divlens.models.loading import Options, device_name
    from divlens.models.protocol import Model, check_model, missing

    with one_line(f"the model {name!r} expects a factory that can be imported"):
        factory, arguments = factory_of(name)
    options = Options(device_name(device), dtype, truncate, compile)
    with one_line(f"the model {spec!r} expects to be loaded"):
        model = factory(checkpoint or None, options, **arguments)
        if lacking := missing(model, Model):
            raise DivlensError(
                f"the factory of {name!r} returned a {type(model).__name__}, which lacks {', '.join(lacking)}"
            )
        check_model(model)
    return model
