"""The bars of the zoo: tokenizer, judge, and each generator, measured on what they were not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.fidelity import mode_coverage
from divlens.fidelity.judge import ZooJudge
from divlens.models.zoo.adapter import ZooModel
from divlens.models.zoo.networks import CODES, GRID, Tokenizer
from divlens.pictures import pictures_from_bytes
from divlens.sampler import sample
from divlens.statistics import UNLIMITED, bootstrap_mean, mean_share
from divlens.types import Prompt
from divlens.zoo.data import STYLES, Pictures
from divlens.zoo.likelihood import bits_of_pictures, is_exact
from divlens.zoo.wordings import held_out_wordings

NEAR = 0.9  # a sample that shares this share of its tokens with a training grid is a near copy
COVERAGE_SAMPLES = 16


@dataclass(frozen=True)
class Measure:
    """A figure with its 95% interval (bootstrap over pictures or prompts), and the bar it must pass, if any."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    bar: float = math.nan

    @property
    def passes(self) -> bool | None:
        return None if math.isnan(self.bar) else self.value >= self.bar


def measure(name: str, values: np.ndarray, bar: float = math.nan) -> Measure:
    """The mean of what was measured of each picture or prompt; a mean of shares has an interval within [0, 1],
    and where they are all alike one that takes each for a trial."""
    known = np.asarray(values, float)
    shares = bool(((known >= 0) & (known <= 1) | np.isnan(known)).all())
    if shares and len(np.unique(known[~np.isnan(known)])) == 1:
        interval = mean_share(known, 1)
    else:
        interval = bootstrap_mean(known, limits=(0, 1) if shares else UNLIMITED)
    return Measure(name, interval.value, interval.low, interval.high, bar)


@torch.inference_mode()
def tokenizer_measures(tokenizer: Tokenizer, pictures: Pictures) -> list[Measure]:
    """PSNR of held-out pictures, dB, of each style; perplexity of the codebook over all pictures of zoo concepts."""
    rows = np.flatnonzero(pictures.held_out)
    images = pictures_from_bytes(torch.from_numpy(pictures.images[rows]))
    error = (tokenizer.decode(tokenizer.encode(images)) - images).square().mean((1, 2, 3))
    psnr = (-10 * error.log10()).numpy()
    found = [measure("PSNR, held-out pictures (dB)", psnr, 23)]
    for number, style in enumerate(STYLES):
        found.append(measure(f"PSNR, {style} (dB)", psnr[pictures.style[rows] == number], 20))
    for name, chosen in (("zoo pictures", pictures.concept >= 0), ("held-out pictures", pictures.held_out)):
        tokens = torch.cat(
            [
                tokenizer.encode(pictures_from_bytes(torch.from_numpy(pictures.images[chosen]))[i : i + 256])
                for i in range(0, int(chosen.sum()), 256)
            ]
        )
        share = torch.bincount(tokens.flatten(), minlength=CODES).double() / tokens.numel()
        perplexity = float(torch.special.entr(share).sum().exp())
        found.append(Measure(f"codebook perplexity, {name} (of {CODES})", perplexity, bar=CODES / 2))
    return found


def judge_measures(judge: ZooJudge, pictures: Pictures, reconstructed: tuple[np.ndarray, np.ndarray]) -> list[Measure]:
    """Concept and style of held-out real pictures, what reconstruction by the tokenizer costs (`reconstructed_hits`),
    and the null control of mode coverage."""
    rows = np.flatnonzero(pictures.held_out)
    images = pictures_from_bytes(torch.from_numpy(pictures.images[rows]))
    truth = pictures.concept[rows]
    judged = judge(images)
    top1, top5 = hits(judged.concept, truth)
    style = (judge.read_style(images).numpy() == pictures.style[rows]).astype(float)
    concept, reconstructed_style = reconstructed
    return [
        measure("concept top-1, held-out pictures", top1, 0.80),
        measure("concept top-5, held-out pictures", top5),
        measure("style top-1, held-out pictures", style, 0.95),
        measure("concept top-1, all real pictures reconstructed", concept),
        measure("style top-1, all real pictures reconstructed", reconstructed_style),
        measure("null control: even blends of two styles that count for one", blends_that_count(judge)),
    ]


def blends_that_count(judge: ZooJudge) -> np.ndarray:
    """Of each concept: the share of even blends of two of its pictures, of different styles, that mode coverage would
    count. A generator that only blends must not get credit for its styles. Float (concepts,), NaN for one style."""
    shares = []
    for concept in range(len(judge.concepts)):
        pictures, styles = judge.references(concept)
        half = len(pictures) // 2  # the rest are mirror images
        pairs = [(i, j) for i in range(half) for j in range(i) if styles[i] != styles[j]]
        blends = [(pictures[i] + pictures[j]) / 2 for i, j in pairs]
        counted = judge.nearest_style(torch.stack(blends), concept) >= 0 if blends else torch.empty(0)
        shares.append(float(counted.double().mean()))
    return np.array(shares)


def hits(ranked: Int[Tensor, "n top"], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the first, and whether any, of the ranked concepts is the true one: float (n,) each."""
    right = ranked.numpy() == truth[:, None]
    return right[:, 0].astype(float), right.any(1).astype(float)


@torch.inference_mode()
def reconstructed_hits(judge: ZooJudge, tokenizer: Tokenizer, pictures: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Whether concept and style of every zoo picture are named right after encoding and decoding: what a perfect
    generator could reach. Float (n,) each."""
    rows = np.flatnonzero(pictures.concept >= 0)
    images = pictures_from_bytes(torch.from_numpy(pictures.images[rows]))
    decoded = torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in images.split(256)])
    judged = judge(decoded)
    style = (judge.read_style(decoded).numpy() == pictures.style[rows]).astype(float)
    return hits(judged.concept, pictures.concept[rows])[0], style


def near_copies(tokens: Int[Tensor, "n positions"], training: Int[Tensor, "m positions"]) -> np.ndarray:
    """Whether a grid shares at least `NEAR` of its tokens with one training grid: float (n,)."""
    best = [(part[:, None] == training[None]).float().mean(-1).max(1).values for part in tokens.split(64)]
    return (torch.cat(best) >= NEAR).double().numpy()


def generator_measures(
    model: ZooModel,
    judge: ZooJudge,
    pictures: Pictures,
    training: Int[Tensor, "n positions"],
    reference: float,
    words: Mapping[str, Sequence[str]],
    coverage_concepts: int = 160,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[Measure]:
    """Fidelity on unseen wordings, styles that come out, copies, and the likelihood of seen and unseen pictures.

    `reference` is the judge's top-1 on reconstructed real pictures.
    """
    names = list(words)
    prompts = [Prompt(text) for name in names for text in held_out_wordings(name, words[name])]
    drawn = sample(model, prompts, n=1, seed=1, trace=False, on_batch=on_batch)
    judged = judge(drawn.images.flatten(0, 1))
    per_concept = len(prompts) // len(names)
    top1, top5 = (
        x.reshape(len(names), per_concept).mean(1)
        for x in hits(judged.concept, np.repeat(np.arange(len(names)), per_concept))
    )
    chosen = np.random.default_rng(0).permutation(len(names))[:coverage_concepts]
    many = sample(model, [names[i].lower() for i in chosen], n=COVERAGE_SAMPLES, seed=2, trace=False, on_batch=on_batch)
    covered = np.array(
        [mode_coverage(judge(row), int(i), judge.existing) for row, i in zip(many.images, chosen, strict=True)]
    )
    copies = near_copies(many.tokens.view(-1, GRID * GRID), training).reshape(-1, COVERAGE_SAMPLES).mean(1)
    found = [
        measure("judge top-1, unseen wordings", top1, 0.6 * reference),
        measure("judge top-5, unseen wordings", top5, 0.8),
        measure(f"styles that come out in {COVERAGE_SAMPLES} samples", covered, 0.5),
        measure("near copies of a training picture", copies),
    ]
    for name, rows in (
        ("training", (pictures.concept >= 0) & ~pictures.held_out),
        ("held-out", pictures.held_out),
    ):
        found.append(likelihood(model, f"bits per image, {name} pairs", pictures, rows, names))
    return found


def likelihood(
    model: ZooModel, name: str, pictures: Pictures, rows: Bool[np.ndarray, " n"], names: Sequence[str]
) -> Measure:
    images = pictures_from_bytes(torch.from_numpy(pictures.images[rows]))
    with torch.inference_mode():
        tokens = torch.cat([model.tokenizer.encode(part).flatten(1) for part in images.split(256)])
    conditions = model.encode([str(names[i]).lower() for i in pictures.concept[rows].tolist()])
    bits = bits_of_pictures(model.backbone, model.rule, tokens, conditions)
    return measure(f"{name} ({'exact' if is_exact(model.rule) else 'upper bound'})", bits)
