"""What aMUSEd and VQ-Diffusion share: how CLIP reads a wording, and how a `VQModel` of diffusers reads a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError, is_whole
from divlens.models.fingerprint import all_but
from divlens.models.loading import Options, check_lengths
from divlens.models.special_tokens import refuse_special_tokens

DECODED_AT_ONCE = 8  # pictures: a decoder's activations are far larger than its output


@dataclass(frozen=True)
class ClipText:
    """A CLIP tokenizer that reads `limit` tokens, begin and end included.

    `truncate`: a longer wording is cut instead of refused. `keep_end`: a cut wording still ends with the end token.
    """

    name: str
    tokenizer: Any
    limit: int
    truncate: bool
    keep_end: bool

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name", "truncate")  # a wording that is cut is refused otherwise: no draw differs

    def lengths(self, wordings: Sequence[str]) -> list[int]:
        """Tokens of each wording before any cut, begin and end included."""
        return [len(row) for row in self.tokenizer(list(wordings), verbose=False).input_ids]

    def ids(self, wordings: Sequence[str]) -> Int[Tensor, "wordings limit"]:
        """Token ids, padded to `limit`. Raises DivlensError for a longer wording, unless it may be cut, and for a
        special token in one."""
        refuse_special_tokens(self.name, self.tokenizer, wordings)
        check_lengths(self.name, wordings, self.lengths(wordings), self.limit, self.truncate)
        padded = self.tokenizer(
            list(wordings), padding="max_length", max_length=self.limit, truncation=self.keep_end, verbose=False
        )
        return torch.tensor([row[: self.limit] for row in padded.input_ids])


def clip_text_of(name: str, parts: Mapping[str, Any], options: Options, keep_end: bool) -> ClipText:
    """The `tokenizer` of `parts`, with the limit that it and the `text_encoder` share: 77 for CLIP."""
    limits = parts["tokenizer"].model_max_length, parts["text_encoder"].config.max_position_embeddings
    if not all(is_whole(limit) and limit > 2 for limit in limits):
        raise DivlensError(
            f"{name} expects whole numbers above 2 for the longest text, got {limits[0]!r} and {limits[1]!r}"
        )
    limit = min(limits)
    return ClipText(name, parts["tokenizer"], limit, options.truncate, keep_end)


def nearest_codes(vqvae: Any, pixels: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
    """The tokens of pictures, by a `VQModel` of diffusers, in the range of pixels that it knows."""
    latents = vqvae.encode(pixels.to(vqvae.device, vqvae.dtype)).latents
    return vqvae.quantize(latents)[2][2].view(len(pixels), *latents.shape[2:])
