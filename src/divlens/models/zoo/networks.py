"""The networks of the built-in zoo: one tokenizer, one text encoder, one backbone.

The three families differ only in `Backbone.causal` and in how a sampler asks it; everything else is shared, so
that a difference between `zoo/ar`, `zoo/mim` and `zoo/diffusion` is a difference between families.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

IMAGE_SIZE = 64
GRID = 8
POSITIONS = GRID * GRID
CODES = 512
MASK = CODES  # the input id of a position that holds no token yet
WORDS = 24  # the longest wording, in words


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


class Codec(nn.Module, ABC):
    """A VQ-VAE (van den Oord et al., 2017) but for its networks: pictures to tokens, the nearest codes, and back."""

    codebook: Tensor
    decoder: nn.Module

    @abstractmethod
    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch gh gw c"]:
        """The encoder's output before quantisation."""

    def quantise(self, features: Float[Tensor, "*shape c"]) -> Int[Tensor, "*shape"]:
        """Nearest code, by Euclidean distance in float32."""
        flat = features.float().reshape(-1, features.shape[-1])
        distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return distance.argmin(1).reshape(features.shape[:-1])

    def encode(self, images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, "batch gh gw"]:
        return self.quantise(self.features(images))

    def decode_features(self, codes: Float[Tensor, "batch gh gw c"]) -> Float[Tensor, "batch 3 h w"]:
        """Codebook vectors to pictures, not clipped (training needs the gradient outside [0, 1])."""
        x = codes.permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
        return (self.decoder(x) + 1) / 2

    def decode(self, tokens: Int[Tensor, "batch gh gw"]) -> Float[Tensor, "batch 3 h w"]:
        return self.decode_features(self.codebook[tokens]).clamp(0, 1)


class Tokenizer(Codec):
    """A VQ-VAE (van den Oord et al., 2017): 64x64 pictures to 8x8 tokens of 512 codes and back.

    Images are float in [0, 1], shape (batch, 3, 64, 64); tokens int64 in [0, 512), shape (batch, 8, 8).
    """

    def __init__(self, code_channels: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 96, 3, padding=1),
            ResidualBlock(96),
            nn.Conv2d(96, 192, 4, stride=2, padding=1),
            ResidualBlock(192),
            nn.GroupNorm(8, 192),
            nn.SiLU(),
            nn.Conv2d(192, code_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_channels, 192, 3, padding=1),
            ResidualBlock(192),
            ResidualBlock(192),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(192, 96, 3, padding=1),
            ResidualBlock(96),
            ResidualBlock(96),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(96, 48, 3, padding=1),
            ResidualBlock(48),
            nn.GroupNorm(8, 48),
            nn.SiLU(),
            nn.Conv2d(48, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("codebook", torch.randn(CODES, code_channels))

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch gh gw c"]:
        """The encoder's output before quantisation."""
        x = (images * 2 - 1).to(memory_format=torch.channels_last)
        return self.encoder(x).permute(0, 2, 3, 1)


def rms_norm(x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    return F.rms_norm(x, (x.shape[-1],))


@dataclass(frozen=True)
class Rotations:
    """By which angles queries and keys are turned: cosines and sines, each (n, half of a head's width)."""

    queries: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]


def grid_angles(cells: Int[Tensor, " n"], half: int) -> tuple[Tensor, Tensor]:
    """Rotary positions (Su et al., 2021) on a grid: half of the angles go with the row, half with the column of a cell.

    A product of a query and a key then depends on how far apart their cells are, not on where they are: a sprite is
    learned once, and not for each of its places. Speeds fall from a quarter turn a cell to a turn in 50 cells.
    """
    speeds = torch.pi / 2 * 0.08 ** torch.linspace(0, 1, half // 2)
    row, column = cells.div(GRID, rounding_mode="floor"), cells.remainder(GRID)
    angles = torch.cat([row[:, None] * speeds, column[:, None] * speeds], dim=1)
    return angles.cos(), angles.sin()


def rotated(x: Float[Tensor, "*batch n d"], angles: tuple[Tensor, Tensor]) -> Float[Tensor, "*batch n d"]:
    """Each pair of elements, of which one is in either half of the vector, turned by its angle."""
    cos, sin = (part.to(x.dtype) for part in angles)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention with normalised queries and keys (Henry et al., 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.full((heads, 1, 1), 1.2))

    def project(
        self, x: Float[Tensor, "batch n d"], rotations: Rotations | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (batch, heads, n, d / heads); the first two turned by `rotations`."""
        batch, n, width = x.shape
        q, k, v = self.qkv(x).view(batch, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rms_norm(q) * self.gain.to(q.dtype), rms_norm(k)
        if rotations is not None:
            q, k = rotated(q, rotations.queries), rotated(k, rotations.keys)
        return q, k, v

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Bool[Tensor, "*batch #n m"] | None = None
    ) -> Float[Tensor, "batch n d"]:
        # Spelled out: for 64 positions on a CPU this takes a third of the time of the fused kernel's backward pass.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e4)
        return self.out((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Linear, squared ReLU (So et al., 2021), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden, bias=False), SquaredReLU(), nn.Linear(hidden, width, bias=False))


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class TextEncoder(nn.Module):
    """A bag of attending words: one transformer layer, then the mean over the words of a wording.

    `words` are int64 word ids (batch, WORDS), 0 is padding; the result is (batch, width).
    """

    def __init__(self, vocabulary: int, width: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.zeros(WORDS, width))
        self.attention = Attention(width, heads)
        self.feed = FeedForward(width, 2 * width)

    def forward(self, words: Int[Tensor, "batch words"]) -> Float[Tensor, "batch d"]:
        present = words != 0
        x = self.words(words) + self.places[: words.shape[1]]
        q, k, v = self.attention.project(rms_norm(x))
        x = x + self.attention.attend(q, k, v, present[:, None, None])
        x = x + self.feed(rms_norm(x))
        weight = present.unsqueeze(-1).to(x.dtype)
        return rms_norm((x * weight).sum(1) / weight.sum(1).clamp(min=1))


class Block(nn.Module):
    """A transformer block whose two branches are scaled and shifted by the condition (adaptive layer norm)."""

    def __init__(self, width: int, heads: int, rank: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed = FeedForward(width, 4 * width)
        self.modulation = nn.Sequential(
            nn.Linear(width, rank, bias=False), nn.SiLU(), nn.Linear(rank, 4 * width, bias=False)
        )
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.feed[2].weight)  # pyright: ignore[reportArgumentType]

    def modulations(self, condition: Float[Tensor, "batch d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale1, shift1, scale2, shift2 = self.modulation(condition).unsqueeze(1).chunk(4, dim=-1)
        return scale1, shift1, scale2, shift2

    def forward(
        self,
        x: Float[Tensor, "batch n d"],
        modulations: tuple[Tensor, Tensor, Tensor, Tensor],
        rotations: Rotations | None = None,
        mask: Bool[Tensor, "n n"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch n d"]:
        scale1, shift1, scale2, shift2 = modulations
        q, k, v = self.attention.project(rms_norm(x) * (1 + scale1) + shift1, rotations)
        if cache is not None:
            k, v = cache.extend(k, v)
        x = x + self.attention.attend(q, k, v, mask)
        return x + self.feed(rms_norm(x) * (1 + scale2) + shift2)


@dataclass
class Cache:
    """Keys and values of one block for the positions seen so far; storage for all positions is taken at once."""

    keys: Float[Tensor, "batch heads positions d"]
    values: Float[Tensor, "batch heads positions d"]
    length: int = 0

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start, self.length = self.length, self.length + k.shape[2]
        self.keys[:, :, start : self.length] = k
        self.values[:, :, start : self.length] = v
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


@dataclass(frozen=True)
class Sizes:
    """What fixes the shape of a zoo generator."""

    vocabulary: int
    causal: bool
    width: int = 224
    layers: int = 6
    heads: int = 4
    rank: int = 64
    codes: int = CODES
    rotary: bool = False  # positions by rotation, beside those that are learned


class Backbone(nn.Module):
    """A transformer over the token grid, conditioned on the text through adaptive layer norm and a first token.

    Bidirectional: input ids (batch, 64) in [0, codes], where `codes`, which is no code, means that nothing is known;
    logits of x0 at every position.
    Causal: the input is shifted by one, its first element is the text; logits of position s given those before it.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.text = TextEncoder(sizes.vocabulary, width, sizes.heads)
        self.nothing = nn.Parameter(torch.randn(width))  # the unconditional branch of guidance
        self.tokens = nn.Embedding(sizes.codes + 1, width)
        self.places = nn.Parameter(0.02 * torch.randn(POSITIONS, width))
        self.start = nn.Linear(width, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, sizes.heads, sizes.rank) for _ in range(sizes.layers))
        self.head = nn.Linear(width, sizes.codes)
        if sizes.rotary:
            # An element of the sequence asks for its own cell; a causal model's holds the token of the cell before.
            cells, half = torch.arange(POSITIONS), width // sizes.heads // 2
            for name, angles in (
                ("query", grid_angles(cells, half)),
                ("key", grid_angles(cells - int(sizes.causal), half)),
            ):
                for part, values in zip(("cos", "sin"), angles, strict=True):
                    self.register_buffer(f"{name}_{part}", values, persistent=False)

    def rotations(self, first: int, end: int) -> Rotations | None:
        """Of the elements of the sequence from the first to before the end."""
        if not self.sizes.rotary:
            return None
        cut = slice(first, end)
        return Rotations(
            (self.query_cos[cut], self.query_sin[cut]),  # pyright: ignore[reportIndexIssue]
            (self.key_cos[cut], self.key_sin[cut]),  # pyright: ignore[reportIndexIssue]
        )

    def start_from_codebook(self, codebook: Float[Tensor, "codes c"]) -> None:
        """Initialise token table and head from the tokenizer's codes, so that near codes start near."""
        centred = codebook - codebook.mean(0)
        centred = centred / centred.norm(dim=1).mean()
        generator = torch.Generator().manual_seed(0)
        lift = torch.randn(codebook.shape[1], self.sizes.width, generator=generator) / codebook.shape[1] ** 0.5
        with torch.no_grad():
            self.tokens.weight[:-1] = centred @ lift * codebook.shape[1] ** 0.5
            self.tokens.weight[-1] = 0
            self.head.weight.copy_(centred @ lift * 0.1)
            self.head.bias.zero_()

    def condition(self, words: Int[Tensor, "batch words"]) -> Float[Tensor, "batch d"]:
        """The condition of a wording; of padding alone it is the unconditional one."""
        empty = (words == 0).all(1, keepdim=True)
        return torch.where(empty, rms_norm(self.nothing), self.text(words))

    def modulations(self, condition: Float[Tensor, "batch d"]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return [block.modulations(condition) for block in self.blocks]  # pyright: ignore

    def embed(
        self, ids: Int[Tensor, "batch n"], condition: Float[Tensor, "batch d"], offset: int = 0
    ) -> Float[Tensor, "batch m d"]:
        """Token, place and text embeddings; a causal model's sequence begins with the text when offset is 0."""
        x = self.tokens(ids)
        first = self.start(condition).unsqueeze(1)
        if not self.sizes.causal:
            x = x + first
        elif offset == 0:
            x = torch.cat([first, x], dim=1)
        return x + self.places[offset : offset + x.shape[1]]

    def trunk(
        self,
        x: Float[Tensor, "batch n d"],
        modulations: list[tuple[Tensor, Tensor, Tensor, Tensor]],
        caches: list[Cache] | None = None,
    ) -> Float[Tensor, "batch n codes"]:
        length = x.shape[1]
        several = self.sizes.causal and length > 1
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril() if several else None
        first = caches[0].length if caches is not None else 0
        rotations = self.rotations(first, first + length)
        for index, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            x = block(x, modulation, rotations, mask, caches[index] if caches is not None else None)
        return self.head(rms_norm(x))

    def forward(
        self, ids: Int[Tensor, "batch n"], condition: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch m codes"]:
        """All positions at once. Causal: `ids` are the tokens before the last, (batch, 63) for all 64 logits."""
        return self.trunk(self.embed(ids, condition), self.modulations(condition))

    def new_caches(self, batch: int) -> list[Cache]:
        like = self.places
        shape = (batch, self.sizes.heads, POSITIONS, self.sizes.width // self.sizes.heads)
        return [
            Cache(
                torch.empty(shape, dtype=like.dtype, device=like.device),
                torch.empty(shape, dtype=like.dtype, device=like.device),
            )
            for _ in range(self.sizes.layers)
        ]
