"""The judge: which concept, which style. Trained on real pictures only, never on samples or reconstructions.

It learns to tell apart all emoji, not only the zoo's concepts: what stays the same between styles is learned from
nine thousand pictures, and only the zoo's rows of the concept table are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from divlens.models.zoo.networks import JudgeNetwork
from divlens.zoo.data import STYLES, Pictures, concepts
from divlens.zoo.train_tokenizer import jitter
from divlens.zoo.training import Recipe, fit

RECIPE = Recipe(steps=1400, batch=128, rate=2e-3, weight_decay=0.1, warmup=200, decay=0.7, averaging=0.995, seed=4)


def soften(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """Colour shifts, and blur for half of the batch: samples are never as sharp as the art."""
    batch = len(images)
    gain = torch.empty(batch, 3, 1, 1, device=images.device).uniform_(0.9, 1.1)
    images = 1 - ((1 - images) * gain).clamp(0, 1)
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    return torch.where(torch.rand(batch, 1, 1, 1, device=images.device) < 0.5, blurred, images)


def train(pictures: Pictures, folder: Path, device: torch.device, recipe: Recipe = RECIPE) -> JudgeNetwork:
    torch.manual_seed(recipe.seed)
    entries = int(pictures.entry.max()) + 1
    model = JudgeNetwork(entries, len(STYLES)).to(device, memory_format=torch.channels_last)
    known = ~pictures.held_out
    pools = [np.flatnonzero(known & (pictures.concept >= 0)), np.flatnonzero(known & (pictures.concept < 0))]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        half = recipe.batch // 2
        rows = np.concatenate([pool[torch.randint(len(pool), (half,)).numpy()] for pool in pools])
        images = torch.from_numpy(pictures.images[rows]).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(device.type, enabled=False):
            images = jitter(images)
            sharp = images * 2 - 1
            soft = soften(images) * 2 - 1
        # Colour is a clue to the style: that branch sees the pictures as they are.
        concept, style = model.concept_logits(soft), model.style_logits(sharp)
        entry = torch.from_numpy(pictures.entry[rows]).to(device)
        truth = torch.from_numpy(pictures.style[rows]).to(device)
        right = (concept[:half].argmax(1) == entry[:half]).float().mean()
        value = F.cross_entropy(concept, entry, label_smoothing=0.1) + F.cross_entropy(style, truth)
        return value, {"concept": float(right), "style": float((style.argmax(1) == truth).float().mean())}

    model.load_state_dict(fit("judge", model, loss, recipe, folder, device=device))
    row = np.array([pictures.entry[np.flatnonzero(pictures.concept == i)[0]] for i in range(len(concepts()))])
    kept = JudgeNetwork(len(row), len(STYLES)).to(device)
    state = model.state_dict()
    state["concepts.weight"] = state["concepts.weight"][torch.from_numpy(row).to(device)]
    kept.load_state_dict(state)
    return kept.eval()
