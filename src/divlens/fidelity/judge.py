"""The laboratory's ground truth: a network that names concept and style of a picture, trained on real art only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.fidelity import Judged
from divlens.models.zoo.assets import packaged_folder, read_lines, read_tensors
from divlens.models.zoo.networks import JudgeNetwork

TOP = 5


@dataclass(frozen=True)
class ZooJudge:
    """`existing[c, s]`: style s exists for concept c."""

    network: JudgeNetwork
    concepts: Sequence[str]
    styles: Sequence[str]
    existing: np.ndarray

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Judged:
        """The five most likely concepts, best first, and the style of each picture in [0, 1] at 64x64."""
        concept, style = zip(*(self.network(part) for part in images.split(256)), strict=True)
        return Judged(concept=torch.cat(concept).topk(TOP, dim=1).indices, style=torch.cat(style).argmax(1))


def load_judge(folder: Path | None = None) -> ZooJudge:
    """The packaged judge. Raises DivlensError when a file is missing or damaged."""
    folder = folder or packaged_folder()
    real = read_tensors("real", folder)
    concepts, styles = read_lines("concepts.txt", folder), read_lines("styles.txt", folder)
    existing = np.zeros((len(concepts), len(styles)), bool)
    existing[real["concept"].numpy(), real["style"].numpy()] = True
    network = JudgeNetwork(len(concepts), len(styles))
    network.load_state_dict(read_tensors("judge", folder))
    return ZooJudge(network.eval().requires_grad_(False), concepts, styles, existing)
