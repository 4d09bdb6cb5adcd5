"""The judge: which concept, which style. Trained on real pictures only, never on samples or reconstructions.

It learns to tell apart all emoji, not only the zoo's concepts: what stays the same between styles is learned from
nearly nine thousand pictures, and only the zoo's rows of the concept table are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.zoo.judge_networks import ConceptReader, JudgeNetwork, StyleReader, flat_colours
from divlens.pictures import pictures_from_bytes
from divlens.zoo.data import STYLES, Pictures, concepts
from divlens.zoo.train_tokenizer import jitter
from divlens.zoo.training import Recipe, fit

CONCEPT_RECIPE = Recipe(
    steps=1400, batch=128, rate=2e-3, weight_decay=0.1, warmup=200, decay=0.7, averaging=0.995, seed=4
)
STYLE_RECIPE = Recipe(steps=1500, batch=256, rate=3e-3, weight_decay=0.1, warmup=100, decay=0.7, averaging=0.99, seed=5)
AREA = 4  # flat pixels of one colour in a picture
COMMON = 3  # pictures with such an area make a colour part of the palette


def soften(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """Colour shifts, and blur for half of the batch: samples are never as sharp as the art."""
    batch = len(images)
    gain = torch.empty(batch, 3, 1, 1, device=images.device).uniform_(0.9, 1.1)
    images = 1 - ((1 - images) * gain).clamp(0, 1)
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    return torch.where(torch.rand(batch, 1, 1, 1, device=images.device) < 0.5, blurred, images)


def batch_of(pictures: Pictures, rows: np.ndarray, device: torch.device) -> Float[Tensor, "batch 3 h w"]:
    return pictures_from_bytes(torch.from_numpy(pictures.images[rows]).to(device))


def train_concepts(pictures: Pictures, folder: Path, device: torch.device, recipe: Recipe) -> ConceptReader:
    """Half of each batch is zoo concepts. Only the rows of the zoo's concepts are returned."""
    torch.manual_seed(recipe.seed)
    model = ConceptReader(int(pictures.entry.max()) + 1).to(memory_format=torch.channels_last).to(device)
    known = ~pictures.held_out
    pools = [
        np.flatnonzero(known & (pictures.concept >= 0)),
        np.flatnonzero(known & (pictures.concept < 0)),
    ]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        half = recipe.batch // 2
        rows = np.concatenate([pool[torch.randint(len(pool), (half,)).numpy()] for pool in pools])
        with torch.autocast(device.type, enabled=False):
            images = soften(jitter(batch_of(pictures, rows, device)))
        logits = model(images)
        entry = torch.from_numpy(pictures.entry[rows]).to(device)
        right = (logits[:half].argmax(1) == entry[:half]).float().mean()
        return F.cross_entropy(logits, entry, label_smoothing=0.1), {"right": float(right)}

    state = fit("judge-concept", model, loss, recipe, folder, device=device)
    row = np.array([pictures.entry[np.flatnonzero(pictures.concept == i)[0]] for i in range(len(concepts()))])
    kept = ConceptReader(len(row))
    kept.load_state_dict({**state, "concepts.weight": state["concepts.weight"][torch.from_numpy(row).to(device)]})
    return kept


def palette_of(pictures: Pictures, rows: np.ndarray) -> Int[Tensor, " colours"]:
    """The exact colours that at least `COMMON` of these pictures fill some area with, rising, int32."""
    found: Counter[int] = Counter()
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        for colour, flat in zip(*flat_colours(batch_of(pictures, part, torch.device("cpu"))), strict=True):
            values, counts = colour[flat].unique(return_counts=True)
            found.update(values[counts >= AREA].tolist())
    common = sorted(colour for colour, count in found.items() if count >= COMMON)
    return torch.tensor(common, dtype=torch.int32)


def train_styles(pictures: Pictures, folder: Path, device: torch.device, recipe: Recipe) -> StyleReader:
    """Every style is as frequent. The features do not depend on where things are: they are computed once."""
    torch.manual_seed(recipe.seed)
    rows = np.flatnonzero(~pictures.held_out)
    model = StyleReader(len(STYLES), palette_of(pictures, rows)).to(device)
    parts = np.array_split(rows, max(1, len(rows) // 256))
    with torch.no_grad():
        features = torch.cat([model.features(batch_of(pictures, part, device)) for part in parts])
    pools = [torch.from_numpy(np.flatnonzero(pictures.style[rows] == style)) for style in range(len(STYLES))]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        wanted = torch.randint(len(pools), (recipe.batch,))
        chosen = torch.stack([pools[s][torch.randint(len(pools[s]), ())] for s in wanted.tolist()])
        logits, wanted = model.styles(features[chosen.to(device)]), wanted.to(device)
        right = float((logits.argmax(1) == wanted).float().mean())
        return F.cross_entropy(logits.float(), wanted, label_smoothing=0.05), {"right": right}

    model.load_state_dict(fit("judge-style", model, loss, recipe, folder, device=device))
    return model


def train(pictures: Pictures, folder: Path, device: torch.device) -> JudgeNetwork:
    style = train_styles(pictures, folder, device, STYLE_RECIPE)
    concept = train_concepts(pictures, folder, device, CONCEPT_RECIPE)
    return JudgeNetwork(concept, style).to(device).eval()
