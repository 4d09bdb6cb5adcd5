"""How drawn pictures are held against the law of scenes: respect, openness, distance from the law, near copies.

`readings` says what a judge reads in each picture: int (prompts, n, attributes), n pictures of each prompt, values as
in scenes. Figures are of the attributes that captions can name; the mirror is left out, for it does not show in a
symmetric sprite. A confusion of the judge, rows true and columns read, is given by the attribute's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES
from divlens.lab.captions import NAMING
from divlens.lab.correction import check_confusion, corrected_entropies, distance_from, tells_values_apart
from divlens.lab.law import Law, training_scenes
from divlens.lab.meanings import Meaning
from divlens.statistics import FEWEST_TO_RESAMPLE, Interval, bootstrap_mean, mean_share

Confusions = Mapping[str, Float[np.ndarray, "_ _"]]
# From each of some pictures to each of some others, at least 0 and 0 for the same picture.
Distances = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "n others"]]
RARE = 0.01  # of real pictures of other combinations, the share that lies nearer to a training picture
FEWEST_REAL = 200  # one picture in a hundred of half of them
TOGETHER = 64  # pictures whose distances are held at once


@dataclass(frozen=True)
class Figure:
    """A mean over prompts with its 95% interval; `note` says why a part of it is NaN."""

    name: str
    interval: Interval
    note: str = ""


def figure(name: str, interval: Interval, undefined: str) -> Figure:
    """`undefined`: why there is no value, if there is none."""
    if math.isnan(interval.value):
        return Figure(name, interval, undefined)
    return Figure(name, interval, "one prompt has no interval" if math.isnan(interval.low) else "")


def respect(meanings: Sequence[Meaning], readings: Int[np.ndarray, "prompts n attributes"]) -> list[Figure]:
    """For each attribute the share, in [0, 1], of pictures that are read as the prompt names it, over the prompts that
    name it. Not corrected for the judge. Raises DivlensError for readings that do not fit the prompts."""
    check_readings(meanings, readings)
    found = []
    for attribute in NAMING:
        shares = np.full(len(meanings), np.nan)
        for x, meaning in enumerate(meanings):
            if attribute in meaning.named:
                shares[x] = (readings[x, :, attribute] == meaning.values[attribute]).mean()
        name = ATTRIBUTES[attribute].name
        found.append(figure(f"respect of {name}", mean_share(shares, readings.shape[1]), f"no prompt names the {name}"))
    return found


def openness(
    meanings: Sequence[Meaning], readings: Int[np.ndarray, "prompts n attributes"], confusions: Confusions | None = None
) -> list[Figure]:
    """For each attribute the entropy of what is drawn, given the prompt, over that of the law, over the prompts that
    leave it open: 0 where always the same comes out, 1 where all values come out evenly.

    Corrected for the number of pictures, so that a ratio may exceed 1, and with `confusions` for the judge: one that
    errs sees diversity where there is none. With 15% of styles misread, an openness of 0.73 is read as 0.83. Without
    them the judge is taken to be right. Raises DivlensError for what does not fit.
    """
    check_readings(meanings, readings)
    found = []
    for attribute in NAMING:
        open_ = leave_open(meanings, attribute)
        true = np.array([Law.uniform([meanings[x]]).over(attribute).entropy() for x in open_])
        confusion = confusion_of(confusions, attribute)
        known = tells_values_apart(confusion)
        bits = corrected_entropies(counts_of(readings[open_], attribute), confusion)
        interval = bootstrap_mean(bits / true if known else bits * np.nan, limits=(0.0, math.inf))
        reason = why_undefined(attribute, len(open_), known) or "an entropy needs two pictures of a prompt"
        found.append(figure(f"openness of {ATTRIBUTES[attribute].name}", interval, reason))
    return found


def total_variation(
    meanings: Sequence[Meaning],
    readings: Int[np.ndarray, "prompts n attributes"],
    confusions: Confusions | None = None,
    seed: int = 0,
) -> list[Figure]:
    """For each attribute the total variation, in [0, 1] but for noise, between the law that is drawn from and the true
    one, both over all prompts that leave it open. Corrected as `correction.distance_from` says.

    Its floor is the same of `readings` of real pictures as the tokenizer draws them, of scenes that `drawn_from_law`
    gives. It says which values are drawn too often over all prompts; whether each prompt draws all of them, `openness`
    says. Raises DivlensError for what does not fit.
    """
    check_readings(meanings, readings)
    found = []
    for attribute in NAMING:
        open_ = leave_open(meanings, attribute)
        confusion = confusion_of(confusions, attribute)
        interval = Interval(math.nan)
        if len(open_):
            law = Law.uniform([meanings[x] for x in open_]).over(attribute)
            truth = law.probability(np.arange(len(ATTRIBUTES[attribute]))[:, None])
            interval = distance_from(truth, counts_of(readings[open_], attribute), confusion, seed)
        known = tells_values_apart(confusion)
        reason = why_undefined(attribute, len(open_), known) or f"fewer than {FEWEST_TO_RESAMPLE} prompts"
        found.append(figure(f"total variation of {ATTRIBUTES[attribute].name}", interval, reason))
    return found


def why_undefined(attribute: int, prompts: int, known: bool) -> str:
    name = ATTRIBUTES[attribute].name
    if not prompts:
        return f"no prompt leaves the {name} open"
    return "" if known else f"the judge does not tell every {name} from the others"


def near_copies(
    drawn: Shaped[np.ndarray, "prompts n *picture"],
    real: Shaped[np.ndarray, "m *picture"],
    training: Shaped[np.ndarray, "k *picture"],
    distances: Distances,
) -> list[Figure]:
    """The share of drawn pictures that are nearer to a training picture than two real pictures of different
    combinations are, and as its null the same share of real pictures; both in [0, 1].

    `drawn` is of prompts that `never_shown` knows: another's law allows training pictures. Best they name a pair of
    concept and style that is held out as a whole: with other combinations, a picture whose background is not the one
    asked for is nearly always one of training, so that whoever does not listen seems to copy. `real` are pictures of
    such prompts, in random order, as the tokenizer draws them; none may look like a training picture.

    Near is what 1% of the first half of `real` are to their nearest training picture; the null is the share of the
    second half that is nearer. (That 1% of *pairs* are nearer would say nothing: of thousands of training pictures
    some are that near to any picture.) NaN where that distance is 0, or `real` has fewer than 200 pictures.
    """
    names = ("near copies", "near copies, real pictures")
    nothing = Interval(math.nan)
    if len(real) < FEWEST_REAL or not len(training):
        why = f"a null expects {FEWEST_REAL} real pictures and some of training, got {len(real)} and {len(training)}"
        return [Figure(name, nothing, why) for name in names]
    half = len(real) // 2
    of_real = nearest(real, training, distances)
    near = float(np.quantile(of_real[:half], RARE))
    if near == 0:
        why = f"{RARE:.0%} of the real pictures are training pictures"
        return [Figure(name, nothing, why) for name in names]
    prompts, n = drawn.shape[:2]
    of_drawn = nearest(drawn.reshape(prompts * n, *drawn.shape[2:]), training, distances).reshape(prompts, n)
    shares = mean_share((of_drawn < near).mean(1), n), mean_share((of_real[half:] < near).astype(float), 1)
    return [figure(name, share, "no prompts") for name, share in zip(names, shares, strict=True)]


def nearest(
    pictures: Shaped[np.ndarray, "n *picture"], training: Shaped[np.ndarray, "k *picture"], distances: Distances
) -> Float[np.ndarray, " n"]:
    """The distance of each picture to the training picture that is nearest to it."""
    parts = [distances(pictures[i : i + TOGETHER], training).min(1) for i in range(0, len(pictures), TOGETHER)]
    return np.concatenate(parts) if parts else np.empty(0)


def never_shown(meanings: Sequence[Meaning]) -> Bool[np.ndarray, " prompts"]:
    """Whether every scene that the prompt allows is held out, mirrored or not."""
    shown = training_scenes()
    boxes = [tuple(slice(None) if v is None else v for v in meaning.values) for meaning in meanings]
    return np.array([not shown[box].any() for box in boxes], bool)


def drawn_from_law(
    meanings: Sequence[Meaning], n: int, generator: np.random.Generator
) -> Int[np.ndarray, "prompts n attributes"]:
    """`n` scenes of each prompt by its law: what is not named is uniform."""
    scenes = np.stack([generator.integers(len(a), size=(len(meanings), n)) for a in ATTRIBUTES], axis=2)
    for x, meaning in enumerate(meanings):
        for attribute, value in enumerate(meaning.values):
            if value is not None:
                scenes[x, :, attribute] = value
    return scenes


def leave_open(meanings: Sequence[Meaning], attribute: int) -> list[int]:
    """The prompts that do not name an attribute."""
    return [x for x, meaning in enumerate(meanings) if attribute not in meaning.named]


def counts_of(readings: Int[np.ndarray, "prompts n attributes"], attribute: int) -> Float[np.ndarray, "prompts values"]:
    """How many pictures of each prompt are read as each value."""
    return (readings[:, :, attribute, None] == np.arange(len(ATTRIBUTES[attribute]))).sum(1).astype(float)


def confusion_of(confusions: Confusions | None, attribute: int) -> Float[np.ndarray, "true read"]:
    """Of one attribute, as float64; without any, that of a judge who is always right. Raises DivlensError for one that
    is missing, of another size, or no table of shares."""
    name, size = ATTRIBUTES[attribute].name, len(ATTRIBUTES[attribute])
    if confusions is None:
        return np.eye(size)
    if name not in confusions or confusions[name].shape != (size, size):
        got = confusions[name].shape if name in confusions else "none"
        raise DivlensError(f"expected a confusion of {name}, {size} by {size}, got {got}")
    confusion = np.asarray(confusions[name], float)
    check_confusion(confusion)
    return confusion / confusion.sum(1, keepdims=True)


def check_readings(meanings: Sequence[Meaning], readings: Int[np.ndarray, "prompts n attributes"]) -> None:
    prompts, n, attributes = readings.shape
    if prompts != len(meanings) or not prompts or not n or attributes != len(ATTRIBUTES):
        wanted = f"{len(meanings)} prompts, at least one, with pictures of {len(ATTRIBUTES)} attributes"
        raise DivlensError(f"readings expect {wanted}, got the shape {readings.shape}")
    for i, attribute in enumerate(ATTRIBUTES):
        low, high = readings[:, :, i].min(), readings[:, :, i].max()
        if low < 0 or high >= len(attribute):
            raise DivlensError(f"readings of {attribute.name} expect 0 to {len(attribute) - 1}, got {low} to {high}")
