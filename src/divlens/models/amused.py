"""aMUSEd under the one loop (Patil et al., 2024): a U-ViT that fills masked tokens, CLIP text, a VQ decoder.

`amused:amused/amused-256`, `amused:amused/amused-512`, or a local folder in the same layout. Agrees with
`diffusers.AmusedPipeline` token for token when the noise source makes the reference's calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from divlens.errors import DivlensError
from divlens.models.clip_text import DECODED_AT_ONCE, ClipText, clip_text_of, nearest_codes
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but
from divlens.models.guidance import branches_of, for_branches
from divlens.models.loading import Options, check_equal, pictures_of
from divlens.models.open_domain import OpenDomain
from divlens.models.pipeline_parts import Layout, load_parts, packages_for, wrapped_parts
from divlens.paths import ConfidenceUnmasking
from divlens.types import View

PUBLISHED = "amused/amused-256"
OTHERS = ("AmusedImg2ImgPipeline", "AmusedInpaintPipeline")
STEPS, TEMPERATURE, GUIDANCE = 12, (2.0, 0.0), 10.0  # the defaults of AmusedPipeline.__call__
CROP, AESTHETIC_SCORE = (0, 0), 6  # the micro-conditioning it uses, besides the size in pixels


def layout() -> Layout:
    diffusers, transformers = packages_for("amused")
    parts = {
        "tokenizer": transformers.CLIPTokenizer,
        "text_encoder": transformers.CLIPTextModelWithProjection,
        "vqvae": diffusers.VQModel,
        "transformer": diffusers.UVit2DModel,
        "scheduler": diffusers.AmusedScheduler,
    }
    return Layout("amused", "AmusedPipeline", parts, PUBLISHED, OTHERS)


@dataclass(frozen=True)
class AmusedPredictor:
    """Logits at all positions; both branches of guidance in one pass, the unconditional first, as in the reference."""

    name: str
    network: Callable[..., Tensor]
    hidden: Float[Tensor, "rows words hidden"]
    pooled: Float[Tensor, "rows projection"]
    micro: Float[Tensor, "rows five"]
    grid: tuple[int, int]
    guided: bool

    @reported("transformer")
    def __call__(self, view: View) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
        ids = for_branches(view.tokens.view(-1, *self.grid), self.guided)
        logits = self.network(
            ids, encoder_hidden_states=self.hidden, pooled_text_emb=self.pooled, micro_conds=self.micro
        )
        return branches_of(logits.flatten(2).transpose(1, 2), self.guided, unconditional_first=True)


@dataclass(frozen=True)
class AmusedModel(OpenDomain):
    """aMUSEd, ready for the loop.

    A condition is (limit + 1, d): CLIP's penultimate hidden states and, as the last row, its pooled projection; d is
    the wider of the two, the rest is 0. `negative` is the text of the unconditional branch.
    """

    name: str
    text: ClipText
    text_encoder: Any
    vqvae: Any
    network: Callable[..., Tensor]
    widths: tuple[int, int]  # of the hidden states and of the projection
    codes: int
    mask: int
    grid: tuple[int, int]
    rule: ConfidenceUnmasking
    micro: Float[Tensor, " five"]
    guidance: float = GUIDANCE
    negative: str = ""

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name")

    @cached_property
    def unconditional(self) -> Float[Tensor, "rows d"]:
        return self.encode([self.negative])[0]

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return self.vqvae.quantize.embedding.weight

    @property
    def limit(self) -> int:
        return self.text.limit

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return self.text.lengths(wordings)

    @reported("text encoder")
    def encode(self, wordings: Sequence[str]) -> Float[Tensor, "wordings rows d"]:
        return conditions_of(self.text, self.text_encoder, wordings)

    @reported("transformer")
    def predictor(self, conditions: Float[Tensor, "batch rows d"], guided: bool) -> AmusedPredictor:
        if guided:
            conditions = torch.cat([self.unconditional.expand_as(conditions), conditions])
        hidden, projection = self.widths
        return AmusedPredictor(
            name=self.name,
            network=self.network,
            hidden=conditions[:, :-1, :hidden].contiguous(),
            pooled=conditions[:, -1, :projection].contiguous(),
            micro=self.micro.to(conditions.dtype).expand(len(conditions), -1),
            grid=self.grid,
            guided=guided,
        )

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        channels = self.vqvae.config.latent_channels

        def pictures(part: Tensor) -> Tensor:
            return self.vqvae.decode(part, force_not_quantize=True, shape=(*part.shape, channels)).sample

        return pictures_of(self.name, tokens, pictures, DECODED_AT_ONCE)

    @reported("encoder")
    def encode_pictures(self, pictures: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        return nearest_codes(self.vqvae, pictures)


@torch.no_grad()
def conditions_of(text: ClipText, text_encoder: Any, wordings: Sequence[str]) -> Float[Tensor, "wordings rows d"]:
    """Penultimate hidden states and, below them, the pooled projection, both padded to the wider of the two."""
    encoded = text_encoder(text.ids(wordings).to(text_encoder.device), output_hidden_states=True)
    hidden, pooled = encoded.hidden_states[-2], encoded.text_embeds[:, None]
    width = max(hidden.shape[-1], pooled.shape[-1])
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in (hidden, pooled)], dim=1)


def load(checkpoint: str | None, options: Options) -> AmusedModel:
    """aMUSEd from a folder or a hub repository in the published layout (amused/amused-256 when it is None).

    Raises DivlensError for missing packages, as `load_parts` does, and for parts that do not fit each other.
    """
    return assembled(*load_parts(checkpoint, layout(), options), options)


def from_pipeline(pipeline: Any, options: Options) -> AmusedModel:
    """aMUSEd from a loaded `diffusers.AmusedPipeline`, or one of `OTHERS`: text to image, whatever that is for.

    Its networks are used as `wrapped_parts` says. Raises DivlensError as that does, and for parts that do not fit
    together.
    """
    name, parts = wrapped_parts(pipeline, layout())
    vqvae = parts["vqvae"]
    if vqvae.dtype == torch.float16 and vqvae.config.force_upcast:
        parts["vqvae"] = copy.deepcopy(vqvae).float()
    return assembled(name, parts, options)


def assembled(name: str, parts: Mapping[str, Any], options: Options) -> AmusedModel:
    """The model of parts that are in place. Raises DivlensError for parts that do not fit each other."""
    transformer, vqvae, text_encoder = parts["transformer"], parts["vqvae"], parts["text_encoder"]
    own, encoder, mask = transformer.config, text_encoder.config, parts["scheduler"].config.mask_token_id
    check_equal(name, "codebook size", {"transformer": own.codebook_size, "vqvae": vqvae.config.num_vq_embeddings})
    check_equal(name, "text width", {"transformer": own.encoder_hidden_size, "text_encoder": encoder.hidden_size})
    check_equal(name, "pooled text width", {"transformer": own.cond_embed_dim, "text_encoder": encoder.projection_dim})
    if not isinstance(mask, int) or not own.codebook_size <= mask < own.vocab_size:
        raise DivlensError(
            f"{name} expects a mask id from {own.codebook_size}, the codebook's size, up to {own.vocab_size - 1}, the "
            f"last that the transformer embeds, got {mask}"
        )
    text = clip_text_of(name, parts, options, keep_end=True)
    pixels = own.sample_size * 2 ** (len(vqvae.config.block_out_channels) - 1)
    return AmusedModel(
        name=name,
        text=text,
        text_encoder=text_encoder,
        vqvae=vqvae,
        network=options.compiled(transformer),
        widths=(encoder.hidden_size, encoder.projection_dim),
        codes=own.codebook_size,
        mask=mask,
        grid=(own.sample_size, own.sample_size),
        rule=ConfidenceUnmasking(STEPS, TEMPERATURE, parts["scheduler"].config.masking_schedule),
        micro=torch.tensor([pixels, pixels, *CROP, AESTHETIC_SCORE], device=transformer.device, dtype=torch.float32),
    )
