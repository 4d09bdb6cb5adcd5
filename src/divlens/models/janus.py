"""Janus-Pro under the one loop (Chen et al., 2025, arXiv 2501.17811): a Llama that writes a 24x24 grid of codes.

`janus:deepseek-community/Janus-Pro-1B`, `janus:deepseek-community/Janus-Pro-7B`, or a local folder in the same layout.
Agrees with `JanusForConditionalGeneration.generate(generation_mode="image", do_sample=True, top_k=0)` token for token
when the noise source makes the reference's calls. Without `top_k=0` that function keeps the 50 most probable codes,
which is the default of transformers and not of the published sampling; `TopK(50)` does the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from divlens.errors import DivlensError
from divlens.models.causal import (
    CachedTransformer,
    Pixels,
    Prompts,
    Published,
    RasterPredictor,
    Reader,
    guidance_of,
    tokenizer_of,
)
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but
from divlens.models.loading import Options, check_equal
from divlens.models.open_domain import OpenDomain
from divlens.paths import Raster

PUBLISHED = Published("janus", "JanusForConditionalGeneration", "JanusProcessor", "deepseek-community/Janus-Pro-1B")
GUIDANCE = 5.0


@dataclass(frozen=True)
class JanusModel(OpenDomain):
    """Janus, ready for the loop.

    The unconditional branch is the prompt with a padding token in place of all but its begin tokens, `kept`; so it is
    as long as the prompt, and the length of a wording moves both branches.
    """

    name: str
    network: Any
    step: Callable[..., Any]
    reader: Reader
    pixels: Pixels
    kept: tuple[int, int]
    padding: int
    codes: int
    grid: tuple[int, int]
    guidance: float = GUIDANCE

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name")

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def mask(self) -> int:
        return self.codes

    @property
    def rule(self) -> Raster:
        return Raster(self.grid[0] * self.grid[1])

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return normalize(self.network.model.vqmodel.quantize.embedding.weight, dim=-1)  # as the decoder is given them

    @property
    def limit(self) -> int:
        return self.reader.limit

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return self.reader.lengths(wordings)

    @reported("tokenizer")
    def encode(self, wordings: Sequence[str]) -> Int[Tensor, "wordings limit_plus_one"]:
        return self.reader.conditions(wordings).to(self.network.device)

    def unconditional(self, conditions: Int[Tensor, "rows limit_plus_one"]) -> Int[Tensor, "rows limit_plus_one"]:
        ids = conditions[:, 1:]
        replaced = ~torch.isin(ids, torch.tensor(self.kept, device=ids.device))
        return torch.cat([conditions[:, :1], ids.masked_fill(replaced, self.padding)], dim=1)

    @reported("transformer")
    def predictor(self, conditions: Int[Tensor, "batch limit_plus_one"], guided: bool) -> RasterPredictor:
        rows = torch.cat([conditions, self.unconditional(conditions)]) if guided else conditions
        model = self.network.model
        places = torch.arange(self.rule.positions - 1, device=rows.device)  # nothing follows the last code
        return RasterPredictor(
            self.name,
            CachedTransformer(model.language_model, self.step, Prompts.of(rows), places),
            embed=lambda codes, _: self.network.prepare_embeddings_for_image_generation(codes[:, None]),
            head=model.generation_head,
            guided=guided,
        )

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        def pictures(part: Tensor) -> Tensor:
            return self.network.decode_image_tokens(part.flatten(1)).permute(0, 3, 1, 2)

        return self.pixels.pictures(self.name, pictures, tokens)


def load(checkpoint: str | None, options: Options) -> JanusModel:
    """Janus from a folder or a hub repository in the published layout (Janus-Pro-1B when it is None).

    Raises DivlensError as `Published.load` does, and for parts that do not fit each other.
    """
    return assembled(*PUBLISHED.load(checkpoint, options), options)


def from_model(model: Any, processor: Any, options: Options) -> JanusModel:
    """Janus from a loaded `JanusForConditionalGeneration` and its processor, or a tokenizer with its chat template.

    It is used as `Published.wrapped` says. Raises DivlensError as that does, and for a processor that does not fit.
    """
    return assembled(*PUBLISHED.wrapped(model), processor, options)


def assembled(name: str, network: Any, processor: Any, options: Options) -> JanusModel:
    """The model of parts that are in place. Raises DivlensError for parts that do not fit each other."""
    tokenizer = tokenizer_of(name, processor, ["boi_token"])
    config = network.config
    side, positions = config.vq_config.num_patches, config.vision_config.num_image_tokens
    check_equal(name, "number of image tokens", {"vision_config": positions, "vq_config": side * side})
    ids = special_ids(name, network.generation_config, tokenizer)
    return JanusModel(
        name=name,
        network=network,
        step=options.compiled(network.model.language_model),
        reader=Reader(
            name=name,
            tokenizer=tokenizer,
            template=template_of(name, processor, tokenizer),
            limit=config.text_config.max_position_embeddings - positions,
            truncate=options.truncate,
        ),
        pixels=Pixels.of(processor),
        kept=(ids["bos_token_id"], ids["boi_token_id"]),
        padding=ids["pad_token_id"],
        codes=config.vq_config.num_embeddings,
        grid=(side, side),
        guidance=guidance_of(network, GUIDANCE),
    )


def special_ids(name: str, generation: Any, tokenizer: Any) -> dict[str, int]:
    """What the unconditional branch is made of: begin and padding as the generation config has them, as the reference.

    They are not always the tokenizer's, whose padding token may be the end of a text. The begin of an image is the
    tokenizer's, for it ends the prompt; generation configs lose it on the way through some versions of transformers.
    """
    found = {key: getattr(generation, key) for key in ("bos_token_id", "pad_token_id")}
    if missing := [key for key, value in found.items() if not isinstance(value, int)]:
        raise DivlensError(f"{name} expects a generation config with {', '.join(found)}, got no {', '.join(missing)}")
    return found | {"boi_token_id": tokenizer.convert_tokens_to_ids(tokenizer.boi_token)}


@dataclass(frozen=True)
class Chat:
    """A wording as a user's turn of the chat, answered by a picture."""

    processor: Any
    begin: str  # of an image

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "processor") | {"kind": type(self.processor), "template": self.processor.chat_template}

    def __call__(self, wording: str) -> str:
        chat = [{"role": "user", "content": [{"type": "text", "text": wording}]}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + self.begin


def template_of(name: str, processor: Any, tokenizer: Any) -> Chat:
    """Raises DivlensError for a processor without a chat template."""
    if not getattr(processor, "chat_template", None):
        raise DivlensError(f"{name} expects a processor with a chat template, got a {type(processor).__name__} without")
    return Chat(processor, tokenizer.boi_token)
