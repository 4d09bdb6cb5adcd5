"""The judge: every attribute of a picture, real or drawn by the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.lab.attributes import ATTRIBUTES, CONCEPT, MIRROR, STYLE, sizes_of
from divlens.lab.pictures import packaged_atlas
from divlens.lab.scenes import all_scenes, held_out
from divlens.models.zoo.judge_network import JudgeNetwork
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.zoo.train_tokenizer import draw_scenes, pictures_of
from divlens.zoo.training import Recipe, fit

RECIPE = Recipe(steps=4000, batch=128, rate=2e-3, weight_decay=0.05, warmup=200, decay=0.7, averaging=0.998, seed=4)
# Mean difference, of 255, between a sprite and its mirror image from which the mirror shows in a picture.
ASYMMETRY = 10.0


def mirror_shows() -> Bool[np.ndarray, "concepts styles"]:
    """Which sprites are not left-right symmetric."""
    large = packaged_atlas().large.astype(np.int16)
    return np.abs(large - large[:, :, :, ::-1]).mean((2, 3, 4)) > ASYMMETRY


def train(
    tokenizer: Tokenizer,
    folder: Path,
    device: torch.device,
    recipe: Recipe = RECIPE,
    name: str = "judge",
) -> JudgeNetwork:
    """Half of each batch is real pictures, half what the tokenizer makes of others; none of them are held out.

    The mirror is learned where it shows only.
    """
    torch.manual_seed(recipe.seed)
    model = JudgeNetwork(sizes_of()).to(memory_format=torch.channels_last).to(device)
    scenes, shows = all_scenes(), torch.from_numpy(mirror_shows())
    pool = scenes[~held_out(scenes)]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        drawn = draw_scenes(pool, recipe.batch)
        images = pictures_of(drawn).to(device)
        half = recipe.batch // 2
        with torch.no_grad():
            images[half:] = tokenizer.decode(tokenizer.encode(images[half:])).float()
        truth = torch.from_numpy(drawn).to(device)
        counted = shows.to(device)[truth[:, CONCEPT], truth[:, STYLE]]
        total = torch.zeros((), device=device)
        right = {}
        for i, logits in enumerate(model(images)):
            wanted = truth[:, i].masked_fill(~counted, -1) if i == MIRROR else truth[:, i]
            total = total + F.cross_entropy(logits.float(), wanted, ignore_index=-1, label_smoothing=0.02)
            right[ATTRIBUTES[i].name] = float((logits.argmax(1) == wanted)[half:].float().mean())
        return total, {key: right[key] for key in ("concept", "style", "place")}

    model.load_state_dict(fit(name, model, loss, recipe, folder, device=device))
    return model.eval()


def values_read(judge: JudgeNetwork, images: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n attributes"]:
    """The likeliest value of each attribute, on the CPU."""
    return torch.stack([logits.argmax(1) for logits in judge(images)], dim=1).cpu()


@torch.inference_mode()
def readings(
    judge: JudgeNetwork, tokenizer: Tokenizer | None, scenes: Int[np.ndarray, "n attributes"]
) -> Int[np.ndarray, "n attributes"]:
    """What the judge reads in the pictures of scenes, as the tokenizer draws them when one is given."""
    found = []
    device = next(judge.parameters()).device
    for part in np.array_split(scenes, max(1, len(scenes) // 128)):
        images = pictures_of(part).to(device)
        if tokenizer is not None:
            images = tokenizer.decode(tokenizer.encode(images)).float()
        found.append(values_read(judge, images))
    return torch.cat(found).numpy()


def accuracies(read: Int[np.ndarray, "n attributes"], scenes: Int[np.ndarray, "n attributes"]) -> dict[str, float]:
    """The share that is read right of each attribute; of the mirror, where it shows."""
    right = read == scenes
    shows = mirror_shows()[scenes[:, CONCEPT], scenes[:, STYLE]]
    found = {attribute.name: float(right[:, i].mean()) for i, attribute in enumerate(ATTRIBUTES)}
    return {**found, ATTRIBUTES[MIRROR].name: float(right[shows, MIRROR].mean())}


def confusions(
    read: Int[np.ndarray, "n attributes"], scenes: Int[np.ndarray, "n attributes"]
) -> dict[str, Float[Tensor, "true read"]]:
    """For each attribute how often a true value is read as each value, rows summing to 1: to correct laws by."""
    tables = {}
    for i, attribute in enumerate(ATTRIBUTES):
        table = np.zeros((len(attribute), len(attribute)))
        np.add.at(table, (scenes[:, i], read[:, i]), 1)
        tables[attribute.name] = torch.from_numpy(table / table.sum(1, keepdims=True)).float()
    return tables
