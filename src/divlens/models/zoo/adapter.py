"""The zoo under the one loop: `zoo/ar`, `zoo/mim`, `zoo/diffusion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.fingerprint import all_but
from divlens.models.guidance import branches_of, for_branches
from divlens.models.loading import CPU, Options, load_checked
from divlens.models.protocol import Predictor
from divlens.models.zoo.assets import packaged_folder, read_tensors
from divlens.models.zoo.lexicon import concepts, near, templates
from divlens.models.zoo.networks import CODES, GRID, MASK, POSITIONS, WORDS, Backbone, Sizes
from divlens.models.zoo.prompts import default_prompts, prompt_of
from divlens.models.zoo.text import Vocabulary
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster
from divlens.types import Prompt, View

Family = Literal["ar", "mim", "diffusion"]
Time = TypeVar("Time", float, Tensor)
REPLACED = 0.1  # at time t of the diffusion the share t * REPLACED of the unmasked tokens is random


def diffusion_schedule(time: Time) -> tuple[Time, Time]:
    """Cumulative (kept, masked) of the zoo's diffusion at time in [0, 1]: linear masking, few replaced tokens."""
    return (1 - time) * (1 - REPLACED * time), time


def diffusion_rule(steps: int) -> MaskReplaceDiffusion:
    """Linear masking with few replaced tokens; any number of steps strides exactly, for the chances are cumulative."""
    kept, masked = zip(*(diffusion_schedule(step / steps) for step in range(steps + 1)), strict=True)
    return MaskReplaceDiffusion(kept=kept, masked=masked, codes=CODES)


DEFAULTS: dict[Family, tuple[PathRule, float]] = {
    "ar": (Raster(POSITIONS), 1.5),
    "mim": (ConfidenceUnmasking(steps=16, temperature=(2.0, 0.0)), 1.5),
    "diffusion": (diffusion_rule(24), 1.5),
}


# Rows of a block, by what a network is given. A processor's kernels round a row in another way when it stands among
# fewer or more rows, so there the networks see blocks of one size only, the last filled up.
ENCODED, DECODED = 8, 8


def in_blocks(rows: Tensor, size: int) -> Sequence[Tensor]:
    """The rows in blocks of `size`, the last filled up with zeros; on an accelerator all at once, as they are."""
    if rows.device.type != "cpu":
        return [rows]
    return F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, -len(rows) % size)).split(size)


def side_by_side(results: Sequence[Callable[[], Tensor]]) -> Tensor:
    """The results one below the other, each made by one thread, as many at a time as torch may use threads.

    The products of a block are too small to be shared by threads, and a kernel that shares its work rounds in another
    way: so blocks side by side are faster, and the same on any number of threads.
    """
    threads, inferring = torch.get_num_threads(), torch.is_inference_mode_enabled()
    if threads == 1:
        return torch.cat([result() for result in results])

    def made(result: Callable[[], Tensor]) -> Tensor:
        with torch.inference_mode(inferring):  # a mode of a thread, as gradients are: the networks here want none
            return result()

    try:
        with ThreadPoolExecutor(min(threads, len(results)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(made, results)))
    finally:
        torch.set_num_threads(threads)  # what the threads set for themselves is what torch gives to every later thread


def block_by_block(network: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """What the network makes of each row, whatever rows stand beside it."""
    return side_by_side([partial(network, block) for block in in_blocks(rows, size)])[: len(rows)]


class GridBlock:
    """Bidirectional: logits at all positions."""

    rows = 4

    def __init__(self, backbone: Backbone, conditions: Float[Tensor, "rows d"]) -> None:
        self.backbone, self.conditions = backbone, conditions
        self.modulations = backbone.modulations(conditions)

    def logits(self, tokens: Int[Tensor, "rows n"], first: int) -> Float[Tensor, "rows n codes"]:
        return self.backbone.trunk(self.backbone.embed(tokens, self.conditions), self.modulations)


class RasterBlock:
    """Causal: one position a call, in order, with a key-value cache."""

    rows = 96

    def __init__(self, backbone: Backbone, conditions: Float[Tensor, "rows d"]) -> None:
        self.backbone, self.conditions = backbone, conditions
        self.modulations = backbone.modulations(conditions)
        self.caches = backbone.new_caches(len(conditions))

    def logits(self, tokens: Int[Tensor, "rows n"], first: int) -> Float[Tensor, "rows one codes"]:
        x = self.backbone.embed(tokens[:, max(first - 1, 0) : first], self.conditions, offset=first)
        return self.backbone.trunk(x, self.modulations, self.caches)


class BlockPredictor:
    """Both branches of guidance are rows like any other, so that neither it nor the batch changes what a row gives."""

    def __init__(
        self,
        kind: type[GridBlock] | type[RasterBlock],
        backbone: Backbone,
        conditions: Float[Tensor, "batch d"],
        guided: bool,
    ) -> None:
        self.guided, self.rows = guided, kind.rows
        conditions = both_branches(backbone, conditions) if guided else conditions
        self.blocks = [kind(backbone, block) for block in in_blocks(conditions, self.rows)]

    def __call__(self, view: View) -> tuple[Tensor, Tensor | None]:
        tokens = for_branches(view.tokens, self.guided)
        asked = zip(self.blocks, in_blocks(tokens, self.rows), strict=True)
        logits = side_by_side([partial(block.logits, part, view.first) for block, part in asked])
        return branches_of(logits[: len(tokens)], self.guided)


def both_branches(backbone: Backbone, conditions: Float[Tensor, "batch d"]) -> Float[Tensor, "two_batch d"]:
    """The conditions, then the unconditional one as many times."""
    empty = torch.zeros(1, WORDS, dtype=torch.long, device=conditions.device)
    return torch.cat([conditions, backbone.condition(empty).expand_as(conditions)])


@dataclass(frozen=True)
class ZooModel:
    """One of the zoo's generators, ready for the loop."""

    family: Family
    backbone: Backbone
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    rule: PathRule
    guidance: float
    shipped_frequencies: Float[Tensor, " codes"] | None
    name: str = ""
    codes: int = CODES
    mask: int = MASK
    grid: tuple[int, int] = field(default=(GRID, GRID))

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name")

    @property
    def paraphrase_templates(self) -> Sequence[str]:
        return templates()

    def unknown_words(self, wordings: Sequence[str]) -> Sequence[Sequence[str]]:
        return [self.vocabulary.unknown(wording) for wording in wordings]

    def near_words(self, words: Sequence[str]) -> Sequence[str]:
        return near(words, self.vocabulary.words)

    def encode(self, wordings: Sequence[str]) -> Float[Tensor, "wordings d"]:
        words = self.vocabulary.ids(wordings).to(self.backbone.places.device)
        return block_by_block(self.backbone.condition, words, ENCODED)

    def predictor(self, conditions: Tensor, guided: bool) -> Predictor:
        kind = RasterBlock if self.family == "ar" else GridBlock
        return BlockPredictor(kind, self.backbone, conditions, guided)

    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        return block_by_block(self.tokenizer.decode, tokens, DECODED).float().cpu().contiguous()

    def encode_pictures(self, pictures: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        return self.tokenizer.encode(pictures.to(self.backbone.places.device))

    def frequencies(self) -> Float[Tensor, " codes"] | None:
        return self.shipped_frequencies

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return self.tokenizer.codebook

    @property
    def judge(self) -> str:
        """The name of the judge that knows what its pictures show."""
        return "zoo"

    @property
    def recipe(self) -> str:
        """What `divlens.enhance` does unless it is told otherwise: what `divlens frontier` finds nearest to the law."""
        return "detailed"

    @property
    def own_prompts(self) -> Sequence[Prompt]:
        """Those that ship with the zoo, each with its paraphrases."""
        return default_prompts()

    def prompt_of(self, text: str) -> Prompt | None:
        return prompt_of(text)

    def calibration_prompts(self) -> Sequence[str]:
        return concepts()


@cache
def tokenizer_from(folder: Path | None, device: str) -> Tokenizer:
    """The tokenizer is the same object for all three families."""
    tokenizer = Tokenizer()
    place = (folder or packaged_folder()) / "tokenizer.safetensors"
    load_checked(tokenizer, read_tensors("tokenizer", folder), str(place))
    return tokenizer.to(memory_format=torch.channels_last).to(device).eval().requires_grad_(False)


def load(family: Family, checkpoint: str | None = None, options: Options = CPU) -> ZooModel:
    """The packaged generator, or one from the folder `checkpoint` that `divlens zoo train` wrote."""
    options.only_device(f"zoo/{family}")
    folder = Path(checkpoint) if checkpoint else None
    if folder is not None and not folder.is_dir():
        raise DivlensError(f"zoo/{family} expects a folder of weights after the colon, got {checkpoint}")
    state = read_tensors(family, folder)
    counts = state.pop("counts", None)
    vocabulary = Vocabulary()
    backbone = Backbone(Sizes(len(vocabulary), causal=family == "ar"))
    place = (folder or packaged_folder()) / f"{family}.safetensors"
    load_checked(backbone, state, str(place))
    rule, guidance = DEFAULTS[family]
    return ZooModel(
        family=family,
        backbone=options.place(backbone),
        tokenizer=tokenizer_from(folder, options.device),
        vocabulary=vocabulary,
        rule=rule,
        guidance=guidance,
        shipped_frequencies=None if counts is None else counts.double() / counts.sum(),
        name=f"zoo/{family}" + (f":{checkpoint}" if checkpoint else ""),
    )


def load_ar(checkpoint: str | None = None, options: Options = CPU) -> ZooModel:
    return load("ar", checkpoint, options)


def load_mim(checkpoint: str | None = None, options: Options = CPU) -> ZooModel:
    return load("mim", checkpoint, options)


def load_diffusion(checkpoint: str | None = None, options: Options = CPU) -> ZooModel:
    return load("diffusion", checkpoint, options)
