"""Samples until a repeat: against all orders of a few samples, the birthday paradox, and simulation."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.metrics.repeats import chances_of_no_repeat, samples_until_repeat, sizes_of_clusters


def until_repeat(samples):
    """How many are looked at until one is there twice; one more than there are, when none is."""
    seen = set()
    for place, sample in enumerate(samples, 1):
        if sample in seen:
            return place
        seen.add(sample)
    return len(samples) + 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_it_is_the_mean_over_all_orders(samples):
    expected = np.mean([until_repeat(order) for order in itertools.permutations(samples)])
    assert samples_until_repeat(list(Counter(samples).values())) == pytest.approx(expected, rel=1e-12)


def test_limits():
    assert samples_until_repeat([9]) == pytest.approx(2) and samples_until_repeat([1] * 9) == pytest.approx(10)
    assert math.isnan(samples_until_repeat([1])) and math.isnan(samples_until_repeat([]))


def test_many_samples_do_not_overflow():
    assert samples_until_repeat([1] * 3000) == pytest.approx(3001, rel=1e-9)
    assert chances_of_no_repeat([2] + [1] * 2998)[2] == pytest.approx(1 - 1 / math.comb(3000, 2), rel=1e-9)


def test_it_has_no_bias_and_follows_the_birthday_paradox():
    """100 equally likely samples, 64 drawn: the true mean of min(T, 65) is a sum of products. Its standard deviation is
    below 7, so the mean over 60 sets has a standard error of 0.9 at most; 4 of them pass with 1 - 6e-5."""
    truth = sum(math.prod(1 - i / 100 for i in range(k)) for k in range(65))
    assert truth == pytest.approx(math.sqrt(math.pi * 100 / 2), rel=0.06)  # what the docstring says
    generator = np.random.default_rng(0)
    draws = generator.integers(100, size=(60, 64))
    found = [samples_until_repeat(np.unique(row, return_counts=True)[1].tolist()) for row in draws]
    assert abs(np.mean(found) - truth) < 3.6
    fewer = [samples_until_repeat(np.unique(row, return_counts=True)[1].tolist()) for row in draws % 10]
    assert abs(np.mean(fewer) - truth) > 3.6  # the control


def test_clusters_are_chains_of_near_duplicates():
    places = torch.tensor([0.0, 1.0, 2.0, 9.0, 9.5]).double()
    squared = (places[:, None] - places) ** 2
    assert sorted(sizes_of_clusters(squared, 1.0)) == [2, 3]
    assert sorted(sizes_of_clusters(squared, 0.5)) == [1, 1, 1, 2]
    assert sizes_of_clusters(squared, 100.0).tolist() == [5]
