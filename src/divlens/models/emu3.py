"""Emu3-Gen under the one loop (Wang et al., 2024, arXiv 2409.18869): next-token prediction over text and pictures.

`emu3:BAAI/Emu3-Gen-hf`, or a local folder in the same layout. A row of the picture ends with an end-of-line token,
which is forced: the predictor feeds it, and the grid and the logits hold codes only. Agrees with
`Emu3ForConditionalGeneration.generate` under the published recipe (a constraint on the tokens, a negative prompt,
guidance 3, top-k 2048) token for token when the noise source makes the reference's calls.

The reference guides log-probabilities over all words, this module logits over the codes. The two differ by a number
that is the same for all codes, so the probabilities of the codes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

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

PUBLISHED = Published("emu3", "Emu3ForConditionalGeneration", "Emu3Processor", "BAAI/Emu3-Gen-hf")
GUIDANCE, TOP_K = 3.0, 2048  # of the published recipe
AREA, PIXELS = 720 * 720, 8  # of a picture, and of a code's side
SUFFIX = " masterpiece, film grained, best quality."
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)
SPECIAL = ("bos_token", "boi_token", "image_wrapper_token")


@dataclass(frozen=True)
class Emu3Model(OpenDomain):
    """Emu3, ready for the loop. `dataclasses.replace(model, grid=(h, w))` draws pictures of another size.

    `suffix` follows every wording, and `negative` is the unconditional branch: both are part of the published recipe.
    """

    name: str
    network: Any
    step: Callable[..., Any]
    tokenizer: Any
    pixels: Pixels
    words: Int[Tensor, " codes"]  # the token that stands for each code
    end_of_line: int
    grid: tuple[int, int]
    truncate: bool
    guidance: float = GUIDANCE
    top_k: int = TOP_K
    suffix: str = SUFFIX
    negative: str = NEGATIVE

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name", "truncate")  # a wording that is cut is refused otherwise: no draw differs

    @property
    def codes(self) -> int:
        return len(self.words)

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
        return self.network.model.vqmodel.quantize.embedding.weight

    @property
    def room(self) -> int:
        """Tokens of a picture: its codes and the ends of its lines."""
        return self.grid[0] * (self.grid[1] + 1)

    @property
    def limit(self) -> int:
        return self.network.config.text_config.max_position_embeddings - self.room

    def reader(self, suffix: str) -> Reader:
        height, width = self.grid
        tokens = self.tokenizer
        start = f"{tokens.boi_token}{height}*{width}{tokens.image_wrapper_token}"
        return Reader(
            self.name,
            tokens,
            template=lambda wording: f"{tokens.bos_token}{wording}{suffix}{start}",
            limit=self.limit,
            truncate=self.truncate,
        )

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return self.reader(self.suffix).lengths(wordings)

    @reported("tokenizer")
    def encode(self, wordings: Sequence[str]) -> Int[Tensor, "wordings limit_plus_one"]:
        return self.reader(self.suffix).conditions(wordings).to(self.network.device)

    @reported("transformer")
    def predictor(self, conditions: Int[Tensor, "batch limit_plus_one"], guided: bool) -> RasterPredictor:
        if guided:
            negative = self.reader("").conditions([self.negative]).to(conditions.device)
            conditions = torch.cat([conditions, negative.expand_as(conditions)])
        text_model = self.network.model.text_model
        # Nothing follows the last code, so it and its end of line are never fed.
        places = torch.arange(self.room - 2, device=conditions.device)
        return RasterPredictor(
            self.name,
            CachedTransformer(text_model, self.step, Prompts.of(conditions), places),
            embed=self.embed,
            head=self.head(),
            guided=guided,
        )

    def embed(self, codes: Int[Tensor, " batch"], place: int) -> Float[Tensor, "batch tokens d"]:
        """The code at a place of the grid and, behind the last of a line, the end of the line."""
        words = self.words[codes][:, None]
        if (place + 1) % self.grid[1] == 0:
            words = torch.cat([words, torch.full_like(words, self.end_of_line)], dim=1)
        return self.network.get_input_embeddings()(words)

    def head(self) -> Callable[[Tensor], Tensor]:
        """Hidden states to the logits of the codes; those of the other words are never computed."""
        first, weight = int(self.words[0]), self.network.lm_head.weight
        in_order = torch.arange(first, first + self.codes, device=self.words.device)
        # As published, the words of the codes lie side by side: then the rows need not be copied.
        rows = weight[first : first + self.codes] if torch.equal(self.words, in_order) else weight[self.words]
        return lambda hidden: linear(hidden, rows)

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        return self.pixels.pictures(self.name, self.network.model.vqmodel.decode, tokens)


def load(checkpoint: str | None, options: Options) -> Emu3Model:
    """Emu3 from a folder or a hub repository in the published layout (Emu3-Gen-hf when it is None).

    Raises DivlensError as `Published.load` does, and for parts that do not fit each other.
    """
    return assembled(*PUBLISHED.load(checkpoint, options), options)


def from_model(model: Any, processor: Any, options: Options) -> Emu3Model:
    """Emu3 from a loaded `Emu3ForConditionalGeneration` and its processor or tokenizer.

    It is used as `Published.wrapped` says. Raises DivlensError as that does, and for a processor that does not fit.
    """
    return assembled(*PUBLISHED.wrapped(model), processor, options)


def assembled(name: str, network: Any, processor: Any, options: Options) -> Emu3Model:
    """The model of parts that are in place. Raises DivlensError for parts that do not fit each other."""
    tokenizer = tokenizer_of(name, processor, SPECIAL)
    words, end_of_line = vocabulary(name, network)
    model = Emu3Model(
        name=name,
        network=network,
        step=options.compiled(network.model.text_model),
        tokenizer=tokenizer,
        pixels=Pixels.of(processor),
        words=words.to(network.device),
        end_of_line=end_of_line,
        grid=published_grid(processor),
        truncate=options.truncate,
        guidance=guidance_of(network, GUIDANCE),
    )
    if model.limit < 1:
        height, width = model.grid
        positions = network.config.text_config.max_position_embeddings
        raise DivlensError(f"{name} expects room for a prompt and {height}x{width} codes, got {positions} positions")
    return model


def vocabulary(name: str, network: Any) -> tuple[Int[Tensor, " codes"], int]:
    """The token of each code, and that of the end of a line. Raises DivlensError when the vocabulary lacks one."""
    mapping, codes = network.vocabulary_mapping, network.config.vq_config.codebook_size
    check_equal(name, "codebook size", {"vq_config": codes, "vocabulary_map": len(mapping.image_tokens)})
    if mapping.eol_token_id is None:
        raise DivlensError(f"{name} expects an end-of-line token <|extra_200|> in its vocabulary_map, got none")
    return mapping.img2bpe_mapping_tensor.long(), mapping.eol_token_id


def published_grid(processor: Any) -> tuple[int, int]:
    """A square of the processor's default area, in codes: 90x90."""
    side = round(getattr(processor, "image_area", AREA) ** 0.5 / getattr(processor, "downsample_ratio", PIXELS))
    return side, side
