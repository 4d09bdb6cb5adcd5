"""EmojiScenes: which scenes there are, which are held out, and how they are composed."""

import itertools

import numpy as np
import pytest
from PIL import Image

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUNDS, CONCEPT, MIRROR, PLACE, SIZE, STYLE, sizes_of
from divlens.lab.pictures import TOKENS, Atlas, compose, corners, packaged_atlas
from divlens.lab.scenes import (
    COUNT,
    WHOLE_PAIRS,
    all_scenes,
    held_out,
    in_whole_pairs,
    numbers_of,
    scenes_of,
    whole_pairs,
)


def some_scenes(count, seed=0):
    return scenes_of(np.random.default_rng(seed).integers(0, COUNT, count))


def test_scenes_are_all_combinations_once():
    assert COUNT == 110_592
    expected = list(itertools.islice(itertools.product(*map(range, sizes_of())), 5000))
    assert [tuple(row) for row in all_scenes()[:5000]] == expected
    assert (numbers_of(all_scenes()) == np.arange(COUNT)).all()


def test_scenes_that_do_not_exist_are_refused():
    with pytest.raises(DivlensError, match="numbers of scenes expect 0 to 110591, got 110592"):
        scenes_of(np.array([COUNT]))
    wrong = some_scenes(1)
    wrong[0, PLACE] = 9
    with pytest.raises(DivlensError, match="place expects 0 to 8, got 9 to 9"):
        compose(wrong)


def test_held_out_combinations_are_spread_evenly_over_all_pairs_of_values():
    scenes = all_scenes()
    others = scenes[~in_whole_pairs(scenes)]
    out = held_out(others)
    assert out.mean() == pytest.approx(11 / 72, abs=1e-3)
    for i, j in itertools.combinations(range(len(ATTRIBUTES)), 2):
        cell = others[:, i] * 64 + others[:, j]
        size, count = np.bincount(cell), np.bincount(cell, out)
        share = count[size > 0] / size[size > 0]
        # A cell has 160 scenes or more; drawn at random, the worst of 2,800 cells would be off by 0.1.
        assert abs(share - 0.15).max() < 0.0165, (ATTRIBUTES[i].name, ATTRIBUTES[j].name)
    # The same measure sees a pattern that is not even.
    cell = others[:, PLACE]
    skewed = np.bincount(cell, cell == 4) / np.bincount(cell)
    assert abs(skewed - 0.15).max() > 0.5


def test_some_pairs_of_concept_and_style_are_held_out_whole():
    pairs = whole_pairs()
    assert len(pairs) == WHOLE_PAIRS == len(set(pairs[:, 0]))
    assert np.bincount(pairs[:, 1], minlength=len(ATTRIBUTES[STYLE])).max() <= 2
    scenes = all_scenes()
    for concept, style in pairs:
        rows = (scenes[:, CONCEPT] == concept) & (scenes[:, STYLE] == style)
        assert held_out(scenes[rows]).all()
        assert not held_out(scenes[(scenes[:, CONCEPT] == concept) & ~rows]).all()


def test_every_other_pair_of_concept_and_style_is_shown_at_every_place_and_on_every_background():
    scenes = all_scenes()
    shown = scenes[~held_out(scenes)]
    for attribute in (2, SIZE, PLACE, MIRROR):
        found = {tuple(row) for row in shown[:, [CONCEPT, STYLE, attribute]]}
        assert len(found) == (64 * 6 - WHOLE_PAIRS) * len(ATTRIBUTES[attribute])


def composed_by_pillow(scene, atlas):
    """One picture, by another library and in another order: the sprite's own colours, laid over the background."""
    concept, style, background, size, place, mirror = (int(value) for value in scene)
    sprite = (atlas.large, atlas.small)[size][concept, style].astype(float)
    alpha = sprite[..., 3:]
    own = np.where(alpha > 0, sprite[..., :3] * 255 / np.maximum(alpha, 1), 0).round().clip(0, 255)
    drawn = Image.fromarray(np.concatenate([own, alpha], axis=2).astype(np.uint8))
    if mirror:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas = Image.new("RGBA", (48, 48), (*list(BACKGROUNDS.values())[background], 255))
    step = (8 - TOKENS[size]) // 2 * 6
    canvas.alpha_composite(drawn, (place % 3 * step, place // 3 * step))
    return np.asarray(canvas.convert("RGB")).astype(int)


def test_pictures_are_what_pillow_composes():
    atlas, scenes = packaged_atlas(), some_scenes(64)
    found = compose(scenes).astype(int)
    wanted = np.stack([composed_by_pillow(scene, atlas) for scene in scenes])
    # Undoing alpha rounds once, times alpha at most 0.5 levels; both compositions round once more, and Pillow's alpha
    # has seven bits more than eight.
    assert abs(found - wanted).max() <= 2
    elsewhere = scenes.copy()
    elsewhere[:, PLACE] = (elsewhere[:, PLACE] + 1) % 9
    assert (abs(compose(elsewhere).astype(int) - wanted).max((1, 2, 3)) > 30).all()


def test_a_picture_depends_on_its_scene_alone():
    scenes = some_scenes(40, seed=1)
    together = compose(scenes)
    assert (together == np.concatenate([compose(scenes[i : i + 1]) for i in range(40)])).all()
    assert (together[::-1] == compose(scenes[::-1])).all()
    assert compose(scenes[:0]).shape == (0, 48, 48, 3)


@pytest.mark.parametrize("size", [0, 1])
def test_sprites_move_by_whole_tokens_and_stay_inside(size):
    scenes = np.array([[7, 2, 5, size, place, 0] for place in range(9)])
    tops, lefts = corners(scenes, 6)
    assert not (tops % 6).any() and not (lefts % 6).any()
    side = TOKENS[size] * 6
    pictures = compose(scenes)
    cuts = [p[y : y + side, x : x + side] for p, y, x in zip(pictures, tops, lefts, strict=True)]
    assert all(cut.shape == (side, side, 3) and (cut == cuts[0]).all() for cut in cuts)
    assert len({(y, x) for y, x in zip(tops, lefts, strict=True)}) == 9


def test_sprites_have_transparent_edges_and_no_more_colour_than_alpha():
    for sprites in (packaged_atlas().large, packaged_atlas().small):
        assert (sprites[..., :3] <= sprites[..., 3:]).all()
        assert not sprites[:, :, [0, -1]].any() and not sprites[:, :, :, [0, -1]].any()
        assert (sprites[..., 3] > 128).mean((2, 3)).min() > 0.1  # and every one of them shows something


def test_no_two_sprites_are_near_twins():
    """Over white, each is nearer to itself one pixel to the right than to any sprite of another concept."""
    small = packaged_atlas().small.reshape(-1, 24, 24, 4).astype(np.float32)
    over = (small[..., :3] + 255 - small[..., 3:]) / 255
    flat = over.reshape(len(over), -1)
    squared = (flat**2).sum(1)
    distance = squared[:, None] + squared - 2 * flat @ flat.T
    concept = np.arange(len(flat)) // len(ATTRIBUTES[STYLE])
    distance[concept[:, None] == concept] = np.inf
    moved = ((np.roll(over, 1, axis=2) - over) ** 2).sum((1, 2, 3))
    assert (distance.min(1) > 0.5 * np.median(moved)).all()


def test_an_atlas_survives_being_stored():
    atlas = packaged_atlas()
    small = Atlas(atlas.large[:2, :2], atlas.small[:2, :2])
    again = Atlas.from_bytes(small.to_bytes())
    assert (again.large == small.large).all() and (again.small == small.small).all()
    assert not (again.large[0] == small.large[1]).all()


def test_many_concepts_are_not_left_right_symmetric():
    large = packaged_atlas().large.astype(int)
    unlike = abs(large - large[:, :, :, ::-1]).mean((2, 3, 4))
    assert ((unlike > 10).all(1)).sum() >= 16
