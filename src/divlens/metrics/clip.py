"""What CLIP says of pictures (Radford et al., 2021): how well one fits to a text, and its quality."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from divlens.diversity import MissingPackageError
from divlens.errors import DivlensError, DivlensWarning
from divlens.models.building import network_from
from divlens.models.failures import one_line
from divlens.models.loading import find_files, json_object, read_parts
from divlens.models.special_tokens import refuse_special_tokens

SOURCE = "openai/clip-vit-base-patch16"
QUALITY = ("Good photo.", "Bad photo.")  # torchmetrics' own pair for "quality"
SHARPNESS = 100.0  # by which cosines are multiplied, in CLIPScore and before the softmax of CLIP-IQA
SEED = 0  # of the noise that is scored as a warning


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP as transformers has it, with the processor and the tokenizer that are published with it."""

    name: str
    model: Any
    processor: Any
    tokenizer: Any

    def picture_features(self, pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """Of pictures with grey levels of 0 to 255, of any size."""
        pixels = self.processor(images=list(pictures.cpu()), return_tensors="pt")["pixel_values"]
        return projected(self.model.get_image_features(pixel_values=pixels.to(self.model.device)))

    def text_features(self, texts: tuple[str, ...]) -> Float[Tensor, "texts features"]:
        """Of texts; a longer one than the network reads is cut, with a DivlensWarning. Raises DivlensError for a
        special token in one."""
        refuse_special_tokens(self.name, self.tokenizer, texts)
        most = self.model.config.text_config.max_position_embeddings
        for text, row in zip(texts, self.tokenizer(list(texts), verbose=False).input_ids, strict=True):
            if len(row) > most:
                said = f"{self.name} reads {most} of the {len(row)} tokens of {text[:40]!r}...: the rest does not count"
                warnings.warn(said, DivlensWarning, stacklevel=2)
        read = self.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=most)
        inputs = {key: read[key].to(self.model.device) for key in ("input_ids", "attention_mask")}
        return projected(self.model.get_text_features(**inputs))

    @torch.inference_mode()
    def scores(self, pictures: UInt8[Tensor, "n 3 h w"], text: str) -> Float[Tensor, " n"]:
        """CLIPScore of each picture with the text, max(100 cos, 0), in [0, 100] (Hessel et al., 2021, whose factor is
        2.5 in place of 100; torchmetrics has 100)."""
        with one_line(f"{self.name} expects a network that works as it is configured"):
            direction = text_direction(self, text, self.model.device)
            return (SHARPNESS * (with_length(self.picture_features(pictures)) @ direction)).clamp(min=0)

    @torch.inference_mode()
    def qualities(self, pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """CLIP-IQA of each picture, in [0, 1]: the probability of "Good photo." against "Bad photo." (Wang, Chan & Loy,
        2023, without their change to the position embedding, as torchmetrics has it for any CLIP)."""
        with one_line(f"{self.name} expects a network that works as it is configured"):
            cosines = with_length(self.picture_features(pictures)) @ self.anchors.T
            return (SHARPNESS * cosines).softmax(1)[:, 0]

    @cached_property
    def anchors(self) -> Float[Tensor, "2 features"]:
        return with_length(self.text_features(QUALITY))

    @cached_property
    def quality_of_nothing(self) -> tuple[float, float]:
        """CLIP-IQA of uniform noise and of an even grey: what no picture should need to beat."""
        side = self.model.config.vision_config.image_size
        noise = torch.randint(256, (3, side, side), generator=torch.Generator().manual_seed(SEED), dtype=torch.uint8)
        found = self.qualities(torch.stack([noise, torch.full_like(noise, 128)]))
        return float(found[0]), float(found[1])


@lru_cache(maxsize=8)
def text_direction(clip: Clip, text: str, device: torch.device) -> Float[Tensor, " features"]:
    """Of a prompt, whose pictures come some at a time. `device`: where the network is."""
    return with_length(clip.text_features((text,)))[0]


def projected(output: Any) -> Float[Tensor, "n features"]:
    """What CLIP's `get_..._features` gives: since transformers 5 a record that holds the features."""
    return output if isinstance(output, Tensor) else output.pooler_output


def with_length(features: Float[Tensor, "n features"], length: float = 1.0) -> Float[Tensor, "n features"]:
    return features * (length / torch.linalg.vector_norm(features, dim=1, keepdim=True))


@cache
def clip_of(place: str) -> Clip:
    """The CLIP in a folder or a repository of the model hub, in the layout of transformers, on the CPU.

    Raises DivlensError that names the extra for a missing package, and for files that are not those of a CLIP.
    """
    name = f"clip:{place}"
    files = ["config.json", "preprocessor_config.json", "tokenizer_config.json"]
    config = find_files(place, files, SOURCE)["config.json"]
    if (kind := json_object(config, "a CLIP").get("model_type")) != "clip":
        raise DivlensError(f"{name} expects a configuration with model_type clip, got {kind!r:.40}")
    transformers, _ = packages(name, "transformers", "torchvision")
    model = network_from(transformers.CLIPModel, place, config, SOURCE)
    kinds = transformers.CLIPImageProcessor, transformers.CLIPTokenizer
    processor, tokenizer = (
        read_parts(place, f"a {kind.__name__}", SOURCE, partial(kind.from_pretrained, place)) for kind in kinds
    )
    return Clip(name, model.eval().requires_grad_(False), processor, tokenizer)


def packages(name: str, *modules: str, extra: str = "features") -> list[Any]:
    """Modules of optional packages. Raises MissingPackageError that names the extra which brings them."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        wanted = " and ".join(dict.fromkeys(module.partition(".")[0] for module in modules))
        raise MissingPackageError(
            f"{name} needs {wanted} ({error}): pip install 'divlens[{extra}]'; lpips:stlpips needs nothing else"
        ) from error
