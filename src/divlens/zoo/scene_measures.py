"""How well the tokenizer draws and the judge reads scenes that nothing was trained on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int

from divlens.lab.attributes import ATTRIBUTES, CONCEPT, MIRROR, STYLE
from divlens.lab.evaluation import Figure
from divlens.lab.scenes import all_scenes, held_out, in_whole_pairs
from divlens.models.zoo.judge_network import JudgeNetwork
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.statistics import Interval, bootstrap_mean, mean_share
from divlens.zoo.codebook import perplexity
from divlens.zoo.scene_evaluate import UNSEEN_PAIRS
from divlens.zoo.train_generators import encode_scenes
from divlens.zoo.train_judge import mirror_shows, readings
from divlens.zoo.train_tokenizer import signal_to_noise

SAMPLE = 1000  # scenes that figures are means over; of pairs that were never shown a quarter of them


def held_out_sample(count: int) -> Int[np.ndarray, "n attributes"]:
    """Held-out scenes of pairs of concept and style that were shown, evenly over all of them."""
    every = all_scenes()
    return some(every[held_out(every) & ~in_whole_pairs(every)], count)


def whole_pairs_sample(count: int) -> Int[np.ndarray, "n attributes"]:
    every = all_scenes()
    return some(every[in_whole_pairs(every)], count)


def some(scenes: Int[np.ndarray, "m attributes"], count: int) -> Int[np.ndarray, "n attributes"]:
    return scenes[np.random.default_rng(7).permutation(len(scenes))[:count]]


def samples(count: int = SAMPLE) -> dict[str, Int[np.ndarray, "n attributes"]]:
    """Scenes by what figures of them are called after: held-out combinations have no word of their own."""
    return {"": held_out_sample(count), f", {UNSEEN_PAIRS}": whole_pairs_sample(count // 4)}


def tokenizer_figures(tokenizer: Tokenizer, scenes: Mapping[str, Int[np.ndarray, "n attributes"]]) -> list[Figure]:
    """Peak signal to noise of all, of the worst style and of each; how many codes are used, as a perplexity."""
    found = []
    for of_which, sample in scenes.items():
        signal, style = signal_to_noise(tokenizer, sample), sample[:, STYLE]
        names = ATTRIBUTES[STYLE].values
        by_style = {names[i]: bootstrap_mean(signal[style == i]) for i in sorted(set(style.tolist()))}
        worst = min(by_style, key=lambda name: by_style[name].value)
        found += [
            Figure(f"signal to noise{of_which} (dB)", bootstrap_mean(signal)),
            Figure(f"signal to noise, worst style{of_which} (dB)", by_style[worst], worst),
            *(Figure(f"signal to noise, {name}{of_which} (dB)", value) for name, value in by_style.items()),
        ]
    codes = len(tokenizer.codebook)
    counts = torch.bincount(encode_scenes(tokenizer, scenes[""]).long().flatten(), minlength=codes).float()
    return [*found, Figure(f"perplexity of the {codes} codes", Interval(perplexity(counts)))]


def judge_figures(
    judge: JudgeNetwork, tokenizer: Tokenizer, scenes: Mapping[str, Int[np.ndarray, "n attributes"]]
) -> list[Figure]:
    """The share of pictures whose attribute is read right, as the tokenizer draws them; last, of pictures as they are.
    The mirror counts where it shows."""
    found = []
    for of_which, sample in scenes.items():
        found += read_right(readings(judge, tokenizer, sample), sample, of_which)
    return [*found, *read_right(readings(judge, None, scenes[""]), scenes[""], ", not redrawn")]


def read_right(
    read: Int[np.ndarray, "n attributes"], scenes: Int[np.ndarray, "n attributes"], of_which: str
) -> list[Figure]:
    figures = []
    for i, attribute in enumerate(ATTRIBUTES):
        counted = mirror_shows_in(scenes) if i == MIRROR else np.ones(len(scenes), bool)
        right = (read == scenes)[counted, i].astype(float)
        figures.append(Figure(f"{attribute.name} read right{of_which}", mean_share(right, 1)))
    return figures


def mirror_shows_in(scenes: Int[np.ndarray, "n attributes"]) -> Bool[np.ndarray, " n"]:
    return mirror_shows()[scenes[:, CONCEPT], scenes[:, STYLE]]
