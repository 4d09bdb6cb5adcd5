"""H(Z) of tokens: known distributions, the textbook estimators where they apply, and what clustering does."""

import math

import numpy as np
import pytest
import torch

from divlens.information.token_entropy import ESTIMATORS, TokenCounts, entropies, plug_in, token_entropies, usage


def counts_of(tokens: np.ndarray, codes: int) -> TokenCounts:
    """tokens (prompts, samples, positions)."""
    prompts, samples, _ = tokens.shape
    counts = TokenCounts.empty(prompts, codes)
    for prompt in range(prompts):
        counts.add(torch.from_numpy(tokens[prompt]), np.full(samples, prompt), np.arange(samples))
    return counts


def test_closed_forms():
    uniform = np.tile(np.arange(8), (2, 10, 1))
    found = entropies(counts_of(uniform, 8))
    for name in ESTIMATORS:  # every image uses every code alike: nothing is missed and nothing scatters
        assert abs(found[name] - math.log(8)) < 1e-12
    constant = entropies(counts_of(np.zeros((2, 10, 5), int), 8))
    assert all(value == 0 for value in constant.values())
    assert usage(counts_of(np.zeros((1, 3, 5), int), 8)) == 1 / 8


def test_one_token_per_image_gives_the_textbook_miller_madow():
    """sum_k Var(p_k) / (2 p_k) = (m - 1) / (2 (n - 1)) for n independent draws of m used codes."""
    tokens = np.random.default_rng(0).integers(6, size=(1, 50, 1))
    found = entropies(counts_of(tokens, 6))
    assert abs(found["miller_madow"] - found["plug_in"] - 5 / (2 * 49)) < 1e-12


def test_one_token_per_image_gives_the_textbook_chao_shen():
    """Against the published formula, with coverage 1 - f1 / n."""
    tokens = np.random.default_rng(1).integers(40, size=(1, 60, 1))
    count = np.bincount(tokens.ravel(), minlength=40)
    n = 60
    p = (1 - (count == 1).sum() / n) * count[count > 0] / n
    expected = -(p * np.log(p) / (1 - (1 - p) ** n)).sum()
    assert abs(entropies(counts_of(tokens, 40))["chao_shen"] - expected) < 1e-9


def clustered(random: np.random.Generator, images: int, codes: int, positions: int = 12) -> np.ndarray:
    """Images that repeat few codes: position tokens come from a private palette of 3."""
    palette = random.integers(codes, size=(1, images, 3))
    return np.take_along_axis(palette, random.integers(3, size=(1, images, positions)), 2)


def test_corrections_take_away_bias_and_more_of_it_than_unclustered_ones():
    random, codes = np.random.default_rng(2), 64
    runs = [entropies(counts_of(clustered(random, 40, codes), codes)) for _ in range(60)]
    mean = {name: np.mean([run[name] for run in runs]) for name in ESTIMATORS}
    truth = math.log(codes)
    naive = mean["plug_in"] + (codes - 1) / (2 * 40 * 12)  # as if 480 tokens were independent
    assert mean["plug_in"] < naive < mean["miller_madow"] < truth + 0.05
    assert abs(mean["miller_madow"] - truth) < 0.5 * abs(mean["plug_in"] - truth)
    assert abs(mean["chao_shen"] - truth) < 0.5 * abs(mean["plug_in"] - truth)


def test_estimates_do_not_depend_on_names_or_order():
    random = np.random.default_rng(3)
    tokens = random.integers(10, size=(3, 16, 6))
    found = token_entropies(counts_of(tokens, 10), math.log(10))
    renamed = token_entropies(counts_of(9 - tokens[::-1], 10), math.log(10))
    for name in ESTIMATORS:
        assert abs(found[name].value - renamed[name].value) < 1e-12
        assert abs(found[name].mc_error - renamed[name].mc_error) < 1e-12
    other = token_entropies(counts_of(random.integers(9, size=(3, 16, 6)), 10), math.log(10))
    assert abs(found["plug_in"].value - other["plug_in"].value) > 1e-3


def test_counts_do_not_depend_on_the_batches():
    tokens = np.random.default_rng(4).integers(10, size=(2, 8, 6))
    whole, parts = counts_of(tokens, 10), TokenCounts.empty(2, 10)
    for prompt in range(2):
        parts.add(torch.from_numpy(tokens[prompt, 3:]), np.full(5, prompt), np.arange(3, 8))
        parts.add(torch.from_numpy(tokens[prompt, :3]), np.full(3, prompt), np.arange(3))
    for name in ("images", "count", "squares", "images_with"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_the_error_is_that_of_repetitions_and_falls_as_the_root_of_n():
    """The jackknife over 8 groups has 7 degrees of freedom; averaged over 60 runs its error is known to 4%."""
    random = np.random.default_rng(5)
    p = random.dirichlet(np.ones(20))
    found = {}
    for images in (40, 160):
        runs = [
            token_entropies(counts_of(random.choice(20, p=p, size=(1, images, 5)), 20), math.log(20)) for _ in range(60)
        ]
        for name in ESTIMATORS:
            scatter = np.std([run[name].value for run in runs], ddof=1)
            error = math.sqrt(np.mean([run[name].mc_error ** 2 for run in runs]))
            assert 0.7 < error / scatter < 1.45
            found[name, images] = error
    assert 1.5 < found["plug_in", 40] / found["plug_in", 160] < 2.7


def test_the_interval_over_prompts_surrounds_the_estimate():
    tokens = np.random.default_rng(6).integers(10, size=(8, 16, 6))
    for entropy in token_entropies(counts_of(tokens, 10), math.log(10)).values():
        assert entropy.over_prompts.low < entropy.value < entropy.over_prompts.high
    alone = token_entropies(counts_of(tokens[:1], 10), math.log(10))["plug_in"]
    assert math.isnan(alone.over_prompts.low) and not math.isnan(alone.mc_error)


def test_one_image_per_prompt_leaves_the_corrections_undefined():
    found = entropies(counts_of(np.random.default_rng(7).integers(10, size=(4, 1, 6)), 10))
    assert not math.isnan(found["plug_in"])
    assert math.isnan(found["miller_madow"]) and math.isnan(found["chao_shen"])


@pytest.mark.parametrize("codes", [2, 500])
def test_plug_in_is_the_entropy_of_the_histogram(codes):
    share = np.random.default_rng(8).dirichlet(np.ones(codes))
    share[0] = 0.0
    expected = -sum(value * math.log(value) for value in share if value > 0)
    assert abs(plug_in(share) - expected) < 1e-12


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.56, 0.44), (0.3, 0.26, 0.24, 0.2), (0.6, 0.3, 0.1)])
def test_the_interval_holds_the_truth_also_where_codes_are_used_nearly_alike(shares):
    """1000 runs of 48 images of 3 tokens; at the edge the interval is cut at what is possible, so it may hold more.

    A correct coverage of 0.95 has an error of 0.007: 0.92 is missed by chance once in 10^5.
    """
    random, codes = np.random.default_rng(8), len(shares)
    truth, held = -sum(p * math.log(p) for p in shares), dict.fromkeys(ESTIMATORS[1:], 0)
    for _ in range(1000):
        found = token_entropies(counts_of(random.choice(codes, p=shares, size=(1, 48, 3)), codes), math.log(codes))
        for name in held:
            held[name] += found[name].monte_carlo.low - 1e-12 <= truth <= found[name].monte_carlo.high + 1e-12
    for name, count in held.items():
        assert count > 920, name
        assert count < 980 or truth > math.log(codes) - 0.02, name


def test_without_a_second_group_there_is_no_interval():
    found = token_entropies(counts_of(np.zeros((1, 1, 4), int), 10), math.log(10))["plug_in"]
    assert found.value == 0 and math.isnan(found.mc_error)
    assert math.isnan(found.monte_carlo.low) and math.isnan(found.monte_carlo.high)
