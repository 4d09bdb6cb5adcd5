"""The tokenizer of EmojiScenes: 48x48 pictures as 8x8 tokens.

The encoder sees the neighbouring tokens only, so that a sprite at another place gives the same tokens elsewhere; most
of the work is in the decoder, at low resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from divlens.models.zoo.networks import CODES, GRID, rms_norm

TOKEN_PIXELS = 6
IMAGE_SIZE = GRID * TOKEN_PIXELS


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection; group normalisation, SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class PointwiseBlock(nn.Module):
    """A residual multilayer perceptron at each position by itself; channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        return x + self.narrow(F.silu(self.widen(rms_norm(x))))


class Tokenizer(nn.Module):
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
        self.codebook = nn.Buffer(torch.randn(codes, code_channels))

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch gh gw c"]:
        """The encoder's output before quantisation."""
        x = (images * 2 - 1).to(memory_format=torch.channels_last)
        return self.name(self.look(x).permute(0, 2, 3, 1))

    def quantise(
        self, features: Float[Tensor, "*shape c"], allowed: Bool[Tensor, " codes"] | None = None
    ) -> Int[Tensor, "*shape"]:
        """Nearest code, or nearest of those that are `allowed`, by Euclidean distance in float32."""
        flat = features.float().reshape(-1, features.shape[-1])
        distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        if allowed is not None:
            distance = distance.masked_fill(~allowed, torch.inf)
        return distance.argmin(1).reshape(features.shape[:-1])

    def encode(
        self, images: Float[Tensor, "batch 3 h w"], allowed: Bool[Tensor, " codes"] | None = None
    ) -> Int[Tensor, "batch gh gw"]:
        return self.quantise(self.features(images), allowed)

    def decode_features(self, codes: Float[Tensor, "batch gh gw c"]) -> Float[Tensor, "batch 3 h w"]:
        """Codebook vectors to pictures, not clipped (training needs the gradient outside [0, 1])."""
        x = codes.permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
        return (self.decoder(x) + 1) / 2

    def decode(self, tokens: Int[Tensor, "batch gh gw"]) -> Float[Tensor, "batch 3 h w"]:
        return self.decode_features(self.codebook[tokens]).clamp(0, 1)
