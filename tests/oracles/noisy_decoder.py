"""Toys whose decoder draws noise of its own: one of which the parts are known, and one of any sampler."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from divlens.models.toy import ToyModel
from divlens.noise import decoder_normal, stream_key
from divlens.paths import Raster
from divlens.types import View

# How far the sign of each source takes a grey up or down.
EFFECTS = {"wording": 0.05, "execution": 0.1, "decoder": 0.08, "wording:decoder": 0.04, "execution:decoder": 0.06}
SIDE = 32


@dataclass(frozen=True)
class Signs:
    """A grey of three signs, each one of -1 and 1 at even chances: that of the first token, which is drawn; that of the
    decoder's noise; and that of the number of words, which the second token holds."""

    name: str = "studio/signs"
    codes: int = 2
    mask: int = 2
    grid: tuple[int, int] = (1, 2)
    guidance: float = 1.0

    @property
    def rule(self) -> Raster:
        return Raster(2)

    def identity(self) -> dict[str, object]:
        return {"effects": dict(EFFECTS)}

    def encode(self, wordings: Sequence[str]) -> Tensor:
        return torch.tensor([[len(wording.split()) % 2] for wording in wordings])

    def predictor(self, conditions: Tensor, guided: bool):
        drawn = torch.zeros(len(conditions), 2)
        told = torch.nn.functional.one_hot(conditions[:, 0], 2) * 100.0
        logits = torch.stack([drawn, told], dim=1)

        def call(view: View):
            return logits[:, view.first : view.first + view.count], None

        return call

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_under(tokens, [stream_key(0, str(one)) for one in tokens.tolist()])

    def decode_under(self, tokens: Tensor, keys: Sequence[int]) -> Tensor:
        execution, wording = (2.0 * tokens[:, 0, place].cpu() - 1 for place in (0, 1))
        decoder = decoder_normal(keys, 1)[:, 0].sign()
        signs = {"execution": execution, "decoder": decoder, "wording": wording}
        grey = torch.full((len(tokens),), 0.5, dtype=torch.float64)
        for source, effect in EFFECTS.items():
            grey += effect * torch.stack([signs[factor] for factor in source.split(":")]).prod(0)
        return grey.float()[:, None, None, None].repeat(1, 3, SIDE, SIDE)

    def frequencies(self) -> None:
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return ("a",)


def grey(images: Tensor) -> Tensor:
    """The one number of each picture of `Signs`."""
    return images[:, 0, :1, 0].double()


@dataclass(frozen=True)
class NoisyToy(ToyModel):
    """A toy whose pictures are dimmed by the decoder's noise, each colour of each position by its own."""

    def decode_under(self, tokens: Tensor, keys: Sequence[int]) -> Tensor:
        height, width = self.grid
        dimmed = torch.sigmoid(decoder_normal(keys, 3 * height * width)).view(-1, 3, height, width)
        pictures = self.decode(tokens)
        patch = pictures.shape[-1] // width
        return pictures * dimmed.float().repeat_interleave(patch, 2).repeat_interleave(patch, 3)
