"""The tokenizer of EmojiScenes: 48x48 pictures as 8x8 tokens.

The encoder sees the neighbouring tokens only, so that a sprite at another place gives the same tokens elsewhere; most
of the work is in the decoder, at low resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from divlens.models.zoo.networks import Codec, ResidualBlock, rms_norm

TOKEN_PIXELS = 6
CODES = 1024


class PointwiseBlock(nn.Module):
    """A residual multilayer perceptron at each position by itself; channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        return x + self.narrow(F.silu(self.widen(rms_norm(x))))


class SceneTokenizer(Codec):
    """A VQ-VAE (van den Oord et al., 2017) with 8x8 tokens.

    Images are float in [0, 1], shape (batch, 3, 8 p, 8 p) with p pixels along a token, an even number; tokens int64 in
    [0, codes), shape (batch, 8, 8).

    The code of a token depends on its own pixels and those of its eight neighbours and on nothing else, and beyond the
    border on the border's pixels repeated. A sprite has a transparent edge, so these are background: the same sprite
    at another place is exactly the same tokens at another place.
    """

    def __init__(
        self,
        token_pixels: int = TOKEN_PIXELS,
        codes: int = CODES,
        code_channels: int = 16,
        widths: tuple[int, int, int] = (224, 96, 24),
    ) -> None:
        super().__init__()
        coarse, middle, fine = widths
        half = token_pixels // 2
        self.look = nn.Sequential(
            nn.ReplicationPad2d(token_pixels),
            nn.PixelUnshuffle(half),
            nn.Conv2d(3 * half**2, middle, 3),
            nn.SiLU(),
            nn.Conv2d(middle, coarse, 4, stride=2),
        )
        self.name = nn.Sequential(PointwiseBlock(coarse), PointwiseBlock(coarse), nn.Linear(coarse, code_channels))
        self.decoder = nn.Sequential(
            nn.Conv2d(code_channels, coarse, 3, padding=1),
            ResidualBlock(coarse),
            ResidualBlock(coarse),
            ResidualBlock(coarse),
            nn.Conv2d(coarse, 4 * middle, 1),
            nn.PixelShuffle(2),
            ResidualBlock(middle),
            ResidualBlock(middle),
            nn.GroupNorm(8, middle),
            nn.SiLU(),
            nn.Conv2d(middle, half**2 * fine, 3, padding=1),
            nn.PixelShuffle(half),
            nn.SiLU(),
            nn.Conv2d(fine, 3, 3, padding=1),
        )
        self.register_buffer("codebook", torch.randn(codes, code_channels))

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch gh gw c"]:
        """The encoder's output before quantisation."""
        x = (images * 2 - 1).to(memory_format=torch.channels_last)
        return self.name(self.look(x).permute(0, 2, 3, 1))


class SceneJudge(nn.Module):
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
