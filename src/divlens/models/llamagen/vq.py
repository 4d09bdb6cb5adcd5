"""LlamaGen's image tokenizer (Sun et al., 2024, arXiv 2406.06525; after VQGAN, Esser et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of every group norm
NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class VqSizes:
    """channels: of the encoder's levels, each half as fine as the one before; the decoder has them in reverse.

    blocks: of a level in the encoder; the decoder has one more. width: between the two halves. codes, code_width: of
    the codebook.
    """

    base: int
    channels: tuple[int, ...]
    blocks: int
    width: int
    codes: int
    code_width: int

    @property
    def pixels(self) -> int:
        """Side of the square of pixels that one token stands for."""
        return 2 ** (len(self.channels) - 1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=NORM_EPSILON)


def conv(before: int, after: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2)


class Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(before), conv(before, after)
        self.norm2, self.conv2 = norm(after), conv(after, after)
        self.nin_shortcut = conv(before, after, 1) if before != after else None

    def forward(self, x: Float[Tensor, "batch before h w"]) -> Float[Tensor, "batch after h w"]:
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class SpatialAttention(nn.Module):
    """One head over all places of the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).mT for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended.mT.unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h2 w2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the weights were trained


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, with attention after each at the coarsest, and the way to the next."""

    def __init__(self, before: int, after: int, blocks: int, attends: bool) -> None:
        super().__init__()
        self.res = nn.ModuleList(Residual(before if i == 0 else after, after) for i in range(blocks))
        self.attn = nn.ModuleList(SpatialAttention(after) for _ in range(blocks if attends else 0))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Float[Tensor, "batch before h w"]) -> Float[Tensor, "batch after h2 w2"]:
        for i, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for change in (self.downsample, self.upsample):
            x = x if change is None else change(x)
        return x


def middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(channels, channels), SpatialAttention(channels), Residual(channels, channels)])


class Encoder(nn.Module):
    def __init__(self, sizes: VqSizes) -> None:
        super().__init__()
        last = len(sizes.channels) - 1
        self.conv_in = conv(3, sizes.base)
        self.conv_blocks = nn.ModuleList()
        before = sizes.base
        for i, after in enumerate(sizes.channels):
            level = Level(before, after, sizes.blocks, attends=i == last)
            level.downsample = Downsample(after) if i < last else None
            self.conv_blocks.append(level)
            before = after
        self.mid = middle(before)
        self.norm_out, self.conv_out = norm(before), conv(before, sizes.width)

    def forward(self, pixels: Float[Tensor, "batch 3 H W"]) -> Float[Tensor, "batch width h w"]:
        x = self.conv_in(pixels)
        for part in (*self.conv_blocks, *self.mid):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, sizes: VqSizes) -> None:
        super().__init__()
        before = sizes.channels[-1]
        self.conv_in = conv(sizes.width, before)
        self.mid = middle(before)
        self.conv_blocks = nn.ModuleList()
        for i in reversed(range(len(sizes.channels))):
            after = sizes.channels[i]
            level = Level(before, after, sizes.blocks + 1, attends=i == len(sizes.channels) - 1)
            level.upsample = Upsample(after) if i > 0 else None
            self.conv_blocks.append(level)
            before = after
        self.norm_out, self.conv_out = norm(before), conv(before, 3)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch 3 H W"]:
        x = self.conv_in(x)
        for part in (*self.mid, *self.conv_blocks):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    def __init__(self, sizes: VqSizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.codes, sizes.code_width)

    def directions(self) -> Float[Tensor, "codes d"]:
        """Codes are compared, and decoded, by their direction alone."""
        return F.normalize(self.embedding.weight, dim=-1)


class VqTokenizer(nn.Module):
    """Pictures to tokens and back. The names of the parameters are those of the published checkpoint."""

    def __init__(self, sizes: VqSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder, self.decoder = Encoder(sizes), Decoder(sizes)
        self.quantize = Codebook(sizes)
        self.quant_conv = conv(sizes.width, sizes.code_width, 1)
        self.post_quant_conv = conv(sizes.code_width, sizes.width, 1)

    def encode(self, pixels: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        """The nearest code at each place; pixels in [-1, 1]."""
        found = F.normalize(self.quant_conv(self.encoder(pixels)).movedim(1, -1), dim=-1)
        codes = self.quantize.directions()
        # The distance of the reference, term by term, so that near ties fall the same way.
        distances = found.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * found @ codes.T
        return distances.argmin(-1)

    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        """Pixels, in [-1, 1] but for overshoot."""
        return self.decoder(self.post_quant_conv(self.quantize.directions()[tokens].movedim(-1, 1)))
