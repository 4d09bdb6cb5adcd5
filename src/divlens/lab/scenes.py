"""Scenes as rows of indices, all of them in order, and which of them nothing is trained on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, MIRROR, PLACE, SIZE, STYLE, sizes_of

COUNT = int(np.prod(sizes_of()))
# Of the 8 x 9 combinations of background and place, the 11 that are held out for one (concept, style, size, mirror);
# for another they are the same eleven, moved around cyclically. 11 of 72 are 15.3%.
PATTERN = ((0, 0), (0, 4), (1, 7), (2, 2), (3, 5), (3, 8), (4, 1), (5, 3), (5, 6), (6, 0), (7, 4))
WHOLE_PAIRS = 8


def all_scenes() -> Int[np.ndarray, "scenes attributes"]:
    """Every scene, the last attribute running fastest: int64 (110592, 6)."""
    return scenes_of(np.arange(COUNT))


def scenes_of(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n attributes"]:
    """The scenes with these numbers, the inverse of `numbers_of`. Raises DivlensError outside of [0, COUNT)."""
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < COUNT):
        raise DivlensError(f"numbers of scenes expect 0 to {COUNT - 1}, got {numbers.min()} to {numbers.max()}")
    return np.stack(np.unravel_index(numbers, sizes_of()), axis=1).astype(np.int64)


def numbers_of(scenes: Int[np.ndarray, "n attributes"]) -> Int[np.ndarray, " n"]:
    """The place of each scene in `all_scenes`. Raises DivlensError for a value that an attribute does not have."""
    check_scenes(scenes)
    return np.asarray(np.ravel_multi_index(tuple(scenes.T), sizes_of()), np.int64)


def check_scenes(scenes: Int[np.ndarray, "n attributes"]) -> None:
    for attribute, values in zip(ATTRIBUTES, scenes.T, strict=True):
        if len(values) and not (values.min() >= 0 and values.max() < len(attribute)):
            raise DivlensError(
                f"{attribute.name} expects 0 to {len(attribute) - 1}, got {values.min()} to {values.max()}"
            )


def whole_pairs() -> Int[np.ndarray, "pairs 2"]:
    """The (concept, style) pairs of which nothing is ever shown in training: eight concepts, the styles in turn."""
    turn = np.arange(WHOLE_PAIRS)
    step = len(ATTRIBUTES[CONCEPT]) // WHOLE_PAIRS
    return np.stack([step * turn + 3, turn % len(ATTRIBUTES[STYLE])], axis=1)


def in_whole_pairs(scenes: Int[np.ndarray, "n attributes"]) -> Bool[np.ndarray, " n"]:
    """Whether the scene's (concept, style) pair is held out as a whole."""
    table = np.zeros((len(ATTRIBUTES[CONCEPT]), len(ATTRIBUTES[STYLE])), bool)
    table[tuple(whole_pairs().T)] = True
    return table[scenes[:, CONCEPT], scenes[:, STYLE]]


def held_out(scenes: Int[np.ndarray, "n attributes"]) -> Bool[np.ndarray, " n"]:
    """Whether nothing is trained on the scene: its (concept, style) pair is held out, or the combination is.

    Combinations are held out by a fixed pattern of backgrounds and places that concept, style, size and mirror move
    around (all 72 movements are used), so that the share is nearly the same given any pair of values.
    """
    concept, style, size, mirror = (scenes[:, i] for i in (CONCEPT, STYLE, SIZE, MIRROR))
    movement = 5 * (4 * style + 2 * size + mirror) + 24 * concept + 7 * (concept // 3)
    pattern = np.zeros((len(ATTRIBUTES[BACKGROUND]), len(ATTRIBUTES[PLACE])), bool)
    pattern[tuple(np.transpose(PATTERN))] = True
    rows, columns = ((scenes[:, i] + movement) % pattern.shape[axis] for axis, i in enumerate((BACKGROUND, PLACE)))
    return pattern[rows, columns] | in_whole_pairs(scenes)
