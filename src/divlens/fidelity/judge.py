"""The laboratory's ground truth: what a picture shows, and which of the existing pictures it is nearest to.

The concept is read by a network that was trained on real art only. The style of a *sample* is that of the nearest
existing picture of its concept: the tokenizer blurs what tells styles apart (the style network names 98% of unseen
real pictures right, but far fewer that went through the tokenizer); the nearest picture is exact there.
A sample that lies between two styles counts for none: see `CLEAR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.fidelity import Judged
from divlens.models.zoo.adapter import tokenizer_from
from divlens.models.zoo.assets import packaged_folder, read_lines, read_tensors
from divlens.models.zoo.judge_networks import ConceptReader, JudgeNetwork, StyleReader
from divlens.models.zoo.networks import GRID, IMAGE_SIZE, Tokenizer
from divlens.pictures import PictureError, checked_pictures

TOP = 5
# A style counts when its picture is this much nearer than that of any other style. The null control are even blends of
# two existing pictures of a concept: 19 in 20 of them lie above it (`divlens zoo evaluate` measures it anew).
CLEAR = 0.9


@dataclass(frozen=True)
class ZooJudge:
    """`existing[c, s]`: style s exists for concept c. `real`: the existing pictures as token grids, with concept and
    style of each; they are decoded when their concept first comes up."""

    network: JudgeNetwork
    tokenizer: Tokenizer
    concepts: Sequence[str]
    styles: Sequence[str]
    existing: np.ndarray
    real: dict[str, Tensor]
    decoded: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @no_type_check  # it checks its input itself; the shapes are for readers
    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Judged:
        """The five most likely concepts, best first; and the style of the existing picture of the most likely concept,
        or its mirror image, that is nearest, -1 when it is not clearly nearer than another style's. Pictures in
        [0, 1] at 64x64, or PictureError."""
        images = checked_pictures(images, "the judge's pictures", "batch")
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            got = f"{images.shape[2]} x {images.shape[3]}"
            raise PictureError(f"expected the judge's pictures of {IMAGE_SIZE} x {IMAGE_SIZE} pixels, got {got}")
        concept = torch.cat([self.network.concept(part) for part in images.split(256)]).topk(TOP, dim=1).indices
        style = torch.empty(len(images), dtype=torch.long)
        for shown in concept[:, 0].unique().tolist():
            rows = concept[:, 0] == shown
            style[rows] = self.nearest_style(images[rows], shown)
        return Judged(concept=concept, style=style)

    @torch.inference_mode()
    def nearest_style(self, images: Float[Tensor, "batch 3 h w"], concept: int) -> Int[Tensor, " batch"]:
        """The style whose picture of `concept` is nearest, by Euclidean distance of pixels; -1 when it is more than
        `CLEAR` times as far as the next style's."""
        pictures, styles = self.references(concept)
        distance = torch.cdist(images.flatten(1), pictures.flatten(1))
        table = torch.full((len(images), len(self.styles)), torch.inf)
        table = table.scatter_reduce(1, styles.expand(len(images), -1), distance, "amin")
        (first, second), best = table.topk(2, dim=1, largest=False).values.unbind(1), table.argmin(1)
        return best.masked_fill(first > CLEAR * second, -1)

    def references(self, concept: int) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
        """The existing pictures of a concept as the tokenizer draws them, and mirrored; the style of each."""
        if concept not in self.decoded:
            rows = self.real["concept"] == concept
            pictures = self.tokenizer.decode(self.real["tokens"][rows].long().view(-1, GRID, GRID))
            self.decoded[concept] = torch.cat([pictures, pictures.flip(3)]), self.real["style"][rows].repeat(2)
        return self.decoded[concept]

    @torch.inference_mode()
    def read_style(self, images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, " batch"]:
        """The style network's own reading, for real pictures."""
        return torch.cat([self.network.style(part) for part in images.split(256)]).argmax(1)


@cache
def load_judge(folder: Path | None = None) -> ZooJudge:
    """The packaged judge. Raises DivlensError when a file is missing or damaged."""
    folder = folder or packaged_folder()
    real = read_tensors("real", folder)
    concepts, styles = read_lines("concepts.txt", folder), read_lines("styles.txt", folder)
    existing = np.zeros((len(concepts), len(styles)), bool)
    existing[real["concept"].numpy(), real["style"].numpy()] = True
    state = read_tensors("judge", folder)
    network = JudgeNetwork(ConceptReader(len(concepts)), StyleReader(len(styles), state["style.palette"]))
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    return ZooJudge(network, tokenizer_from(folder, "cpu"), concepts, styles, existing, real)
