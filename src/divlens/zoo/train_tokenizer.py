"""The tokenizer: a VQ-VAE trained on composed pictures of scenes that are not held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.lab.attributes import ATTRIBUTES, STYLE
from divlens.lab.pictures import Atlas, compose
from divlens.lab.scenes import all_scenes, held_out
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.pictures import pictures_from_bytes
from divlens.zoo.codebook import MovingCodebook, perplexity
from divlens.zoo.training import Recipe, fit

RECIPE = Recipe(steps=4_000, batch=64, rate=8e-4, warmup=200, decay=0.6, averaging=0.9985)
QUANTISE_FROM = 300  # steps; before that the codebook would be fitted to noise
COMMITMENT = 0.25
SHARPNESS = 0.3  # weight of the error of the differences between neighbouring pixels


def draw_scenes(pool: Int[np.ndarray, "scenes attributes"], count: int) -> Int[np.ndarray, "n attributes"]:
    """Uniform draws, with repetition, by torch's global generator: `fit` seeds it at every step."""
    return pool[torch.randint(len(pool), (count,)).numpy()]


def pictures_of(scenes: Int[np.ndarray, "n attributes"], atlas: Atlas | None = None) -> Float[Tensor, "n 3 h w"]:
    """Composed, float32 in [0, 1]."""
    return pictures_from_bytes(torch.from_numpy(compose(scenes, atlas)))


def squared_error(found: Tensor, wanted: Tensor) -> Float[Tensor, " batch"]:
    return (found - wanted).square().mean((1, 2, 3))


def edge_error(found: Tensor, wanted: Tensor) -> Float[Tensor, " batch"]:
    """Squared error of the differences between neighbouring pixels, which blur makes large."""
    difference = found - wanted
    return difference.diff(dim=2).square().mean((1, 2, 3)) + difference.diff(dim=3).square().mean((1, 2, 3))


def train(
    folder: Path,
    device: torch.device,
    recipe: Recipe = RECIPE,
    atlas: Atlas | None = None,
    tokenizer: Tokenizer | None = None,
    name: str = "tokenizer",
    quantise_from: int = QUANTISE_FROM,
) -> Tokenizer:
    """Scenes are drawn uniformly from those that are not held out. `folder/name.pt` is the checkpoint, which holds how
    often codes are used, too."""
    torch.manual_seed(recipe.seed)
    tokenizer = (tokenizer or Tokenizer()).to(memory_format=torch.channels_last).to(device)
    codebook = MovingCodebook(tokenizer)
    scenes = all_scenes()
    pool = scenes[~held_out(scenes)]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        images = pictures_of(draw_scenes(pool, recipe.batch), atlas).to(device)
        codes, commitment = codebook.codes_of(tokenizer.features(images).float(), step - quantise_from)
        drawn = tokenizer.decode_features(codes).float()
        error, edges = squared_error(drawn, images), edge_error(drawn, images)
        figures = {"psnr": float(-10 * error.detach().log10().mean()), "used": perplexity(codebook.counts)}
        # The logarithm weighs every picture alike: the first term is, up to a factor, the mean PSNR.
        return (error + 1e-4).log().mean() + SHARPNESS * (edges + 1e-4).log().mean() + COMMITMENT * commitment, figures

    tokenizer.register_buffer("usage", codebook.counts, persistent=True)
    state = fit(name, tokenizer, loss, recipe, folder, device=device)
    state.pop("usage")
    del tokenizer.usage
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


@torch.inference_mode()
def signal_to_noise(
    tokenizer: Tokenizer, scenes: Int[np.ndarray, "n attributes"], atlas: Atlas | None = None
) -> Float[np.ndarray, " n"]:
    """PSNR of each scene's reconstruction, dB."""
    found = []
    for part in np.array_split(scenes, max(1, len(scenes) // 128)):
        images = pictures_of(part, atlas).to(tokenizer.codebook.device)
        found.append(-10 * squared_error(tokenizer.decode(tokenizer.encode(images)), images).log10().cpu())
    return torch.cat(found).numpy()


def by_style(scenes: Int[np.ndarray, "n attributes"], values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """The mean of a figure for each style."""
    return {name: float(values[scenes[:, STYLE] == i].mean()) for i, name in enumerate(ATTRIBUTES[STYLE].values)}
