"""The three generators: one backbone, one data set, three losses."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from divlens.models.zoo.adapter import diffusion_schedule
from divlens.models.zoo.networks import POSITIONS, Backbone, Sizes, Tokenizer
from divlens.models.zoo.text import UNKNOWN, Vocabulary
from divlens.pictures import pictures_from_bytes
from divlens.zoo.data import Pictures, concepts
from divlens.zoo.objectives import corrupted, hidden_at_random, position_nats
from divlens.zoo.training import Recipe, fit
from divlens.zoo.wordings import TRAINING, fill, usable_keywords

Family = Literal["ar", "mim", "diffusion"]
RECIPES: dict[Family, Recipe] = {
    "ar": Recipe(steps=900, batch=128, rate=1e-3, muon_rate=0.02, decay=0.5, averaging=0.99, seed=1),
    "mim": Recipe(steps=2600, batch=128, rate=1e-3, muon_rate=0.02, decay=0.5, averaging=0.995, seed=2),
    "diffusion": Recipe(steps=2600, batch=128, rate=1e-3, muon_rate=0.02, decay=0.5, averaging=0.995, seed=3),
}
FORGOTTEN = 0.1  # share of an AR prefix that is hidden in training: else prefixes are memorised, the text unused
NO_TEXT = 0.1  # share of the training rows without text, for guidance
LETTERED = frozenset({"pool 8 ball", "1st place medal", "heavy dollar sign", "money bag"})  # mirrored they mean nothing


@dataclass(frozen=True)
class Grids:
    """Token grids to train on: int64 (n, 64), and the concept of each."""

    tokens: Int[Tensor, "n positions"]
    concept: Int[Tensor, " n"]


@torch.inference_mode()
def encode_pictures(tokenizer: Tokenizer, images: np.ndarray) -> Int[Tensor, "n positions"]:
    device = tokenizer.codebook.device
    grids = []
    for first in range(0, len(images), 256):
        batch = pictures_from_bytes(torch.from_numpy(images[first : first + 256].copy()).to(device))
        grids.append(tokenizer.encode(batch).flatten(1).cpu())
    return torch.cat(grids)


def training_grids(pictures: Pictures, tokenizer: Tokenizer) -> Grids:
    """Every picture of a zoo concept that is not held out, and its mirror image where that keeps the meaning."""
    rows = np.flatnonzero((pictures.concept >= 0) & ~pictures.held_out)
    names = concepts()
    mirrored = np.array([row for row in rows if names[pictures.concept[row]] not in LETTERED])
    images = np.concatenate([pictures.images[rows], pictures.images[mirrored][:, :, ::-1]])
    concept = np.concatenate([pictures.concept[rows], pictures.concept[mirrored]])
    return Grids(encode_pictures(tokenizer, images), torch.from_numpy(concept))


class Captions:
    """Random training captions as word ids."""

    def __init__(self, words: Mapping[str, Sequence[str]], vocabulary: Vocabulary, variants: int = 256) -> None:
        generator = random.Random(0)
        tables = []
        for name, keywords in words.items():
            usable = usable_keywords(name, keywords)
            texts = [fill(TRAINING[i % len(TRAINING)], name, usable, generator) for i in range(variants)]
            tables.append(vocabulary.ids(texts))
        self.table = torch.stack(tables)  # (concepts, variants, WORDS)

    def draw(self, concept: Int[Tensor, " batch"]) -> Int[Tensor, "batch words"]:
        """A caption per row; some words become unknown ones, some rows are empty (the unconditional branch)."""
        words = self.table[concept, torch.randint(self.table.shape[1], concept.shape)]
        words = torch.where((torch.rand(words.shape) < 0.02) & (words != 0), UNKNOWN, words)
        return words * (torch.rand(len(words), 1) >= NO_TEXT)


def cross_entropy(logits: Tensor, tokens: Int[Tensor, "batch n"], weight: Tensor) -> tuple[Tensor, float]:
    """Weighted mean over positions, nats; and the plain mean where the weight is largest, to show."""
    loss = position_nats(logits, tokens)
    shown = weight == weight.max()
    return (loss * weight).sum() / weight.sum(), float(loss.detach()[shown].mean())


def ar_loss(
    model: Backbone, tokens: Int[Tensor, "batch n"], words: Tensor, share: float = FORGOTTEN
) -> tuple[Tensor, float]:
    """Next token in raster order, a share of those before it hidden."""
    forgotten = torch.rand(len(tokens), POSITIONS - 1, device=tokens.device) < share
    logits = model(tokens[:, :-1].masked_fill(forgotten, model.sizes.codes), model.condition(words))
    return cross_entropy(logits, tokens, torch.ones(tokens.shape, device=tokens.device))


def mim_loss(model: Backbone, tokens: Int[Tensor, "batch n"], words: Tensor) -> tuple[Tensor, float]:
    """Masked tokens, with a cosine-distributed share of them (MaskGIT, Chang et al., 2022)."""
    share = torch.cos(torch.rand(len(tokens), 1, device=tokens.device) * torch.pi / 2)
    hidden = hidden_at_random(tokens, (share * POSITIONS).ceil().clamp(min=1))
    logits = model(tokens.masked_fill(hidden, model.sizes.codes), model.condition(words))
    return cross_entropy(logits, tokens, hidden.float())


def diffusion_loss(model: Backbone, tokens: Int[Tensor, "batch n"], words: Tensor) -> tuple[Tensor, float]:
    """x_0 from x_t: full weight on masked tokens, a little on those that may have been replaced."""
    time = torch.rand(len(tokens), 1, device=tokens.device)
    noisy = corrupted(tokens, *diffusion_schedule(time), codes=model.sizes.codes)
    logits = model(noisy, model.condition(words))
    return cross_entropy(logits, tokens, torch.where(noisy == model.sizes.codes, 1.0, 0.2))


LOSSES: dict[Family, Callable[[Backbone, Tensor, Tensor], tuple[Tensor, float]]] = {
    "ar": ar_loss,
    "mim": mim_loss,
    "diffusion": diffusion_loss,
}


def train(
    family: Family,
    grids: Grids,
    captions: Captions,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    folder: Path,
    device: torch.device,
    recipe: Recipe | None = None,
) -> Backbone:
    recipe = recipe or RECIPES[family]
    torch.manual_seed(recipe.seed)
    model = Backbone(Sizes(len(vocabulary), causal=family == "ar"))
    model.start_from_codebook(tokenizer.codebook.cpu())
    model.to(device)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        rows = torch.randint(len(grids.tokens), (recipe.batch,))
        words = captions.draw(grids.concept[rows]).to(device)
        value, shown = LOSSES[family](model, grids.tokens[rows].to(device), words)
        return value, {"nats": shown}

    model.load_state_dict(fit(family, model, loss, recipe, folder, device=device))
    return model.eval()
