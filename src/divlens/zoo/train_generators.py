"""The three generators: one backbone, one data set, three losses.

Scenes are drawn uniformly from those that are not held out, and each is captioned anew every time it is drawn, so that
what is learned is the law of scenes given captions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from divlens.lab.attributes import BACKGROUND, PLACE, SIZE, STYLE
from divlens.lab.captions import NAMING, draw_captions, filler_words
from divlens.lab.scenes import all_scenes, held_out
from divlens.models.zoo.adapter import Family, diffusion_schedule
from divlens.models.zoo.networks import POSITIONS, Backbone, Sizes
from divlens.models.zoo.text import UNKNOWN, Vocabulary
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.zoo.objectives import corrupted, hidden_at_random, position_nats
from divlens.zoo.train_tokenizer import pictures_of
from divlens.zoo.training import Recipe, fit

FAMILIES: tuple[Family, ...] = ("ar", "mim", "diffusion")
RECIPES: dict[Family, Recipe] = {
    "ar": Recipe(steps=5_700, batch=64, rate=1e-3, muon_rate=0.02, decay=0.53, averaging=0.998, seed=1),
    "mim": Recipe(steps=4_900, batch=64, rate=1e-3, muon_rate=0.02, decay=0.25, averaging=0.998, seed=2),
    "diffusion": Recipe(steps=4_600, batch=64, rate=1e-3, muon_rate=0.02, decay=0.33, averaging=0.998, seed=3),
}
NO_TEXT = 0.1  # share of the training rows without text, for guidance
# Three in four captions name more than those of the law do. What a caption leaves open is uniform either way, so that
# the law of scenes given a caption is the same; but its words are learned in fewer steps.
FULLER = {**NAMING, STYLE: 0.95, BACKGROUND: 0.95, SIZE: 0.95, PLACE: 0.95}
STRANGE = 0.02  # share of the words that name nothing which are unknown ones in training


def cross_entropy(logits: Tensor, tokens: Int[Tensor, "batch n"], weight: Tensor) -> tuple[Tensor, float]:
    """Weighted mean over positions, nats; and the plain mean where the weight is largest, to show."""
    loss = position_nats(logits, tokens)
    shown = weight == weight.max()
    return (loss * weight).sum() / weight.sum(), float(loss.detach()[shown].mean())


def ar_loss(model: Backbone, tokens: Int[Tensor, "batch n"], words: Tensor) -> tuple[Tensor, float]:
    """Next token in raster order."""
    logits = model(tokens[:, :-1], model.condition(words))
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


@torch.inference_mode()
def encode_scenes(tokenizer: Tokenizer, scenes: Int[np.ndarray, "n attributes"]) -> Int[Tensor, "n positions"]:
    """The tokens of scenes, int16."""
    device = tokenizer.codebook.device
    parts = np.array_split(scenes, max(1, len(scenes) // 256))
    grids = [tokenizer.encode(pictures_of(part).to(device)).flatten(1).short().cpu() for part in parts]
    return torch.cat(grids)


def training_grids(tokenizer: Tokenizer, folder: Path) -> tuple[Int[np.ndarray, "n attributes"], Tensor]:
    """The scenes that are not held out and their tokens, int16 (n, 64); kept in `folder/grids.pt`."""
    scenes = all_scenes()[~held_out(all_scenes())]
    path = folder / "grids.pt"
    mark = tokenizer.codebook.detach().cpu()
    stored = torch.load(path, weights_only=True) if path.exists() else None
    if stored is None or not torch.equal(stored["codebook"], mark):
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"codebook": mark, "tokens": encode_scenes(tokenizer, scenes)}
        torch.save(stored, path)
    return scenes, stored["tokens"]


class Captions:
    """Captions of scenes as word ids, drawn by torch's global generator. `strange`: as `STRANGE`."""

    def __init__(self, strange: float = STRANGE) -> None:
        self.strange = strange
        self.vocabulary = Vocabulary()
        filler = self.vocabulary.ids(sorted(filler_words()))[:, 0]
        self.names_nothing = torch.zeros(len(self.vocabulary), dtype=torch.bool).index_fill_(0, filler, True)

    def draw(self, scenes: Int[np.ndarray, "batch attributes"]) -> Int[Tensor, "batch words"]:
        """Some words that name nothing become unknown ones, some rows are empty (the unconditional branch)."""
        generator = np.random.default_rng(int(torch.randint(2**62, ())))
        fuller = 3 * len(scenes) // 4
        texts = draw_captions(scenes[:fuller], generator, naming=FULLER) + draw_captions(scenes[fuller:], generator)
        words = self.vocabulary.ids(texts)
        strange = self.names_nothing[words] & (torch.rand(words.shape) < self.strange)
        return words.masked_fill(strange, UNKNOWN) * (torch.rand(len(words), 1) >= NO_TEXT)


def train(
    family: Family,
    tokenizer: Tokenizer,
    folder: Path,
    device: torch.device,
    recipe: Recipe | None = None,
    grids: tuple[Int[np.ndarray, "n attributes"], Tensor] | None = None,
) -> Backbone:
    """`folder/family.pt` is the checkpoint; `grids`: scenes and tokens to train on, or all that are not held out."""
    recipe = recipe or RECIPES[family]
    scenes, tokens = grids or training_grids(tokenizer, folder)
    captions = Captions()
    torch.manual_seed(recipe.seed)
    model = Backbone(Sizes(len(captions.vocabulary), causal=family == "ar", codes=len(tokenizer.codebook)))
    model.start_from_codebook(tokenizer.codebook.cpu())
    model.to(device)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        rows = torch.randint(len(tokens), (recipe.batch,))
        words = captions.draw(scenes[rows.numpy()]).to(device)
        value, shown = LOSSES[family](model, tokens[rows].long().to(device), words)
        return value, {"nats": shown}

    model.load_state_dict(fit(family, model, loss, recipe, folder, device=device))
    return model.eval()
