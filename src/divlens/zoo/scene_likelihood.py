"""How many bits generators of scenes need for pictures of combinations that were shown, and for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, MIRROR, PLACE
from divlens.lab.evaluation import Figure
from divlens.lab.scenes import held_out
from divlens.models.zoo.networks import Backbone
from divlens.models.zoo.text import Vocabulary
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.paths import PathRule
from divlens.progress import OnBatch
from divlens.statistics import bootstrap_mean, ratio_of_means
from divlens.zoo.likelihood import bits_of_pictures
from divlens.zoo.scene_evaluate import UNSEEN_PAIRS, all_but_the_mirror, never_shown_scenes, worded
from divlens.zoo.train_generators import encode_scenes

# Of a wording and a token grid each, (n, positions): bits of the grid given the wording, (n,).
Bits = Callable[[Sequence[str], Tensor], np.ndarray]


def bits_under(
    backbone: Backbone, rule: PathRule, vocabulary: Vocabulary, on_batch: OnBatch = lambda count: None
) -> Bits:
    """What a generator of this backbone and this rule finds of grids, see `likelihood`."""

    @torch.inference_mode()
    def bits(wordings: Sequence[str], grids: Tensor) -> np.ndarray:
        device = backbone.places.device
        conditions = backbone.condition(vocabulary.ids(wordings).to(device))
        return bits_of_pictures(backbone, rule, grids.to(device), conditions, on_batch=on_batch)

    return bits


@dataclass(frozen=True)
class Pictures:
    """Scenes whose likelihood is asked for, by kind; each of `trained` is the twin of the one of `held_out` in its
    place: the same sprite, of the same size, on another background or at another place."""

    held_out: Int[np.ndarray, "pairs attributes"]
    trained: Int[np.ndarray, "pairs attributes"]
    unseen_pairs: Int[np.ndarray, "n attributes"]

    @property
    def count(self) -> int:
        return len(self.held_out) + len(self.trained) + len(self.unseen_pairs)


def pictures_to_find(pairs: int = 64, unseen_pairs: int = 32, seed: int = 0) -> Pictures:
    """Every picture is mirrored or not, by a coin: captions do not say it."""
    generator = np.random.default_rng(seed)
    away = never_shown_scenes(pairs, generator, of_whole_pairs=False)
    unseen = never_shown_scenes(unseen_pairs, generator, of_whole_pairs=True)
    for scenes in (away, unseen):
        scenes[:, MIRROR] = generator.integers(2, size=len(scenes))
    return Pictures(away, trained_twins(away, generator), unseen)


def trained_twins(
    scenes: Int[np.ndarray, "n attributes"], generator: np.random.Generator
) -> Int[np.ndarray, "n attributes"]:
    """The same but for background and place, so that they are not held out. Only for scenes of pairs of concept and
    style that were shown: of others there are none."""
    twins = scenes.copy()
    while (away := held_out(twins)).any():
        for attribute in (BACKGROUND, PLACE):
            twins[away, attribute] = generator.integers(len(ATTRIBUTES[attribute]), size=away.sum())
    return twins


def likelihood_figures(bits: Bits, pictures: Pictures, tokenizer: Tokenizer, kind: str) -> list[Figure]:
    """Bits a picture, given a caption of all that has a word; and how much more combinations cost that were never
    shown, over pairs of twins. `kind`: "exact" or, from above, "bound"."""

    def found(scenes: Int[np.ndarray, "n attributes"]) -> np.ndarray:
        return bits(worded([all_but_the_mirror(scene) for scene in scenes]), encode_scenes(tokenizer, scenes).long())

    of_trained, of_held_out, of_unseen = (
        found(part) for part in (pictures.trained, pictures.held_out, pictures.unseen_pairs)
    )
    named = {"trained": of_trained, "held out": of_held_out, UNSEEN_PAIRS: of_unseen}
    return [
        *(Figure(f"bits a picture, {name} ({kind})", bootstrap_mean(part)) for name, part in named.items()),
        Figure("bits, held out over trained", ratio_of_means(of_held_out, of_trained)),
    ]
