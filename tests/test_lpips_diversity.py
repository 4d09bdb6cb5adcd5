"""LPIPS as a variance: parity with both reference packages on real pictures, and the algebra of the sums.

data/emoji8.png is a strip of eight 64x64 pictures from Noto Emoji (Apache-2.0), Noto Emoji v1 (Apache-2.0), Fluent UI
Emoji (MIT) and FxEmojis (Apache-2.0).
"""

import copy
import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from divlens.diversity import (
    DiversityInputError,
    FeatureNetwork,
    FeatureSums,
    MissingPackageError,
    adapt_lpips,
    images_to_feature_sums,
    load_network,
    lpips_diversity,
    networks,
)

# Both sides are float32 networks of five to thirteen layers that add in different orders: each feature carries a few
# 1e-7 of its size, and so does a distance between different pictures. 1e-4 is what is promised to users; the measured
# error is below 1e-6.
RELATIVE_TOLERANCE = 1e-4

SEEDS = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None)  # the time of an example is the machine's business, not a property


@pytest.fixture(scope="module")
def pictures():
    """float32 (8, 3, 64, 64) in [0, 1]: real pictures."""
    with Image.open(Path(__file__).parent / "data" / "emoji8.png") as strip:
        pixels = torch.from_numpy(np.array(strip.convert("RGB")))
    return pixels.reshape(64, 8, 64, 3).permute(1, 3, 0, 2).float().div(255).contiguous()


@pytest.fixture(scope="module")
def network():
    return load_network("stlpips")


@pytest.fixture(scope="module")
def references(network):
    """Name to (the package's own pairwise model, our network)."""
    found: dict[str, tuple[Any, FeatureNetwork]] = {"stlpips": (reference_stlpips(), network)}
    for name in ("alex", "vgg"):
        model = reference_lpips(name)
        found[name] = (model, adapt_lpips(model))
    return found


def reference_stlpips():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stlpips_pytorch import stlpips

        return stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)


def reference_lpips(name):
    """The package's real linear weights over a seeded random backbone: the real backbone needs a download."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=name, pnet_rand=True, lpips=True, verbose=False)


def pairs_before(n):
    """The pairs i < j, written apart from the library's algebra."""
    return tuple(torch.tensor(list(itertools.combinations(range(n), 2))).T)


@torch.inference_mode()
def reference_distances(model, images):
    """The package's LPIPS of all pairs i < j, float64 (pairs,)."""
    i, j = pairs_before(len(images))
    return model(images[i], images[j], normalize=True).flatten().double()


@torch.inference_mode()
def our_distances(network, images):
    g = network(images).double()
    i, j = pairs_before(len(images))
    return (g[i] - g[j]).square().sum(1)


def largest_relative_error(got, want):
    return float(((got - want) / want).abs().max())


def brute_force(features):
    """The mean squared distance over pairs i < j, in float64."""
    wide = features.double()
    return float(np.mean([float((a - b).square().sum()) for a, b in itertools.combinations(wide, 2)]))


def random_features(seed, count, size=7):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def random_images(seed, count, size=24):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# Parity with the packages


@pytest.mark.parametrize("name", ["stlpips", "alex", "vgg"])
def test_pair_distances_equal_the_package(name, references, pictures):
    reference, ours = references[name]
    error = largest_relative_error(our_distances(ours, pictures), reference_distances(reference, pictures))
    assert error < RELATIVE_TOLERANCE


@pytest.mark.parametrize("name", ["stlpips", "alex", "vgg"])
def test_diversity_equals_the_package_over_pairs_before(name, references, pictures):
    reference, ours = references[name]
    images = torch.stack([pictures[:4], pictures[4:]])
    want = torch.stack([reference_distances(reference, group).mean() for group in images])
    assert largest_relative_error(lpips_diversity(images, ours), want) < RELATIVE_TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(64, 63), (63, 64), (63, 63), (21, 22), (40, 27), (62, 61)])
def test_parity_holds_at_every_parity_of_the_size(height, width, references, pictures):
    reference, ours = references["stlpips"]
    images = pictures[:, :, :height, :width]
    error = largest_relative_error(our_distances(ours, images), reference_distances(reference, images))
    assert error < RELATIVE_TOLERANCE


@pytest.mark.parametrize(
    "layer", ["first.interior", "first.right", "first.bottom", "conv2.weight", "conv5.weight", "conv3.bias"]
)
def test_parity_fails_when_one_layer_is_changed(layer, references, pictures):
    reference, ours = references["stlpips"]
    changed = copy.deepcopy(ours)
    tensor = {**dict(changed.backbone.named_buffers()), **dict(changed.backbone.named_parameters())}[layer]
    tensor *= 1.01
    error = largest_relative_error(our_distances(changed, pictures), reference_distances(reference, pictures))
    assert error > RELATIVE_TOLERANCE


@pytest.mark.parametrize("name", ["stlpips", "alex", "vgg"])
def test_parity_fails_when_one_linear_weight_is_changed(name, references, pictures):
    reference, ours = references[name]
    changed = copy.deepcopy(ours)
    root = changed.roots[2]
    root[root.argmax()] *= 1.1
    error = largest_relative_error(our_distances(changed, pictures), reference_distances(reference, pictures))
    assert error > RELATIVE_TOLERANCE


def test_parity_fails_for_pairs_that_include_an_image_with_itself(references, pictures):
    reference, ours = references["stlpips"]
    distances = reference_distances(reference, pictures)
    with_itself = distances.sum() / (len(distances) + len(pictures))
    assert largest_relative_error(lpips_diversity(pictures[None], ours), with_itself) > 0.1


def test_parity_fails_without_the_change_of_range(references, pictures):
    reference, ours = references["stlpips"]
    i, j = pairs_before(len(pictures))
    with torch.inference_mode():
        unscaled = reference(pictures[i], pictures[j], normalize=False).flatten().double()
    assert largest_relative_error(our_distances(ours, pictures), unscaled) > 0.01


@pytest.mark.parametrize("size", [(21, 21), (22, 22), (21, 30), (30, 21)])
def test_blurred_convolution_is_a_convolution_then_a_blur(size):
    weight, bias = random_features(1, 4 * 3, 121).reshape(4, 3, 11, 11), random_features(2, 1, 4)[0]
    x = random_features(3, 2 * 3, size[0] * size[1]).reshape(2, 3, *size)
    blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16).expand(4, 1, 3, 3)
    plain = F.conv2d(x, weight, bias, padding=2)
    want = F.conv2d(F.pad(plain, (2, 2, 2, 2), mode="reflect"), blur, stride=2, groups=4)
    replicated = F.conv2d(F.pad(plain, (2, 2, 2, 2), mode="replicate"), blur, stride=2, groups=4)
    got = networks.BlurredConvolution(weight, bias)(x)
    # Values are of size 20 (363 products of normal draws), so float32 sums are good to 1e-4 absolute.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    assert (got - replicated).abs().max() > 1


# The algebra of the sums


@unhurried
@given(seed=SEEDS, n=st.integers(2, 12), size=st.integers(1, 20), scale=st.floats(1e-3, 1e3))
def test_mean_pairwise_distance_is_brute_force(seed, n, size, scale):
    features = random_features(seed, n, size) * scale
    got = FeatureSums.of(features).mean_pairwise_distance()
    # One float32 subtraction per feature: 6e-8 of the distance to the first vector, twice for the square. That
    # distance can exceed the typical one by sqrt(n).
    assert got == pytest.approx(brute_force(features), rel=2e-6)


@unhurried
@given(seed=SEEDS, n=st.integers(2, 10))
def test_order_does_not_matter(seed, n):
    features = random_features(seed, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    straight, shuffled = FeatureSums.of(features), FeatureSums.of(features[order])
    assert shuffled.scatter == pytest.approx(straight.scatter, rel=2e-6)
    torch.testing.assert_close(shuffled.mean, straight.mean, rtol=0, atol=1e-6)


def test_order_of_pictures_does_not_matter_but_their_grouping_does(network, pictures):
    order = torch.tensor([3, 0, 2, 1, 7, 4, 6, 5])
    grouped = lpips_diversity(pictures.reshape(2, 4, 3, 64, 64), network)
    shuffled = lpips_diversity(pictures[order].reshape(2, 4, 3, 64, 64), network)
    regrouped = lpips_diversity(pictures[[0, 4, 1, 5, 2, 6, 3, 7]].reshape(2, 4, 3, 64, 64), network)
    torch.testing.assert_close(shuffled, grouped, rtol=1e-6, atol=0)
    assert largest_relative_error(regrouped, grouped) > 1e-3


@unhurried
@given(seed=SEEDS, sizes=st.tuples(*[st.integers(0, 5)] * 3))
def test_merge_is_associative_and_equals_the_sums_of_all(seed, sizes):
    features = random_features(seed, sum(sizes)) + 3
    a, b, c = (FeatureSums.of(part) for part in features.split(list(sizes)))
    whole = FeatureSums.of(features)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert merged.count == whole.count
        assert merged.scatter == pytest.approx(whole.scatter, rel=1e-5, abs=1e-12)
        torch.testing.assert_close(merged.mean, whole.mean, rtol=0, atol=1e-6)


def test_merge_is_not_a_sum_of_scatters():
    a, b = FeatureSums.of(random_features(0, 3)), FeatureSums.of(random_features(1, 3) + 3)
    assert a.merge(b).scatter > 2 * (a.scatter + b.scatter)


def test_merge_refuses_sums_of_another_network_or_size():
    with pytest.raises(DiversityInputError, match="same network and image size, got 7 and 8 features"):
        FeatureSums.of(random_features(0, 2, 7)).merge(FeatureSums.of(random_features(0, 2, 8)))


def test_sums_of_parts_merge_into_the_diversity_of_the_whole(network, pictures):
    parts = [next(images_to_feature_sums(part[None], network)) for part in (pictures[:3], pictures[3:4], pictures[4:])]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    whole = float(lpips_diversity(pictures[None], network))
    assert merged.mean_pairwise_distance() == pytest.approx(whole, rel=1e-6)
    assert merged.count == 8


# Cancellation


@settings(deadline=None, max_examples=20)  # each example runs the network
@given(seed=SEEDS, n=st.integers(2, 9), batch_size=st.integers(1, 10))
def test_duplicates_have_no_diversity(seed, n, batch_size):
    images = random_images(seed, 1).expand(n, 3, 24, 24)
    diversity = float(lpips_diversity(images[None], batch_size=batch_size))
    assert 0 <= diversity < 1e-10


def test_near_duplicates_have_diversity(network, pictures):
    """The twin of the test above: one step of 1/255 in an 8x8 patch of one channel of one picture is seen."""
    images = pictures[:1].repeat(4, 1, 1, 1)
    images[1, 0, 24:32, 24:32] -= torch.sign(images[1, 0, 24:32, 24:32] - 0.5) / 255
    assert float(lpips_diversity(images[None], network)) > 1e-8


@unhurried
@given(seed=SEEDS, n=st.integers(2, 12), exponent=st.integers(-6, 0))
def test_tiny_differences_keep_their_precision(seed, n, exponent):
    features = random_features(seed, 1, 50) + random_features(seed + 1, n, 50) * 10.0**exponent
    # Subtracting float32 numbers within a factor of two is exact, elsewhere good to 6e-8; all after it is float64.
    assert FeatureSums.of(features).mean_pairwise_distance() == pytest.approx(brute_force(features), rel=2e-6)


def test_tiny_differences_are_lost_by_the_formula_as_written():
    features = random_features(0, 1, 50) + random_features(1, 8, 50) * 1e-5
    written = 2 * 8 / 7 * (features.square().sum(1).mean() - features.mean(0).square().sum())
    assert float(written) != pytest.approx(brute_force(features), rel=0.1)


def test_tiny_differences_of_pictures_keep_their_precision(network, pictures):
    noise = random_images(5, 6, 64) - 0.5
    images = (pictures[:1] * 0.9 + 0.05 + noise * 2e-3)[None]
    truth = our_distances(copy.deepcopy(network).double(), images[0].double()).mean()
    assert float(truth) < 1e-2
    # The features themselves are float32: 1e-7 against differences of 1e-3.
    assert float(lpips_diversity(images, network)) == pytest.approx(float(truth), rel=1e-3)


# Streaming


def test_each_image_goes_through_the_network_once(network, pictures):
    seen = []
    watched = copy.deepcopy(network)
    watched.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    lpips_diversity(pictures.reshape(2, 4, 3, 64, 64), watched, batch_size=3)
    assert seen == [3, 3, 2]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 32])
def test_batch_size_changes_rounding_only(batch_size, network, pictures):
    images = pictures.reshape(2, 4, 3, 64, 64)
    want = lpips_diversity(images, network)
    torch.testing.assert_close(lpips_diversity(images, network, batch_size=batch_size), want, rtol=1e-5, atol=0)


def test_default_network_is_the_shift_tolerant_one(network, pictures):
    got = lpips_diversity(pictures[None], device="cpu")
    assert got.dtype == torch.float64
    assert got.shape == (1,)
    torch.testing.assert_close(got, lpips_diversity(pictures[None], network, device="cpu"), rtol=1e-6, atol=0)


def test_the_caller_keeps_gradients_on(pictures):
    next(images_to_feature_sums(pictures[None]))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_are_undefined(n, pictures):
    diversity = lpips_diversity(pictures[:n].expand(3, n, 3, 64, 64))
    assert diversity.shape == (3,)
    assert bool(diversity.isnan().all())
    assert [sums.count for sums in images_to_feature_sums(pictures[:n].expand(3, n, 3, 64, 64))] == [n] * 3


def test_two_images_are_defined_and_no_prompts_are_empty(pictures):
    assert math.isfinite(float(lpips_diversity(pictures[None, :2])))
    assert lpips_diversity(pictures[None, :2][:0]).shape == (0,)


# Bad input


def with_value(value):
    images = torch.full((1, 2, 3, 32, 32), 0.5)
    images[0, 1, 2, 3, 4] = value
    return images


EXPECTED = r"expected images as a float32 tensor \(prompts, n, 3, H, W\) in \[0, 1\], "
SHAPE = r"shape \(1, 2, 3, 32, 32\)"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 2, 3, 32, 32), np.float32), EXPECTED + "got ndarray"),
        (torch.zeros(2, 3, 32, 32), EXPECTED + r"got float32 of shape \(2, 3, 32, 32\) with values in \[0, 0\]"),
        (torch.zeros(1, 2, 32, 32, 3), EXPECTED + r"got float32 of shape \(1, 2, 32, 32, 3\) with values in \[0, 0\]"),
        (
            torch.zeros(1, 2, 3, 32, 32, dtype=torch.float64),
            EXPECTED + rf"got float64 of {SHAPE} with values in \[0, 0\]",
        ),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), EXPECTED + rf"got uint8 of {SHAPE} with values in \[0, 0\]"),
        (with_value(1.5), EXPECTED + rf"got float32 of {SHAPE} with values in \[0.5, 1.5\]"),
        (with_value(-1.0), EXPECTED + rf"got float32 of {SHAPE} with values in \[-1, 0.5\]"),
        (with_value(float("inf")), EXPECTED + rf"got float32 of {SHAPE} with values in \[0.5, inf\]"),
        (with_value(float("nan")), EXPECTED + rf"got float32 of {SHAPE} with NaN in 1 values"),
        (torch.zeros(1, 2, 3, 20, 32), "expected images of at least 21 x 21 pixels for this network, got 20 x 32"),
    ],
)
def test_bad_images_are_refused_in_one_line(images, message):
    for measure in (lpips_diversity, images_to_feature_sums):
        with pytest.raises(ValueError, match=f"^{message}$"):
            measure(images)


def test_good_images_at_the_edge_are_accepted():
    edge = torch.stack([torch.zeros(3, 21, 21), torch.ones(3, 21, 21)])[None]
    assert float(lpips_diversity(edge)) > 0


def test_bad_batch_size_is_refused(pictures):
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        lpips_diversity(pictures[None], batch_size=0)


@pytest.mark.parametrize("name", ["stlpips", "alex", "vgg"])
def test_smallest_image_is_the_smallest_the_network_takes(name, references):
    ours = references[name][1]
    size = ours.smallest
    assert float(lpips_diversity(random_images(0, 2, size)[None], ours)) > 0
    with pytest.raises(RuntimeError):
        ours(random_images(0, 1, size - 1))


# Loading


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="expected one of the networks stlpips, alex, vgg, got 'squeeze'"):
        load_network("squeeze")


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_negative_linear_weights_are_refused(bad):
    weights = [torch.ones(4), torch.tensor([1.0, bad])]
    with pytest.raises(ValueError, match=rf"expected linear weights of at least 0, got {bad} in layer 1"):
        FeatureNetwork(torch.nn.Identity(), torch.zeros(3), torch.ones(3), weights, smallest=1)
    FeatureNetwork(torch.nn.Identity(), torch.zeros(3), torch.ones(3), weights[:1], smallest=1)


def test_loading_runs_no_code_of_the_weights_package():
    code = (
        "import sys; from divlens.diversity import load_network; load_network('stlpips'); "
        "sys.exit(any(name.split('.')[0] in ('stlpips_pytorch', 'lpips') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_changed_weights_are_refused(tmp_path, monkeypatch):
    content = bytearray(networks._weights_path().read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "alex_shift_tolerant.pth"
    changed.write_bytes(content)
    monkeypatch.setattr(networks, "_weights_path", lambda: changed)
    with pytest.raises(ValueError, match=r"expected sha256 b356b382\w+ of alex_shift_tolerant.pth, got \w+"):
        load_network("stlpips")


def test_absent_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "_weights_path", lambda: tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none\.pth, found no file: reinstall stlpips_pytorch"):
        load_network("stlpips")


def test_missing_weights_package_is_named(monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install stlpips_pytorch"):
        load_network("stlpips")


def test_missing_lpips_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r"'alex' needs the package lpips .*: pip install 'divlens\[lpips\]'"):
        load_network("alex")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["alex", "vgg"])
def test_loading_by_name_asks_the_package_for_that_network(name, monkeypatch, references):
    original = lpips.LPIPS
    # Without the download: everything else of the call is as in use.
    monkeypatch.setattr(lpips, "LPIPS", lambda **settings: original(pnet_rand=True, **settings))
    loaded = load_network(name)
    for mine, other in zip(loaded.roots, references[name][1].roots, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize("setting", [{"spatial": True}, {"version": "0.0"}, {"lpips": False}, {"pnet_type": "squeeze"}])
def test_other_settings_of_lpips_are_refused(setting, references):
    model = copy.copy(references["alex"][0])
    adapt_lpips(model)
    for key, value in setting.items():
        setattr(model, key, value)
    with pytest.raises(DiversityInputError, match=r"expected lpips\.LPIPS with net 'alex' or 'vgg'"):
        adapt_lpips(model)


def test_a_download_that_fails_is_one_clear_line(monkeypatch):
    import lpips

    def fails(**settings):
        raise OSError("no route")

    monkeypatch.setattr(lpips, "LPIPS", fails)
    with pytest.raises(MissingPackageError, match="could not be downloaded"):
        load_network("vgg")
