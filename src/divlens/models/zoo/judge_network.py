"""The judge's network: every attribute of a picture at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from divlens.models.zoo.tokenizer import TOKEN_PIXELS, ResidualBlock


class JudgeNetwork(nn.Module):
    """What a picture shows: one convolutional network with a head per attribute.

    Images are float in [0, 1], shape (batch, 3, 8 p, 8 p); the result has logits (batch, values) for each attribute.
    `sizes`: how many values each attribute has.
    """

    def __init__(self, sizes: tuple[int, ...], token_pixels: int = TOKEN_PIXELS, width: int = 160) -> None:
        super().__init__()
        half = token_pixels // 2
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(half),
            nn.Conv2d(3 * half**2, 64, 3, padding=1),
            ResidualBlock(64),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, 96, 4, stride=2, padding=1),
            ResidualBlock(96),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 128, 4, stride=2, padding=1),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128 * 16, width),
            nn.SiLU(),
        )
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> list[Tensor]:
        features = self.trunk((images * 2 - 1).to(memory_format=torch.channels_last)).float()
        return [head(features) for head in self.heads]
