"""GLM-Image under the one loop (Z.ai, 2026): a GLM that writes a preview and then a picture, and a DiT that decodes it.

`glm-image:zai-org/GLM-Image`, or a local folder in the same diffusers layout. The autoregressive network first writes
the codes of a small preview, about 16 x 16 of them, and then those of the picture, one for 32 x 32 pixels each. The
loop's grid holds both, preview first, for both are drawn. Agrees with `GlmImageForConditionalGeneration.generate`, as
`diffusers.GlmImagePipeline` calls it, token for token when the noise source makes the reference's calls. Only codes can
be drawn here; the reference may also draw one of the 128 other words of its vocabulary, and then its picture fails.

**The decoder has noise of its own**, a third stream beside path and execution: the DiT starts from Gaussian noise. Here
that noise is a function of the picture's codes and of `decoder_seed`. So the same codes are the same picture, whatever
prompt and sample they are of, and other codes have independent noise. The pipeline of diffusers 0.42 does the reverse:
with `num_images_per_prompt` it draws the codes of a prompt once, and its pictures differ in the decoder's noise alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from divlens.errors import DivlensError, is_number, is_whole
from divlens.models.causal import CachedTransformer, Prompts, RasterPredictor, Reader, tokenizer_of
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but
from divlens.models.glm_image_decoder import DiffusionDecoder, decoder_of
from divlens.models.loading import Options, check_equal, pictures_of
from divlens.models.open_domain import OpenDomain
from divlens.models.pipeline_parts import Layout, load_parts, packages_for, wrapped_parts
from divlens.noise import decoder_normal, stream_key
from divlens.paths import Raster

PUBLISHED = "zai-org/GLM-Image"
SIZE = (32, 32)  # codes of a picture, of 1024 x 1024 pixels: the pipeline's default_sample_size
PREVIEW_SIDE = 16  # codes of the preview of a square picture
GUIDANCE = 1.0  # of the codes: the pipeline guides the decoder only
LONGEST = 2048  # tokens of a prompt that are read here; the network could read more than a hundred thousand
DECODED_AT_ONCE = 4  # pictures: the decoder's activations are far larger than its output
SPECIAL = ("bos_token", "grid_bos_token", "grid_eos_token")
# What `generate` of transformers takes where a generation config does not say.
USUAL_LAW = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}


def layout() -> Layout:
    """Raises DivlensError for packages that are missing or do not know GLM-Image yet."""
    diffusers, transformers = packages_for("glm-image")
    try:
        parts = {
            "tokenizer": transformers.ByT5Tokenizer,
            "processor": transformers.GlmImageProcessor,
            "text_encoder": transformers.T5EncoderModel,
            "vision_language_encoder": transformers.GlmImageForConditionalGeneration,
            "vae": diffusers.AutoencoderKL,
            "transformer": diffusers.GlmImageTransformer2DModel,
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler,
        }
    except AttributeError as error:
        raise DivlensError(f"glm-image needs newer packages diffusers and transformers ({error})") from error
    return Layout("glm-image", "GlmImagePipeline", parts, PUBLISHED)


def preview_of(size: tuple[int, int]) -> tuple[int, int]:
    """The codes (h, w) of the preview of a picture of `size` codes, by the rule of the published processor."""
    height, width = size
    if height < 1 or width < 1:
        raise DivlensError(f"glm-image expects a picture of at least 1x1 codes, got {height}x{width}")
    ratio = height / width
    preview = int(math.sqrt(ratio) * PREVIEW_SIDE), int(math.sqrt(1 / ratio) * PREVIEW_SIDE)
    if min(preview) < 1:
        raise DivlensError(f"glm-image expects a picture that is less long than wide, got {height}x{width} codes")
    return preview


@dataclass(frozen=True)
class Request:
    """A wording as a user's turn of the chat, then the sizes of picture and preview, and the begin of a picture."""

    processor: Any
    sizes: str

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "processor") | {"kind": type(self.processor), "template": self.processor.chat_template}

    def __call__(self, wording: str) -> str:
        chat = [{"role": "user", "content": [{"type": "text", "text": wording}]}]
        return self.processor.apply_chat_template(chat, tokenize=False) + self.sizes


@dataclass(frozen=True)
class GlmImageModel(OpenDomain):
    """GLM-Image, ready for the loop. `of_size` draws pictures of another size.

    size, preview: (h, w) in codes. The published law of a code is `temperature`, then `top_p`, as the checkpoint's
    generation config has them; its guidance is 1, off. With another one the unconditional branch is an empty wording.
    decoder_seed: of the decoder's noise, see above.
    """

    name: str
    language_model: Any
    step: Callable[..., Any]
    head: Any
    processor: Any
    decoder: DiffusionDecoder
    codes: int
    size: tuple[int, int]
    preview: tuple[int, int]
    truncate: bool
    temperature: float
    top_p: float
    top_k: int
    guidance: float = GUIDANCE
    decoder_seed: int = 0

    def identity(self) -> Mapping[str, object]:
        # A wording that is cut is refused otherwise: no draw differs. The processor is what the reader makes of it.
        return all_but(self, "name", "truncate", "processor") | {"reader": self.reader}

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.dtype

    @property
    def mask(self) -> int:
        return self.codes

    @property
    def previewed(self) -> int:
        """How many codes the preview has."""
        return self.preview[0] * self.preview[1]

    @property
    def grid(self) -> tuple[int, int]:
        """The preview's codes and then the picture's, in lines as long as the picture's where the preview fills whole
        ones, as it does for a square picture of 4, 8, 16, 32 or 64 codes a side; else in one line."""
        height, width = self.size
        if self.previewed % width == 0:
            return self.previewed // width + height, width
        return 1, self.previewed + height * width

    @property
    def rule(self) -> Raster:
        return Raster(self.grid[0] * self.grid[1])

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return self.decoder.transformer.prior_token_embedding.weight

    @property
    def limit(self) -> int:
        return min(LONGEST, self.language_model.config.max_position_embeddings - self.rule.positions)

    @property
    def reader(self) -> Reader:
        tokenizer = tokenizer_of(self.name, self.processor, SPECIAL)
        begin, end = tokenizer.grid_bos_token, tokenizer.grid_eos_token
        sizes = "".join(f"{begin}{height} {width}{end}" for height, width in (self.size, self.preview))
        request = Request(self.processor, sizes + tokenizer.bos_token)
        return Reader(self.name, tokenizer, request, self.limit, self.truncate)

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return self.reader.lengths(wordings)

    @reported("tokenizer")
    def encode(self, wordings: Sequence[str]) -> Int[Tensor, "wordings limit_plus_one"]:
        return self.reader.conditions(wordings).to(self.language_model.device)

    @reported("transformer")
    def predictor(self, conditions: Int[Tensor, "batch limit_plus_one"], guided: bool) -> RasterPredictor:
        if guided:
            conditions = torch.cat([conditions, self.encode([""]).expand_as(conditions)])
        weight = self.head.weight[: self.codes]
        embed = self.language_model.get_input_embeddings()
        return RasterPredictor(
            self.name,
            CachedTransformer(self.language_model, self.step, Prompts.of(conditions), places=self.places()),
            embed=lambda codes, _: embed(codes[:, None]),
            head=lambda hidden: linear(hidden, weight),
            guided=guided,
        )

    def places(self) -> Int[Tensor, "three room"]:
        """Where each code stands behind the prompt, for the rotary embedding: time, row and column. The picture begins
        behind the longer side of the preview. Nothing follows the last code, so it is never fed."""
        parts, begin = [], 0
        for height, width in (self.preview, self.size):
            row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            parts.append(begin + torch.stack([torch.zeros_like(row), row, column]).flatten(1))
            begin += max(height, width)
        return torch.cat(parts, dim=1)[:, :-1].to(self.language_model.device)

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        drawn = self.pictures_codes(tokens).cpu().tolist()
        return self.decode_under(tokens, [stream_key(self.decoder_seed, f"decoder {json.dumps(one)}") for one in drawn])

    @reported("decoder")
    def decode_under(self, tokens: Int[Tensor, "batch h w"], keys: Sequence[int]) -> Float[Tensor, "batch 3 H W"]:
        """Pictures of token grids under other noise of the decoder: that of a key, of 96 bits, for each grid."""
        shape, numbers = self.decoder.shape(self.size), iter(keys)

        def pictures(part: Tensor) -> Tensor:
            own = [next(numbers) for _ in part]
            noise = decoder_normal(own, math.prod(shape)).float().view(-1, *shape)
            return self.decoder.pictures(self.pictures_codes(part), noise)

        return pictures_of(self.name, tokens, pictures, DECODED_AT_ONCE, lambda pixels: pixels / 2 + 0.5)

    def pictures_codes(self, tokens: Int[Tensor, "batch h w"]) -> Int[Tensor, "batch height width"]:
        """Without those of the preview, which the decoder is not shown."""
        return tokens.flatten(1)[:, self.previewed :].reshape(-1, *self.size)


def of_size(model: GlmImageModel, size: tuple[int, int]) -> GlmImageModel:
    """The model for pictures of another size (h, w) in codes, each of 32 x 32 pixels, with the preview that belongs to
    it. Raises DivlensError for a size that has none, or that leaves no room for a prompt."""
    return with_room(replace(model, size=size, preview=preview_of(size)))


def with_room(model: GlmImageModel) -> GlmImageModel:
    """The model itself. Raises DivlensError when it could read no prompt."""
    if model.limit < 1:
        positions = model.language_model.config.max_position_embeddings
        raise DivlensError(
            f"{model.name} expects room for a prompt and {model.rule.positions} codes, got {positions} positions"
        )
    return model


def load(checkpoint: str | None, options: Options) -> GlmImageModel:
    """GLM-Image from a folder or a hub repository in the published layout (zai-org/GLM-Image when it is None).

    Raises DivlensError for missing packages, as `load_parts` does, and for parts that do not fit each other.
    """
    return assembled(*load_parts(checkpoint, layout(), options), options)


def from_pipeline(pipeline: Any, options: Options) -> GlmImageModel:
    """GLM-Image from a loaded `diffusers.GlmImagePipeline`.

    Its networks are used as `wrapped_parts` says. Raises DivlensError as that does, and for parts that do not fit
    together.
    """
    return assembled(*wrapped_parts(pipeline, layout()), options)


def assembled(name: str, parts: Mapping[str, Any], options: Options) -> GlmImageModel:
    """The model of parts that are in place. Raises DivlensError for parts that do not fit each other."""
    network, transformer = parts["vision_language_encoder"], parts["transformer"]
    config = network.config
    codes = config.vq_config.num_embeddings
    decoded = transformer.config.prior_vq_quantizer_codebook_size
    check_equal(name, "codebook size", {"vision_language_encoder": codes, "transformer": decoded})
    if config.text_config.vision_vocab_size < codes:
        raise DivlensError(
            f"{name} expects a word for each of {codes} codes, got {config.text_config.vision_vocab_size} words"
        )
    tokenizer_of(name, parts["processor"], SPECIAL)
    if not getattr(parts["processor"], "chat_template", None):
        raise DivlensError(f"{name} expects a processor with a chat template, got one without")
    language_model = network.model.language_model
    return with_room(
        GlmImageModel(
            name=name,
            language_model=language_model,
            step=options.compiled(language_model),
            head=network.lm_head,
            processor=parts["processor"],
            decoder=decoder_of(name, parts),
            codes=codes,
            size=SIZE,
            preview=preview_of(SIZE),
            truncate=options.truncate,
            **published_law(name, network.generation_config),
        )
    )


def published_law(name: str, generation: Any) -> dict[str, Any]:
    """Temperature, top-p and top-k of `generate`, as the generation config has them. Raises DivlensError for others."""
    own = {key: getattr(generation, key, None) for key in USUAL_LAW}
    found = {key: USUAL_LAW[key] if value is None else value for key, value in own.items()}
    temperature, top_p, top_k = found.values()
    if not (is_number(temperature) and temperature > 0 and is_number(top_p) and 0 < top_p <= 1):
        got = f"{temperature!r} and {top_p!r}"
        raise DivlensError(f"{name} expects a temperature above 0 and a top_p in (0, 1], got {got}")
    if not is_whole(top_k) or top_k < 0:
        raise DivlensError(f"{name} expects a top_k that is a whole number of at least 0, got {top_k!r}")
    return {"temperature": float(temperature), "top_p": float(top_p), "top_k": int(top_k)}
