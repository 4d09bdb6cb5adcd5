"""The laboratory's ground truth: what a picture shows, one value of each attribute that captions can name.

The mirror is left out: it does not show in a symmetric sprite. The network was trained on composed pictures and on what
the tokenizer makes of them, never on what a generator draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.fidelity import Named
from divlens.lab.attributes import ATTRIBUTES, CONCEPT, Attribute, sizes_of
from divlens.lab.captions import NAMING
from divlens.models.loading import load_checked
from divlens.models.zoo.assets import packaged_folder, read_tensors
from divlens.models.zoo.judge_network import JudgeNetwork
from divlens.models.zoo.lexicon import asked_concept, concepts, meaning_of
from divlens.models.zoo.tokenizer import IMAGE_SIZE
from divlens.pictures import PictureError, checked_pictures
from divlens.types import Prompt

CONFUSION = "confusion."  # what the tables of its errors are called in the judge's file


@dataclass(frozen=True)
class ZooJudge:
    """`confusions`: see `fidelity.Erring`, measured on held-out pictures as the tokenizer draws them."""

    network: JudgeNetwork
    confusions: Mapping[str, Float[np.ndarray, "true read"]]

    @property
    def attributes(self) -> Sequence[Attribute]:
        return [ATTRIBUTES[place] for place in NAMING]

    def named(self, prompt: Prompt) -> Named | None:
        """All that a caption of the laboratory names; of any other text the concept that it asks for, and no more. A
        prompt's own `concept` counts for more than its text."""
        concept = asked_concept(prompt.text, prompt.concept, concepts())
        meaning = meaning_of(prompt.text)
        if meaning is not None and (prompt.concept is None or meaning.values[CONCEPT] == concept):
            return tuple(meaning.values[place] for place in NAMING)
        return None if concept is None else tuple(concept if place == CONCEPT else None for place in NAMING)

    @no_type_check  # it checks its input itself; the shapes are for readers
    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, "batch attributes"]:
        """Pictures in [0, 1] at 48x48, or PictureError."""
        images = checked_pictures(images, "the judge's pictures", "batch")
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            got = f"{images.shape[2]} x {images.shape[3]}"
            raise PictureError(f"expected the judge's pictures of {IMAGE_SIZE} x {IMAGE_SIZE} pixels, got {got}")
        return torch.cat([self.read(part) for part in images.split(256)])

    def read(self, images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, "batch attributes"]:
        logits = self.network(images)
        return torch.stack([logits[place].argmax(1) for place in NAMING], dim=1)


@cache
def load_judge(folder: Path | None = None) -> ZooJudge:
    """The packaged judge. Raises DivlensError when a file is missing or damaged."""
    state = read_tensors("judge", folder)
    tables = {name: state.pop(name) for name in list(state) if name.startswith(CONFUSION)}
    network = JudgeNetwork(sizes_of())
    load_checked(network, state, str((folder or packaged_folder()) / "judge.safetensors"))
    network.eval().requires_grad_(False)
    return ZooJudge(network, {name.removeprefix(CONFUSION): table.double().numpy() for name, table in tables.items()})
