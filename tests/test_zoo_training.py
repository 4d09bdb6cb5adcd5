"""The networks of the zoo and their training."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, MIRROR, sizes_of
from divlens.lab.captions import vocabulary
from divlens.lab.pictures import corners
from divlens.lab.reading import read
from divlens.lab.scenes import COUNT, all_scenes, held_out, in_whole_pairs, scenes_of
from divlens.models.zoo import adapter
from divlens.models.zoo.judge_network import JudgeNetwork
from divlens.models.zoo.networks import Backbone, Sizes
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.zoo import scene_measures, sprites, train_generators, train_judge, train_tokenizer
from divlens.zoo.train_generators import ar_loss, diffusion_loss, mim_loss
from divlens.zoo.train_tokenizer import draw_scenes, edge_error, pictures_of
from divlens.zoo.training import Recipe

CPU = torch.device("cpu")
SHORT = Recipe(steps=3, batch=8)


def small_tokenizer():
    torch.manual_seed(0)
    return Tokenizer(codes=64, widths=(16, 16, 8)).eval()


@torch.inference_mode()
@pytest.mark.parametrize("size", [0, 1])
def test_a_sprite_at_another_place_is_the_same_tokens_at_another_place(size):
    tokenizer = small_tokenizer()
    # Random weights name everything by few codes; the features themselves say more than their codes.
    scenes = np.array([[7, 2, 5, size, place, 0] for place in range(9)])
    features = tokenizer.features(pictures_of(scenes))
    tops, lefts = corners(scenes, 1)
    side = (6, 4)[size]
    cuts = [grid[y : y + side, x : x + side] for grid, y, x in zip(features, tops, lefts, strict=True)]
    for cut in cuts:
        torch.testing.assert_close(cut, cuts[0], atol=1e-5, rtol=0)  # float32 sums in another order
    moved = tokenizer.features(pictures_of(scenes).roll(3, dims=3))  # half a token
    assert (moved[0, :side, :side] - cuts[0]).abs().max() > 0.01
    other = tokenizer.features(pictures_of(scenes + np.eye(6, dtype=int)[BACKGROUND]))
    assert (other[0, :side, :side] - cuts[0]).abs().max() > 0.01


@pytest.fixture
def seen(monkeypatch):
    """Every scene whose picture training asks for."""
    found = []

    def recorded(scenes, atlas=None):
        found.append(scenes)
        return pictures_of(scenes, atlas)

    for module in (train_tokenizer, train_judge):
        monkeypatch.setattr(module, "pictures_of", recorded)
    return found


def test_nothing_that_is_held_out_is_seen_in_training(seen, tmp_path, monkeypatch):
    recipe = Recipe(steps=2, batch=64)
    tokenizer = train_tokenizer.train(tmp_path, CPU, recipe, tokenizer=small_tokenizer(), quantise_from=1)
    assert np.concatenate(seen).shape == (128, 6) and not held_out(np.concatenate(seen)).any()
    train_judge.train(tokenizer, tmp_path, CPU, Recipe(steps=1, batch=8))
    assert len(np.concatenate(seen)) == 128 + 8 and not held_out(np.concatenate(seen)).any()
    monkeypatch.setattr(train_generators, "encode_scenes", lambda _, scenes: torch.zeros(len(scenes), 64).short())
    scenes, tokens = train_generators.training_grids(tokenizer, tmp_path)
    assert len(scenes) == len(tokens) == (~held_out(all_scenes())).sum() and not held_out(scenes).any()
    # Drawn from all scenes, as many would hold some that are held out, but for one time in 10^10.
    assert held_out(draw_scenes(all_scenes(), 128)).any()


def test_generators_read_captions_of_the_scenes_they_see():
    captions = train_generators.Captions(strange=0.0)
    scenes = scenes_of(np.arange(0, COUNT, 1731))
    words = captions.draw(scenes)
    assert not (words == 1).any()
    for row, scene in zip(words[:, :].tolist(), scenes, strict=True):
        text = " ".join(captions.vocabulary.words[i - 2] for i in row if i)
        if text:
            meaning = read(text)
            assert all(meaning.values[i] == scene[i] for i in meaning.named)
    assert 0 < (words == 0).all(1).sum() < 20  # of 64; a tenth has no caption
    some = train_generators.Captions(strange=1.0).draw(scenes)
    assert (some == 1).any() and (some > 1).any(1).sum() > 40  # what is named is never unknown


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    small = partial(Sizes, width=32, layers=1)
    monkeypatch.setattr(train_generators, "Sizes", small)
    tokenizer = small_tokenizer()
    scenes = all_scenes()[:512]
    grids = (scenes, torch.randint(64, (512, 64), generator=torch.Generator().manual_seed(0)).short())
    first = train_generators.train("mim", tokenizer, tmp_path, CPU, SHORT, grids)
    again = train_generators.train("mim", tokenizer, tmp_path, CPU, SHORT, grids)
    other = train_generators.train("ar", tokenizer, tmp_path, CPU, SHORT, grids)
    assert torch.equal(first.head.weight, again.head.weight)
    assert first.head.weight.shape == (64, 32) and not first.sizes.causal and other.sizes.causal


@torch.inference_mode()
def test_losses_of_a_uniform_model_are_the_log_of_the_number_of_codes():
    torch.manual_seed(0)
    tokens, words = torch.randint(1024, (4, 64)), torch.randint(2, 100, (4, 24))
    losses: dict[adapter.Family, Callable] = {
        "ar": ar_loss,
        "mim": mim_loss,
        "diffusion": diffusion_loss,
    }
    for family, loss in losses.items():
        model = Backbone(Sizes(len(vocabulary()) + 2, causal=family == "ar"))
        model.head.weight.zero_()
        model.head.bias.zero_()
        assert float(loss(model, tokens, words)[0]) == pytest.approx(math.log(1024), abs=1e-5)
        model.head.bias[:512] = 1.0
        assert float(loss(model, tokens % 512, words)[0]) < math.log(1024) - 0.1


def test_edge_error_sees_blur_and_not_a_shift_of_colour():
    images = pictures_of(scenes_of(np.array([5000])))
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert float(edge_error(images + 0.1, images)) == pytest.approx(0, abs=1e-10)
    assert float(edge_error(blurred, images)) > 1e-3


def test_figures_of_the_judge():
    scenes = scenes_of(np.random.default_rng(0).integers(0, COUNT, 20_000))
    assert set(train_judge.accuracies(scenes, scenes).values()) == {1.0}
    wrong = scenes.copy()
    wrong[::2, 0] = (wrong[::2, 0] + 1) % 64
    assert train_judge.accuracies(wrong, scenes)["concept"] == 0.5
    tables = train_judge.confusions(wrong, scenes)
    for i, attribute in enumerate(ATTRIBUTES):
        table = tables[attribute.name]
        assert table.shape == (len(attribute),) * 2
        torch.testing.assert_close(table.sum(1), torch.ones(len(attribute)))
        assert (i == 0) != bool((table == torch.eye(len(attribute))).all())
    flipped = scenes.copy()
    flipped[:, MIRROR] = 1 - flipped[:, MIRROR]
    shows = train_judge.mirror_shows()
    assert train_judge.accuracies(flipped, scenes)["mirror"] == 0 and 0.2 < shows.mean() < 1


def test_the_judge_has_a_head_per_attribute():
    logits = JudgeNetwork(sizes_of())(pictures_of(scenes_of(np.arange(3))))
    assert [tuple(part.shape) for part in logits] == [(3, size) for size in sizes_of()]


def test_samples_for_figures_are_of_held_out_scenes():
    known, unknown = scene_measures.held_out_sample(500), scene_measures.whole_pairs_sample(100)
    assert held_out(known).all() and not in_whole_pairs(known).any() and in_whole_pairs(unknown).all()
    assert len(np.unique(known[:, 0])) == 64 and len(np.unique(unknown[:, 0])) == 8


def test_a_sprite_is_cropped_fitted_and_has_its_colours_times_alpha():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="100" height="100">'
        '<rect x="20" y="40" width="60" height="30" fill="#ff0000" fill-opacity="0.5"/></svg>'
    )
    drawn = sprites.sprite(svg, 24).astype(int)
    inside = drawn[7:17, 3:21]
    # Half of 255 is 127 or 128, as the renderer rounds; red is that times alpha once more rounded.
    assert abs(inside[..., 3] - 127.5).max() <= 1 and abs(inside[..., 0] - 127.5).max() <= 1
    assert not inside[..., 1:3].any()
    assert not drawn[:6].any() and not drawn[18:].any() and not drawn[:, 0].any() and not drawn[:, 23].any()


def test_the_trained_tokenizer_draws_scenes_that_it_never_saw():
    """Bars: 28 dB on average, 26 in the worst style. On 3,000 of these scenes it has 34.5 and 33.2."""
    tokenizer = adapter.tokenizer_from(None, "cpu")
    sample = scene_measures.held_out_sample(240)
    signal = train_tokenizer.signal_to_noise(tokenizer, sample)
    assert signal.mean() > 28 and min(train_tokenizer.by_style(sample, signal).values()) > 26
    torch.manual_seed(0)
    assert train_tokenizer.signal_to_noise(Tokenizer().eval(), sample[:24]).mean() < 20  # the control
