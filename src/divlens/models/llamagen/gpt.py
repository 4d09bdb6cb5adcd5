"""LlamaGen's transformer (Sun et al., 2024, arXiv 2406.06525): a Llama over image tokens, after a caption.

The reference turns the caption's queries and keys by a rotary table of zeros. So every score that involves a caption
token is 0 exactly, and two things follow that this module is built on:

- a caption token takes the plain mean of the values of the caption tokens up to itself;
- to an image token, a caption of L tokens is a single key of score log L, whose value is the mean of their values.

So the caption's cache is one vector per layer, whatever L is, and padding needs no place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0


@dataclass(frozen=True)
class Sizes:
    """hidden: of the feed-forward layers; caption_tokens, caption_width: of what the text encoder gives."""

    layers: int
    heads: int
    width: int
    hidden: int
    codes: int
    caption_tokens: int
    caption_width: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class Prefix:
    """All that image tokens need of captions.

    values: per layer and caption, the mean of its tokens' values. lengths: tokens of each caption. logits: of the
    image's first token.
    """

    values: Float[Tensor, "layers rows width"]
    lengths: Int[Tensor, " rows"]
    logits: Float[Tensor, "rows codes"]


@dataclass(frozen=True)
class Cache:
    """Keys and values of a batch's image tokens, of fixed size, and what takes the place of the captions' own.

    captions: the mean of a caption's values. scores: log of its length, float32, for half precision would misjudge how
    many tokens it has.
    """

    keys: Float[Tensor, "layers rows heads slots d"]
    values: Float[Tensor, "layers rows heads slots d"]
    captions: Float[Tensor, "layers rows heads one d"]
    scores: Float[Tensor, "rows heads one one"]


def rotary_table(side: int, head_width: int, device: torch.device) -> Float[Tensor, "n two half"]:
    """Cosines and sines per position of a square grid: half of the pairs turn with the row, half with the column."""
    pairs = head_width // 2
    speeds = ROTARY_BASE ** -(torch.arange(0, pairs, 2)[: pairs // 2].float() / pairs)
    angles = torch.outer(torch.arange(side).float(), speeds)
    rows = angles[:, None].expand(side, side, -1)
    columns = angles[None].expand(side, side, -1)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return torch.stack([grid.cos(), grid.sin()], dim=1).to(device)


def turned(x: Float[Tensor, "*any d"], table: Float[Tensor, "two half"]) -> Float[Tensor, "*any d"]:
    """Pairs of neighbouring channels, each turned by its angle, in float32."""
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = table.unbind(0)
    pair = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return pair.flatten(-2).to(x.dtype)


class Norm(nn.Module):
    """Root mean square norm: in float32, then scaled in the weights' dtype."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        return F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPSILON).to(x.dtype) * self.weight


class Attention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.width = sizes.heads, sizes.width
        self.wqkv = nn.Linear(sizes.width, 3 * sizes.width, bias=False)
        self.wo = nn.Linear(sizes.width, sizes.width, bias=False)

    def prefix_values(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows tokens width"]:
        """A caption's values; its queries and keys would be multiplied by 0."""
        return F.linear(x, self.wqkv.weight[2 * self.width :])

    def step(
        self,
        x: Float[Tensor, "rows width"],
        keys: Float[Tensor, "rows heads slots d"],
        values: Float[Tensor, "rows heads slots d"],
        caption: Float[Tensor, "rows heads one d"],
        caption_score: Float[Tensor, "rows heads one one"],
        table: Float[Tensor, "two half"],
    ) -> Float[Tensor, "rows width"]:
        """Attention of one image token to the caption, to the tokens before it and to itself, which is put in the
        last slot of `keys` and `values`."""
        qkv = self.wqkv(x).unflatten(-1, (3, self.heads, -1))
        query, key = turned(qkv[:, :2], table).unbind(1)
        keys[:, :, -1], values[:, :, -1] = key, qkv[:, 2]
        scores = (query.unsqueeze(2) @ keys.mT).float() * query.shape[-1] ** -0.5
        to_caption, to_image = (
            torch.cat([caption_score, scores], dim=-1).softmax(-1).to(x.dtype).tensor_split([1], dim=-1)
        )
        return self.wo((to_image @ values + to_caption * caption).flatten(1))


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.w1 = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.w3 = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.w2 = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.feed_forward = FeedForward(sizes)
        self.attention_norm = Norm(sizes.width)
        self.ffn_norm = Norm(sizes.width)

    def add(self, x: Float[Tensor, "*any width"], attended: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The rest of the layer, once attention has spoken."""
        x = x + attended
        return x + self.feed_forward(self.ffn_norm(x))


class CaptionProjection(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.caption_width, sizes.width, bias=False)
        self.fc2 = nn.Linear(sizes.width, sizes.width, bias=False)

    def forward(self, captions: Float[Tensor, "*any caption_width"]) -> Float[Tensor, "*any width"]:
        return self.fc2(F.gelu(self.fc1(captions), approximate="tanh"))


class CaptionEmbedding(nn.Module):
    """uncond_embedding stands in for a caption's tokens, place by place, in the unconditional branch."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.uncond_embedding = nn.Parameter(torch.empty(sizes.caption_tokens, sizes.caption_width))
        self.cap_proj = CaptionProjection(sizes)


class Gpt(nn.Module):
    """The names of the parameters are those of the published checkpoints."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_embedding = CaptionEmbedding(sizes)
        self.tok_embeddings = nn.Embedding(sizes.codes, sizes.width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = Norm(sizes.width)
        self.output = nn.Linear(sizes.width, sizes.codes, bias=False)

    def blocks(self) -> Sequence[Layer]:
        return cast(Sequence[Layer], self.layers)

    def prefill(
        self, captions: Float[Tensor, "rows tokens caption_width"], present: Bool[Tensor, "rows tokens"]
    ) -> Prefix:
        """Read captions, padded on the left; `present` marks their tokens, the last of which must be one."""
        counts = present.cumsum(1)
        mask, shares = present[..., None], (present / counts.clamp(min=1))[..., None]
        x = self.cls_embedding.cap_proj(captions)
        means, layers = [], self.blocks()
        for layer in layers:
            own = layer.attention.prefix_values(layer.attention_norm(x))
            mean = ((own.float() * mask).cumsum(1) * shares).to(x.dtype)
            means.append(mean[:, -1])
            if layer is layers[-1]:
                x, mean = x[:, -1:], mean[:, -1:]
            x = layer.add(x, layer.attention.wo(mean))
        return Prefix(torch.stack(means), counts[:, -1], self.output(self.norm(x[:, -1])))

    def new_cache(self, prefix: Prefix, row: Int[Tensor, " rows"], slots: int) -> Cache:
        """A cache for a batch; `row` says which caption of the prefix each of its rows has."""
        layers, heads, d = self.sizes.layers, self.sizes.heads, self.sizes.head_width
        # Not zeros: no slot is read before it is written, and filling them would be the better part of a short prefill.
        keys, values = prefix.values.new_empty(2, layers, len(row), heads, slots, d)
        captions = prefix.values[:, row].unflatten(-1, (heads, 1, d))
        scores = prefix.lengths[row].float().log()[:, None, None, None].expand(-1, heads, -1, -1)
        return Cache(keys, values, captions, scores)

    def step(
        self, ids: Int[Tensor, " rows"], cache: Cache, position: int, table: Float[Tensor, "two half"]
    ) -> Float[Tensor, "rows codes"]:
        """Take in the tokens at `position`, whose phase is `table`; logits of the next ones."""
        x = self.tok_embeddings(ids)
        keys, values = cache.keys[:, :, :, : position + 1], cache.values[:, :, :, : position + 1]
        for layer, own_keys, own_values, caption in zip(self.blocks(), keys, values, cache.captions, strict=True):
            normed = layer.attention_norm(x)
            x = layer.add(x, layer.attention.step(normed, own_keys, own_values, caption, cache.scores, table))
        return self.output(self.norm(x))
