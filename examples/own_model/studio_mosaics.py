"""Mosaics of 8 x 8 tiles: a masked generator that is small enough to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from divlens.errors import DivlensError
from divlens.models.loading import Options
from divlens.paths import ConfidenceUnmasking
from divlens.types import View

SIDE, PIXELS = 8, 8  # tiles of a mosaic, and pixels of a tile, along a side
COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "orange": (0.95, 0.60, 0.10),
    "yellow": (0.95, 0.90, 0.25),
    "green": (0.20, 0.65, 0.30),
    "blue": (0.15, 0.35, 0.80),
    "white": (0.95, 0.95, 0.95),
}
UNMASKING = ConfidenceUnmasking(steps=8, temperature=(2.0, 0.0))  # 8 steps; the path's noise fades to 0


@dataclass(frozen=True)
class Predictor:
    """The logit of a colour at a tile: the tile's own weight, 3 if the prompt names the colour, and `accord` for each
    neighbour that has it already."""

    weights: Tensor  # (tiles, codes)
    named: Tensor  # (batch, codes), 1 for a colour that the prompt names
    accord: float
    guided: bool

    def __call__(self, view: View) -> tuple[Tensor, Tensor | None]:
        tiles = one_hot(view.tokens, len(COLOURS) + 1)[..., :-1].float()  # the mask counts for no colour
        around = pad(tiles.view(-1, SIDE, SIDE, len(COLOURS)), (0, 0, 1, 1, 1, 1))
        neighbours = around[:, 2:, 1:-1] + around[:, :-2, 1:-1] + around[:, 1:-1, 2:] + around[:, 1:-1, :-2]
        without_prompt = self.weights + self.accord * neighbours.flatten(1, 2)
        return without_prompt + 3 * self.named[:, None], without_prompt if self.guided else None


@dataclass(frozen=True)
class Mosaics:
    accord: float = 1.0
    device: str = "cpu"
    codes: int = len(COLOURS)
    mask: int = len(COLOURS)  # the id of a tile that is still empty
    grid: tuple[int, int] = (SIDE, SIDE)
    rule: ConfidenceUnmasking = UNMASKING
    guidance: float = 1.5

    @property
    def name(self) -> str:
        return f"studio/mosaics:{self.accord:g}"

    @property
    def weights(self) -> Tensor:
        """(tiles, codes). They come of a seed; another model would load its network here."""
        return torch.randn(SIDE * SIDE, len(COLOURS), generator=torch.Generator().manual_seed(0)).to(self.device)

    def identity(self) -> Mapping[str, object]:
        """All on which draws and pictures depend, so that what is measured of this model can be kept."""
        return {
            "weights": self.weights,
            "accord": self.accord,
            "colours": list(COLOURS.values()),
            "rule": repr(self.rule),
            "guidance": self.guidance,
        }

    def encode(self, wordings: Sequence[str]) -> Tensor:
        """A row for each wording: which colours it names."""
        rows = [[float(colour in wording.lower().split()) for colour in COLOURS] for wording in wordings]
        return torch.tensor(rows, device=self.device)

    def predictor(self, conditions: Tensor, guided: bool) -> Predictor:
        return Predictor(self.weights, conditions, self.accord, guided)

    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures (batch, 3, 64, 64) in [0, 1], on the CPU."""
        tiles = torch.tensor(list(COLOURS.values()))[tokens.cpu()].movedim(-1, 1)
        return tiles.repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)

    def frequencies(self) -> None:
        """Not known: divlens draws the calibration prompts once, and keeps how often each code came out."""
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return [f"{one} and {other}" for one in COLOURS for other in COLOURS if one != other]


def load(checkpoint: str | None, options: Options) -> Mosaics:
    """What the entry point names. "studio/mosaics:2" has the checkpoint "2": here, how much neighbours count."""
    options.only_device("studio/mosaics")
    try:
        return Mosaics(float(checkpoint or 1), options.device)
    except ValueError:
        raise DivlensError(f"studio/mosaics expects a number after the colon, got {checkpoint!r}") from None
