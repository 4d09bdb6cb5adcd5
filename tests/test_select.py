"""`select` against all choices tried one by one, its guarantee, kept quality, and what it refuses."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import divlens
from divlens.errors import DivlensError
from divlens.select import exchanged, greedy_set, select

fixed = settings(derandomize=True, deadline=None, max_examples=60)  # the same examples every time


def points(m: int, seed: int, clusters: int = 0) -> torch.Tensor:
    """Feature vectors: scattered, or nearly alike within each of some clusters."""
    random = np.random.default_rng(seed)
    if not clusters:
        return torch.from_numpy(random.normal(size=(m, 4)) * random.exponential(size=(m, 1)))
    centres = random.normal(size=(clusters, 4))
    return torch.from_numpy(centres[random.integers(clusters, size=m)] + 0.01 * random.normal(size=(m, 4)))


def spread(features: torch.Tensor, chosen) -> float:
    """The sum of distances, pair by pair."""
    return sum(math.dist(features[i].tolist(), features[j].tolist()) for i, j in itertools.combinations(chosen, 2))


def best_by_hand(features: torch.Tensor, k: int, among=None) -> float:
    return max(spread(features, one) for one in itertools.combinations(among or range(len(features)), k))


@fixed
@given(m=st.integers(1, 8), k=st.integers(1, 8), seed=st.integers(0, 999), clusters=st.sampled_from([0, 2, 3]))
def test_few_pictures_are_chosen_as_by_trying_all(m, k, seed, clusters):
    features = points(m, seed, clusters)
    if k > m:
        with pytest.raises(
            DivlensError, match=f"^select expects k to be at most the number of pictures, {m}, got {k}$"
        ):
            select(None, k, features=features)
        return
    found = select(None, k, features=features)
    assert found.exact and len(set(found.indices)) == k and list(found.indices) == sorted(found.indices)
    assert math.isclose(spread(features, found.indices), best_by_hand(features, k), rel_tol=1e-7, abs_tol=1e-6)


@fixed
@given(m=st.integers(2, 9), k=st.integers(2, 6), seed=st.integers(0, 999), clusters=st.sampled_from([0, 2, 3]))
def test_the_greedy_choice_has_half_of_the_best_sum_and_exchanges_only_raise_it(m, k, seed, clusters):
    k, features = min(k, m), points(m, seed, clusters)
    distance = torch.cdist(features, features).numpy()
    greedy = greedy_set(distance, k)
    better = exchanged(distance, greedy)
    assert len(set(greedy)) == len(set(better)) == k
    sums = [spread(features, one) for one in (greedy, better)]
    best = best_by_hand(features, k)
    assert best / 2 <= sums[0] + 1e-9 <= sums[1] + 2e-9 <= best + 3e-9


def test_the_greedy_choice_alone_is_not_always_the_best():
    """The control of the two tests above: they could tell."""
    behind = 0
    for seed in range(40):
        features = points(9, seed)
        behind += (
            spread(features, greedy_set(torch.cdist(features, features).numpy(), 4)) < best_by_hand(features, 4) - 1e-6
        )
    assert behind > 0


def test_many_pictures_are_chosen_by_exchange_and_better_than_by_chance():
    features = points(60, 5)
    found = select(None, 8, features=features)
    assert not found.exact and len(set(found.indices)) == 8
    random = np.random.default_rng(0)
    by_chance = max(spread(features, random.choice(60, 8, replace=False)) for _ in range(500))
    assert spread(features, found.indices) > by_chance
    assert found.diversity > found.before


def test_of_clusters_of_alike_pictures_each_gives_one():
    features = torch.eye(4).repeat_interleave(10, 0) + 1e-3 * torch.randn(
        40, 4, generator=torch.Generator().manual_seed(0)
    )
    found = select(None, 4, features=features)
    assert {one // 10 for one in found.indices} == {0, 1, 2, 3}
    assert {one // 10 for one in range(4)} == {0}  # the control: the first four are of one cluster


def test_the_diversity_of_pictures_is_their_lpips_diversity():
    images = torch.rand(7, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * torch.rand(7, 1, 1, 1)
    found = select(images, 3)
    expected = divlens.lpips_diversity(images[list(found.indices)][None])
    assert math.isclose(found.diversity, float(expected[0]), rel_tol=1e-5)
    assert math.isclose(found.before, float(divlens.lpips_diversity(images[None])[0]), rel_tol=1e-5)
    roots = {
        pair: math.sqrt(max(0.0, float(divlens.lpips_diversity(images[list(pair)][None])[0])))
        for pair in itertools.combinations(range(7), 2)
    }
    best = max(
        itertools.combinations(range(7), 3), key=lambda one: sum(roots[p] for p in itertools.combinations(one, 2))
    )
    assert found.indices == best
    assert "the most diverse choice" in str(found)


@fixed
@given(m=st.integers(2, 8), k=st.integers(1, 8), seed=st.integers(0, 999), right=st.booleans())
def test_quality_is_kept(m, k, seed, right):
    """No chosen picture is below the median, but where the k best are; and among those that are not the sum is best."""
    k, features, random = min(k, m), points(m, seed), np.random.default_rng(seed)
    quality = (random.random(m) < 0.6).astype(float) if right else random.random(m)
    found = select(None, k, quality.tolist(), features=features)
    least = min(np.median(quality), np.sort(quality)[::-1][k - 1])
    among = [i for i in range(m) if quality[i] >= least]
    assert set(found.indices) <= set(among)
    assert math.isclose(spread(features, found.indices), best_by_hand(features, k, among), rel_tol=1e-7, abs_tol=1e-6)


def test_a_level_of_quality_can_be_asked_for():
    features, quality = points(6, 1), torch.tensor([True, True, False, True, False, False])
    assert set(select(None, 3, quality, least=1, features=features).indices) == {0, 1, 3}
    assert set(select(None, 3, features=features).indices) != {0, 1, 3}  # the control
    with pytest.raises(DivlensError, match=r"^select expects 4 pictures of quality 1 at least, got 3$"):
        select(None, 4, quality, least=1, features=features)


def test_without_other_differences_better_pictures_are_chosen():
    assert select(None, 2, [0.1, 0.2, 0.9, 0.8], features=torch.zeros(4, 2)).indices == (2, 3)
    assert select(None, 1, [0.1, 0.2, 0.9, 0.8], features=torch.zeros(4, 2)).indices == (2,)


WRONG = {
    "k above m": lambda: select(None, 5, features=points(4, 0)),
    "k of 0": lambda: select(None, 0, features=points(4, 0)),
    "k no number": lambda: select(None, 1.5, features=points(4, 0)),  # type: ignore[arg-type]
    "too few qualities": lambda: select(None, 1, [1.0], features=points(4, 0)),
    "quality is NaN": lambda: select(None, 1, [math.nan] * 4, features=points(4, 0)),
    "quality is text": lambda: select(None, 1, "good", features=points(4, 0)),  # type: ignore[arg-type]
    "least without quality": lambda: select(None, 1, least=0.5, features=points(4, 0)),
    "least is NaN": lambda: select(None, 1, [1.0] * 4, least=math.nan, features=points(4, 0)),
    "features of another shape": lambda: select(None, 1, features=torch.zeros(4)),
    "features are NaN": lambda: select(None, 1, features=torch.full((4, 2), math.nan)),
    "no pictures": lambda: select(torch.zeros(0, 3, 48, 48), 1),
    "pictures of another shape": lambda: select(torch.zeros(2, 2, 3, 48, 48), 1),
    "no images": lambda: select(None, 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused_in_one_line(name):
    with pytest.raises(DivlensError, match="expect") as caught:
        WRONG[name]()
    assert "\n" not in str(caught.value)
