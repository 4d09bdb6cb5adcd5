"""LlamaGen's published `.pt` files: what sizes they have, and the networks they fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.llamagen.gpt import Gpt, Sizes
from divlens.models.llamagen.vq import GROUPS, VqSizes, VqTokenizer
from divlens.models.loading import DTYPES, Network, Options, load_checked, read_pt

# Heads by (layers, width): the one size that no tensor shows. GPT-B, L, XL, XXL, XXXL, 1B, 3B and 7B.
HEADS = {
    (12, 768): 12,
    (24, 1024): 16,
    (36, 1280): 20,
    (48, 1536): 24,
    (48, 2560): 40,
    (22, 2048): 32,
    (24, 3200): 32,
    (32, 4096): 32,
}
WRAPPERS = ("model", "module", "state_dict")  # where a training run puts the weights, in the order they are looked for
NOT_WEIGHTS = "quantize.codebook_used"  # which codes training saw last


class Shapes:
    """Sizes of a checkpoint's tensors, asked for by name."""

    def __init__(self, path: Path, state: Mapping[str, Tensor]) -> None:
        self.path, self.state = path, state

    def of(self, key: str, dimensions: int) -> tuple[int, ...]:
        if key not in self.state:
            raise DivlensError(f"{self.path} lacks the tensor {key}")
        shape = tuple(self.state[key].shape)
        if len(shape) != dimensions or 0 in shape:
            raise DivlensError(f"{self.path}, {key}: expected {dimensions} dimensions, none of them 0, found {shape}")
        return shape

    def numbered(self, before: str) -> int:
        """How many different numbers follow `before` in the names."""
        rest = (key.removeprefix(before) for key in self.state if key.startswith(before))
        return len({number for number in (name.partition(".")[0] for name in rest) if number.isdecimal()})


def weights_of(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a published file, out of whatever they are wrapped in."""
    content: object = read_pt(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise DivlensError(f"{path} expects a dictionary of tensors, got an empty one")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            wrappers = ", ".join(map(repr, WRAPPERS))
            raise DivlensError(
                f"{path} expects tensors by name, at the top or under {wrappers}, got {type(value).__name__} at {key!r}"
            )
    return cast(Mapping[str, Tensor], content)


def gpt_sizes(path: Path, state: Mapping[str, Tensor], heads: int | None) -> Sizes:
    """Sizes of the transformer. `heads`: None for those of the published models.

    Raises DivlensError when they are none of the published ones, or do not divide the width into even parts.
    """
    shapes = Shapes(path, state)
    layers = shapes.numbered("layers.")
    codes, width = shapes.of("output.weight", 2)
    hidden, _ = shapes.of("layers.0.feed_forward.w1.weight", 2)
    tokens, caption_width = shapes.of("cls_embedding.uncond_embedding", 2)
    if heads is None and (layers, width) not in HEADS:
        raise DivlensError(
            f"{path} has {layers} layers of width {width}, which is none of the published models: "
            f"expected n_head in a config.json beside it"
        )
    heads = heads or HEADS[layers, width]
    if width % (4 * heads):
        raise DivlensError(
            f"{path}: expected heads that split a width of {width} into multiples of 4 channels, got {heads}"
        )
    return Sizes(layers, heads, width, hidden, codes, tokens, caption_width)


def vq_sizes(path: Path, state: Mapping[str, Tensor]) -> VqSizes:
    shapes = Shapes(path, state)
    levels = shapes.numbered("encoder.conv_blocks.")
    convolutions = ["encoder.conv_in.weight"]
    convolutions += [f"encoder.conv_blocks.{level}.res.0.conv1.weight" for level in range(max(levels, 1))]
    base, *channels = (shapes.of(key, 4)[0] for key in convolutions)
    if odd := [count for count in (base, *channels) if count % GROUPS]:
        raise DivlensError(f"{path}: expected channels in multiples of {GROUPS}, found {odd[0]}")
    width = shapes.of("quant_conv.weight", 4)[1]
    codes, code_width = shapes.of("quantize.embedding.weight", 2)
    blocks = shapes.numbered("encoder.conv_blocks.0.res.")
    return VqSizes(base, tuple(channels), blocks, width, codes, code_width)


def filled(network: Network, state: Mapping[str, Tensor], path: Path, options: Options) -> Network:
    """The network, made without memory, now with the weights in their dtype and place."""
    network = network.to(DTYPES[options.dtype]).to_empty(device=options.device)
    load_checked(network, state, str(path))
    return options.place(network)


def gpt_from(path: Path, heads: int | None, options: Options) -> Gpt:
    """The transformer of a published file. `heads`: None for those of the published models."""
    state = weights_of(path)
    with torch.device("meta"):
        network = Gpt(gpt_sizes(path, state, heads))
    return filled(network, state, path, options)


def vq_from(path: Path, options: Options) -> VqTokenizer:
    """The picture tokenizer of a published file."""
    state = {key: value for key, value in weights_of(path).items() if key != NOT_WEIGHTS}
    with torch.device("meta"):
        network = VqTokenizer(vq_sizes(path, state))
    return filled(network, state, path, options)
