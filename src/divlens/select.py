"""`select`: of pictures that are there, those that differ most from each other, at kept quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from divlens.diversity import FeatureNetwork, network_of
from divlens.errors import DivlensError, check_whole, is_number, shown
from divlens.metrics.kernels import products, squared_distances
from divlens.pictures import checked_pictures

IMAGES_PER_PASS = 32
MOST_SETS = 20_000  # that are tried one by one
LEAST_GAIN = 1e-9  # of a swap, relative: below it is rounding


@dataclass(frozen=True)
class Selection:
    """indices: of the chosen pictures, rising. diversity, before: the mean squared distance of two of the chosen and of
    two of all pictures, which with the features of an LPIPS network is the LPIPS diversity; NaN for fewer than two.
    exact: whether no other choice has a larger sum of distances."""

    indices: tuple[int, ...]
    diversity: float
    before: float
    exact: bool

    def __str__(self) -> str:
        how = "the most diverse choice" if self.exact else "at least half as spread as any"
        return f"pictures {', '.join(map(str, self.indices))}: {self.diversity:.3f}, {self.before:.3f} of all ({how})"


@no_type_check  # it checks its input itself; the shapes are for readers
def select(
    images: Float32[Tensor, "m 3 height width"] | None,
    k: int,
    quality: Sequence[float] | Tensor | None = None,
    *,
    least: float | None = None,
    network: FeatureNetwork | str | None = None,
    features: Float[Tensor, "m numbers"] | None = None,
) -> Selection:
    """The `k` of m pictures whose distances from each other have the largest sum.

    A distance is the root of LPIPS, so that the triangle inequality holds: |g - g'| of the feature vectors of `network`
    (as of `lpips_diversity`), each picture going through it once; or of `features`, those of any other measure, in
    place of `images`. `quality`: a number of each picture, such as a CLIP score or whether a judge reads it right,
    larger is better. Pictures below `least` are not chosen; None is the median, or what the k-th best has where that
    is lower.

    Where there are at most 20,000 choices all are tried. Otherwise the two that are furthest from each other are taken,
    and then, one by one, the picture with the largest sum of distances to those that are; its sum is at least half of
    the largest one (Birnbaum and Goldman, 2009), and then single pictures are exchanged as long as the sum rises.
    Finding the best choice is NP-hard. Of equal choices the one with better, then with earlier pictures is taken.

    Raises DivlensError for k below 1 or above m, or above the number of pictures of quality `least`, for a quality that
    is not one number of each picture, and for features that are not finite; and PictureError as `lpips_diversity` does.
    """
    vectors = features_of(images, network) if features is None else checked_features(features)
    m = len(vectors)
    check_whole("select(k=...)", k, 1)
    if k > m:
        raise DivlensError(f"select expects k to be at most the number of pictures, {m}, got {k}")
    if least is not None and (quality is None or not is_number(least)):
        raise DivlensError(f"select(least=...) expects a number, and the quality of the pictures, got {shown(least)}")
    allowed = list(range(m)) if quality is None else allowed_pictures(numbers_of(quality, m), k, least)
    gram = products(list(vectors.split(IMAGES_PER_PASS)))
    squared = squared_distances(gram.diagonal(), gram.diagonal(), gram)
    squared.fill_diagonal_(0.0)
    distance = squared.sqrt()[allowed][:, allowed].numpy()
    exact = math.comb(len(allowed), k) <= MOST_SETS
    chosen = best_set(distance, k) if exact else exchanged(distance, greedy_set(distance, k))
    indices = sorted(allowed[one] for one in chosen)
    return Selection(tuple(indices), mean_of_pairs(squared[indices][:, indices]), mean_of_pairs(squared), exact)


@torch.inference_mode()
def features_of(images: object, network: FeatureNetwork | str | None) -> Float[Tensor, "m numbers"]:
    pictures, known = checked_pictures(images, "images", "m"), network_of(network)
    if not len(pictures):
        raise DivlensError("select expects at least one picture, got none")
    known.check_size(pictures)
    return torch.cat([known(part.to(known.device)).cpu() for part in pictures.split(IMAGES_PER_PASS)])


def checked_features(features: object) -> Float[Tensor, "m numbers"]:
    if not (isinstance(features, Tensor) and features.ndim == 2 and features.is_floating_point()):
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise DivlensError(f"select(features=...) expects a tensor of numbers, a row of each picture, got {got}")
    if not len(features) or not bool(features.isfinite().all()):
        raise DivlensError("select(features=...) expects finite numbers of at least one picture, got others or none")
    return features.detach().cpu()


def numbers_of(quality: Sequence[float] | Tensor, m: int) -> Float[np.ndarray, " m"]:
    """Raises DivlensError for what is not a number of each picture."""
    try:
        found = np.asarray(quality.detach().cpu() if isinstance(quality, Tensor) else quality, dtype=float)
    except (TypeError, ValueError):
        raise DivlensError(f"select(quality=...) expects a number of each picture, got {quality!r:.60}") from None
    if found.shape != (m,) or not np.isfinite(found).all():
        raise DivlensError(f"select(quality=...) expects {m} finite numbers, one of each picture, got {quality!r:.60}")
    return found


def allowed_pictures(quality: Float[np.ndarray, " m"], k: int, least: float | None) -> list[int]:
    """Those that are good enough, the best first. Raises DivlensError where they are too few."""
    order = np.argsort(-quality, kind="stable")
    if least is None:
        least = min(float(np.median(quality)), float(quality[order[k - 1]]))
    allowed = [int(one) for one in order if quality[one] >= least]
    if len(allowed) < k:
        raise DivlensError(f"select expects {k} pictures of quality {least!r} at least, got {len(allowed)}")
    return allowed


def best_set(distance: Float64[np.ndarray, "m m"], k: int) -> list[int]:
    """By trying all."""
    sets = np.array(list(combinations(range(len(distance)), k)))
    sums = np.zeros(len(sets))
    for one, other in combinations(range(k), 2):
        sums += distance[sets[:, one], sets[:, other]]
    return sets[int((sums >= sums.max() * (1 - LEAST_GAIN)).argmax())].tolist()


def greedy_set(distance: Float64[np.ndarray, "m m"], k: int) -> list[int]:
    """The furthest two, and then always the one that is furthest from all that are there."""
    first, second = np.unravel_index(int(distance.argmax()), distance.shape)
    chosen = [int(first), int(second)][:k]
    sums = distance[chosen].sum(0)
    while len(chosen) < k:
        sums[chosen] = -math.inf
        chosen.append(int(sums.argmax()))
        sums = sums + distance[chosen[-1]]
    return chosen


def exchanged(distance: Float64[np.ndarray, "m m"], chosen: list[int]) -> list[int]:
    """Single pictures exchanged as long as the sum of distances rises, always those that raise it most."""
    chosen = list(chosen)
    while True:
        others = [one for one in range(len(distance)) if one not in chosen]
        to_chosen = distance[:, chosen].sum(1)
        gain = to_chosen[others][:, None] - distance[np.ix_(others, chosen)] - to_chosen[chosen]
        if not gain.size or gain.max() <= LEAST_GAIN * to_chosen[chosen].sum():
            return chosen
        into, out = np.unravel_index(int(gain.argmax()), gain.shape)
        chosen[int(out)] = others[int(into)]


def mean_of_pairs(squared: Float64[Tensor, "n n"]) -> float:
    n = len(squared)
    return float(squared.sum()) / (n * (n - 1)) if n > 1 else math.nan
