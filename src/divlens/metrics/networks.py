"""Networks that turn a picture into a direction: CLIP, DINOv2, DreamSim. What is measured is 1 - cosine.

Their feature vectors are scaled to a length of sqrt(1/2). Then |g - g'|^2 = 1 - cos(g, g'), so that a mean over pairs
is a variance, as it is for LPIPS, and one pass over the pictures suffices (`diversity/lpips`).

Pictures are rounded to 8 bits first, for then a picture that was drawn has the features of the file that it would be
saved to; then the processor that is published with the network cuts and scales them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from divlens.diversity import FeatureNetwork, load_network
from divlens.errors import DivlensError
from divlens.metrics.clip import clip_of, packages, with_length
from divlens.models.building import network_from
from divlens.models.failures import one_line
from divlens.models.fingerprint import weights_digits
from divlens.models.loading import find_files, json_object, read_parts

CLIP, DINO, DREAMSIM = "clip", "dinov2", "dreamsim"
DREAMSIM_FOLDER = "models"  # where it keeps its weights unless told otherwise


class Directions(nn.Module):
    """Pictures in [0, 1] to vectors of length sqrt(1/2), by `encode`, which takes 8-bit pictures.

    name: as it was asked for. network: what `encode` runs, which moves with this module. version: digits of its
    weights, so that figures of other ones are not taken for these.
    """

    def __init__(
        self, name: str, network: nn.Module, encode: Callable[[UInt8[Tensor, "n 3 h w"]], Float[Tensor, "n features"]]
    ) -> None:
        super().__init__()
        self.name, self.network, self.encode = name, network, encode
        self.version = weights_digits(network)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def check_size(self, images: Float[Tensor, "*leading 3 h w"], name: str = "images") -> None:
        """Every size will do: the published processors scale pictures."""

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        with one_line(f"{self.name} expects a network that works as it is configured"):
            return with_length(self.encode(in_8_bits(images)), 0.5**0.5)


def in_8_bits(images: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 h w"]:
    return (images * 255).round().to(torch.uint8)


def network_by(name: str) -> FeatureNetwork | Directions:
    """The network of a name: one of LPIPS ("stlpips", "alex", "vgg"), "clip:PLACE", "dinov2:PLACE" with a folder or a
    repository of the model hub, "dreamsim" or "dreamsim:FOLDER" with the folder of its weights. Each is loaded once.

    Raises DivlensError for another name, for a package that is missing, and for files that are not what they should be.
    """
    kind, _, place = name.partition(":")
    if kind in (CLIP, DINO) and not place:
        raise DivlensError(f"{kind} expects a folder or a repository on the model hub after a colon, got {name!r}")
    return loaded(name)


@cache
def loaded(name: str) -> FeatureNetwork | Directions:
    kind, _, place = name.partition(":")
    if kind == CLIP:
        clip = clip_of(place)
        return Directions(name, clip.model, clip.picture_features)
    if kind == DINO:
        return dinov2(name, place)
    return dreamsim(name, place or DREAMSIM_FOLDER) if kind == DREAMSIM else load_network(name)


def dinov2(name: str, place: str) -> Directions:
    """The class token of the last layer, after its normalisation (Oquab et al., 2023). `place`: a folder, or a
    repository of the model hub, in the layout of transformers or of timm; or the bare name of a model of timm."""
    source = "facebook/dinov2-base, or of timm/vit_small_patch14_dinov2.lvd142m"
    place = hub_name(place)
    config = find_files(place, ["config.json"], source)["config.json"]
    described = json_object(config, "a DINOv2")
    if "architecture" in described:
        return dinov2_of_timm(name, place, str(described["architecture"]), source)
    if (kind := described.get("model_type")) != DINO:
        raise DivlensError(f"{name} expects a configuration with model_type dinov2, or one of timm, got {kind!r:.40}")
    find_files(place, ["preprocessor_config.json"], source)
    transformers, _ = packages(name, "transformers", "torchvision")
    model_kind, processor_kind = transformers.Dinov2Model, transformers.BitImageProcessor
    model = frozen(network_from(model_kind, place, config, source, ignored=("classifier",)))
    processor = read_parts(place, "a BitImageProcessor", source, lambda: processor_kind.from_pretrained(place))

    def encode(pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        pixels = processor(images=list(pictures.cpu()), return_tensors="pt")["pixel_values"]
        return model(pixels.to(model.device)).pooler_output

    return Directions(name, model, encode)


def hub_name(place: str) -> str:
    """A bare name that is no folder is one of timm's, whose models are repositories of its own."""
    return place if "/" in place or Path(place).is_dir() else f"timm/{place}"


def dinov2_of_timm(name: str, place: str, architecture: str, source: str) -> Directions:
    if DINO not in architecture:
        raise DivlensError(f"{name} expects an architecture of timm with dinov2 in its name, got {architecture!r:.60}")
    timm, data, functional = packages(name, "timm", "timm.data", "torchvision.transforms.functional")
    where = f"{'local-dir' if Path(place).is_dir() else 'hf-hub'}:{place}"
    model = frozen(
        read_parts(place, f"a {architecture}", source, lambda: timm.create_model(where, pretrained=True, num_classes=0))
    )
    prepare = data.create_transform(**data.resolve_model_data_config(model), is_training=False)

    def encode(pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        device = next(model.parameters()).device
        return model(torch.stack([prepare(functional.to_pil_image(picture)) for picture in pictures.cpu()]).to(device))

    return Directions(name, model, encode)


def dreamsim(name: str, folder: str) -> Directions:
    """The ensemble of DreamSim (Fu et al., 2023), whose distance is 1 - cosine of its embeddings; the package looks for
    its weights in `folder` and downloads them to it otherwise."""
    package, functional = packages(name, "dreamsim", "torchvision.transforms.functional", extra="dreamsim")
    with one_line(f"{name} expects the weights of dreamsim in the folder {folder}, or a way to download them"):
        model, prepare = package.dreamsim(pretrained=True, device="cpu", cache_dir=folder)
    frozen(model)

    def encode(pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        # One by one: the package squeezes a batch, and makes a batch of one of each picture.
        device = next(model.parameters()).device
        return torch.cat(
            [model.embed(prepare(functional.to_pil_image(picture)).to(device)) for picture in pictures.cpu()]
        )

    return Directions(name, model, encode)


def frozen(network: Any) -> Any:
    return network.eval().requires_grad_(False)
