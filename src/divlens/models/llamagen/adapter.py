"""LlamaGen, text to image (Sun et al., 2024, arXiv 2406.06525), under the one loop: `llamagen:FOLDER`.

Sampled as published: guidance 7.5, temperature 1, the 1000 most probable codes, 16 x 16 tokens (256 pixels) or 32 x 32
(512 pixels).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but
from divlens.models.guidance import branches_of, for_branches
from divlens.models.llamagen.captions import clean_caption, left_padded
from divlens.models.llamagen.checkpoints import gpt_from, vq_from
from divlens.models.llamagen.gpt import Cache, Gpt, Prefix, rotary_table
from divlens.models.llamagen.text import CaptionEncoder, text_from
from divlens.models.llamagen.vq import VqTokenizer
from divlens.models.loading import Options, check_lengths, find_files, needed, pictures_of
from divlens.models.open_domain import OpenDomain
from divlens.models.special_tokens import refuse_special_tokens
from divlens.paths import Raster
from divlens.types import View

STAGES = {512: "t2i_XL_stage2_512.pt", 256: "t2i_XL_stage1_256.pt"}  # pixels to file; the first is the default
TOKENIZER = "vq_ds16_t2i.pt"
TEXT_FOLDER = "flan-t5-xl"
TEXT_REPOSITORY = "google/flan-t5-xl"
SOURCE = (
    f"LlamaGen, text to image: {' or '.join(STAGES.values())}, and {TOKENIZER}, from the repository "
    f"peizesun/llamagen_t2i of the model hub; a folder {TEXT_FOLDER}, from its repository {TEXT_REPOSITORY}"
)
PICTURES_AT_ONCE = 8  # that are decoded: at 512 pixels each takes about a gigabyte for a moment

Step = Callable[[Tensor, Cache, int, Tensor], Tensor]


class RasterPredictor:
    """One position a call, in order, with a key-value cache of fixed size.

    Each distinct caption is read once, and so is the unconditional branch for each distinct length, since it sees no
    more of a caption than how long it is. With guidance the rows are the conditional ones, then the unconditional.
    """

    def __init__(
        self,
        name: str,
        gpt: Gpt,
        step: Step,
        table: Float[Tensor, "n two half"],
        conditions: Float[Tensor, "batch tokens d_and_mask"],
        guided: bool,
    ) -> None:
        self.name, self.step, self.table, self.guided = name, step, table, guided
        prefix, row = read_once(gpt, conditions, guided)
        self.first_logits = prefix.logits[row]
        self.cache = gpt.new_cache(prefix, row, slots=len(table) - 1)  # the last token is not read

    @reported("transformer")
    def __call__(self, view: View) -> tuple[Tensor, Tensor | None]:
        if view.first == 0:
            logits = self.first_logits
        else:
            before = view.first - 1
            ids = for_branches(view.tokens[:, before], self.guided)
            logits = self.step(ids, self.cache, before, self.table[before])
        return branches_of(logits.unsqueeze(1), self.guided)


def read_once(
    gpt: Gpt, conditions: Float[Tensor, "batch tokens d_and_mask"], guided: bool
) -> tuple[Prefix, Int[Tensor, " rows"]]:
    """What a batch's captions leave behind, each distinct one read once, and which of it each row of the batch has."""
    lengths = conditions[..., -1].count_nonzero(1)
    conditions = conditions[:, -int(lengths.max()) :]  # nothing before the longest caption
    captions, row = conditions.unique(dim=0, return_inverse=True)
    if guided:
        lengths, same_length = captions[..., -1].count_nonzero(1).unique(return_inverse=True)
        places = torch.arange(captions.shape[1], 0, -1, device=captions.device)
        mask = (places <= lengths[:, None]).to(captions.dtype)[..., None]
        absent = gpt.cls_embedding.uncond_embedding[-captions.shape[1] :] * mask
        row = torch.cat([row, len(captions) + same_length[row]])
        captions = torch.cat([captions, torch.cat([absent, mask], dim=-1)])
    return gpt.prefill(captions[..., :-1], captions[..., -1] > 0), row


@dataclass(frozen=True)
class LlamaGen(OpenDomain):
    """LlamaGen, ready for the loop. A condition is a caption's features, padded on the left, and their mask in the
    last column: (120, d + 1).

    step: `gpt.step`, compiled or not. side: of the square grid, in tokens. limit: tokens of a caption, at most; a
    longer one is refused, or cut when `truncate` says so.
    """

    name: str
    gpt: Gpt
    step: Step
    tokenizer: VqTokenizer
    text: CaptionEncoder
    side: int
    truncate: bool = False
    guidance: float = 7.5
    top_k: int = 1000

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name", "truncate")  # a wording that is cut is refused otherwise: no draw differs

    @property
    def codes(self) -> int:
        return self.gpt.sizes.codes

    @property
    def mask(self) -> int:
        return self.codes

    @property
    def grid(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def rule(self) -> Raster:
        return Raster(self.side**2)

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return self.tokenizer.quantize.directions()

    @property
    def limit(self) -> int:
        return self.gpt.sizes.caption_tokens

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        """Tokens of each wording once it is cleaned, with the end mark, before any cut."""
        return [len(self.text.ids(wording)) for wording in wordings]

    @reported("text encoder")
    def encode(self, wordings: Sequence[str]) -> Float[Tensor, "wordings tokens d_and_mask"]:
        """Raises DivlensError for a wording of more than `limit` tokens, unless it may be cut, for one of which the
        cleaning leaves nothing, and for one with a special token in what it leaves."""
        refuse_special_tokens(self.name, self.text.tokenizer, [clean_caption(wording) for wording in wordings])
        check_lengths(self.name, wordings, self.lengths(wordings), self.limit, self.truncate)
        dtype = self.gpt.output.weight.dtype
        features = [self.text.features(wording, self.limit).to(dtype) for wording in wordings]
        return torch.stack([left_padded(feature, self.limit) for feature in features])

    @reported("transformer")
    def predictor(self, conditions: Float[Tensor, "batch tokens d_and_mask"], guided: bool) -> RasterPredictor:
        table = rotary_table(self.side, self.gpt.sizes.head_width, conditions.device)
        return RasterPredictor(self.name, self.gpt, self.step, table, conditions, guided)

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        """Pictures in [0, 1], float32, on the CPU."""
        return pictures_of(self.name, tokens, self.tokenizer.decode, PICTURES_AT_ONCE, lambda pixels: (pixels + 1) / 2)

    def encode_pictures(self, pictures: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        """The tokens of pictures in [0, 1] whose sides are multiples of 16 pixels."""
        pixels = self.tokenizer.sizes.pixels
        height, width = pictures.shape[2:]
        if height % pixels or width % pixels:
            raise DivlensError(f"{self.name} expects sides that are multiples of {pixels} pixels, got {height}x{width}")
        device = self.tokenizer.quantize.embedding.weight.device
        some = pictures.float().split(PICTURES_AT_ONCE)
        return torch.cat([self.tokenizer.encode(part.to(device) * 2 - 1) for part in some])


def load(checkpoint: str | None, options: Options) -> LlamaGen:
    """LlamaGen from `checkpoint`: a folder, or a repository on the model hub, that holds the published files.

    These are t2i_XL_stage1_256.pt or t2i_XL_stage2_512.pt, and vq_ds16_t2i.pt. The text encoder flan-t5-xl is looked
    for in a folder of that name inside it; for a repository it comes from google/flan-t5-xl. `FOLDER#256` and
    `FOLDER#512` choose the picture's size; without one it is that of the file which is there, and 512, the published
    default, where both are or the hub is asked. A folder may hold a config.json whose `n_head` (heads of the
    transformer) and `grid` (tokens of a side) go before what is known of the published models.

    The picture tokenizer stays in float32 whatever the options' dtype, as published.
    Raises DivlensError for missing files, files that do not fit, and a pickle that is more than tensors.
    """
    if checkpoint is None:
        raise DivlensError(f"llamagen expects a folder or a repository after the colon, with {SOURCE}")
    needed("llamagen", "AutoTokenizer", "T5EncoderModel")  # before any file is looked for
    place, pixels = place_and_pixels(checkpoint)
    folder = Path(place) if Path(place).is_dir() else None
    names = [STAGES[pixels], TOKENIZER, *([] if folder is None else [TEXT_FOLDER])]
    files = find_files(place, names, SOURCE)
    config = config_of(folder)
    gpt = gpt_from(files[STAGES[pixels]], config.get("n_head"), options)
    # As published: the transformer may be in half precision, the pictures are always made in full.
    tokenizer = vq_from(files[TOKENIZER], replace(options, dtype="float32"))
    if tokenizer.sizes.codes != gpt.sizes.codes:
        raise DivlensError(
            f"{place}: expected a picture tokenizer of {gpt.sizes.codes} codes, as many as the transformer has, "
            f"found {tokenizer.sizes.codes} in {TOKENIZER}"
        )
    text = text_from(TEXT_REPOSITORY if folder is None else str(files[TEXT_FOLDER]), options)
    if text.width != gpt.sizes.caption_width:
        raise DivlensError(
            f"{place}: expected a text encoder of width {gpt.sizes.caption_width}, as the transformer was trained "
            f"with, found {text.width} in {TEXT_FOLDER}"
        )
    side = config.get("grid", pixels // tokenizer.sizes.pixels)
    return LlamaGen(f"llamagen:{checkpoint}", gpt, options.compiled(gpt.step), tokenizer, text, side, options.truncate)


def place_and_pixels(checkpoint: str) -> tuple[str, int]:
    """The folder or repository, and the size of picture that is asked for or there."""
    place, mark, size = checkpoint.rpartition("#")
    if not mark or Path(checkpoint).is_dir():
        there = [pixels for pixels, name in STAGES.items() if (Path(checkpoint) / name).exists()]
        return checkpoint, (there or list(STAGES))[0]
    if size not in map(str, STAGES):
        raise DivlensError(f"llamagen expects #256 or #512 after the folder, got {checkpoint!r}")
    return place, int(size)


def config_of(folder: Path | None) -> Mapping[str, int]:
    """`n_head` and `grid` of the folder's config.json, as far as they are there."""
    path = folder / "config.json" if folder is not None else None
    if path is None or not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DivlensError(f"{path} expects JSON: {error}") from error
    found = {key: content[key] for key in ("n_head", "grid") if key in content} if isinstance(content, dict) else {}
    for key, value in found.items():
        if type(value) is not int or value < 1:
            raise DivlensError(f"{path} expects {key} to be a whole number above 0, got {value!r}")
    return found
