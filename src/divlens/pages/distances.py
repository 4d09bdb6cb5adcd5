"""Distances between the pictures of one prompt: which are nearest, and how far their mean may be off.

The mean distance over pairs of n pictures is a U-statistic, and its pairs share pictures. So its error comes from
leaving out one picture at a time (the jackknife; Arvesen, 1969), never from the spread of pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from divlens.statistics import Interval, student_t

FEWEST = 3  # pictures that leave a pair when one is left out


class Pair(NamedTuple):
    """Two pictures by their places in a row, and their distance."""

    first: int
    second: int
    distance: float


def squared_distances(features: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n n"]:
    """|g_i - g_j|^2 of every pair, at least 0, and exactly 0 of a vector from itself."""
    away = features.astype(float) - features[:1]  # from one of them: nearly equal vectors lose nothing
    squares = (away**2).sum(1)
    found = np.maximum(squares[:, None] + squares[None] - 2 * away @ away.T, 0)
    np.fill_diagonal(found, 0)
    return found


def nearest_and_farthest(distances: Float[np.ndarray, "n n"]) -> tuple[Pair, Pair] | None:
    """The pair with the smallest distance above 0 (duplicates are shown as such) and that with the largest; None where
    fewer than two different pairs are left to tell apart."""
    rows, columns = np.triu_indices(len(distances), 1)
    found = distances[rows, columns]
    apart = np.flatnonzero(found > 0)
    if len(apart) < 2:
        return None
    near, far = (
        Pair(int(rows[at]), int(columns[at]), float(found[at]))
        for at in (apart[found[apart].argmin()], apart[found[apart].argmax()])
    )
    return near, far


def mean_distance(distances: Float[np.ndarray, "n n"]) -> Interval:
    """The mean over pairs with its 95% interval for this very prompt, over its samples; see `changed_distance`."""
    return with_error(mean_over_pairs(distances), left_out(distances)).within(0)


def changed_distance(after: Float[np.ndarray, "n n"], before: Float[np.ndarray, "n n"]) -> Interval:
    """after - before of the means over pairs, where picture i of both has the same noise and so is left out of both.

    Ends are NaN for fewer than 3 pictures. Student's t with n - 1 degrees of freedom.
    """
    value = mean_over_pairs(after) - mean_over_pairs(before)
    return with_error(value, left_out(after) - left_out(before))


def mean_over_pairs(distances: Float[np.ndarray, "n n"]) -> float:
    n = len(distances)
    return float(distances.sum() / (n * (n - 1))) if n > 1 else math.nan


def left_out(distances: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """The mean over the pairs that are left without each picture; NaN where there are none."""
    n = len(distances)
    if n < FEWEST:
        return np.full(n, math.nan)
    return (distances.sum() - 2 * distances.sum(1)) / ((n - 1) * (n - 2))


def with_error(value: float, without_one: Float[np.ndarray, " n"]) -> Interval:
    n = len(without_one)
    if n < FEWEST:
        return Interval(value)
    error = math.sqrt((n - 1) / n * float(((without_one - without_one.mean()) ** 2).sum()))
    return Interval(value, value - student_t(n - 1) * error, value + student_t(n - 1) * error)
