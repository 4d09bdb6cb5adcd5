"""Vendi score and RKE, against the package vendi-score, the plain formulas and what is known in closed form."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vendi_score import vendi as reference

from divlens.metrics.kernels import cosines, effective_number_of_order_2, products, squared_distances, vendi_score

SEEDS = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None, max_examples=15)
# Float64 on both sides: eigenvalues of a few units in the last place, in sums of at most 40 of them.
TOLERANCE = 1e-9


def features(seed, count, size=6):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel_of(*parts):
    return cosines(products(list(parts)))


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 5.0])
@unhurried
@given(seed=SEEDS, count=st.integers(8, 40))
def test_vendi_score_is_that_of_its_package(order, seed, count):
    """It takes the eigenvalues of the features' own products, here 6 x 6: more pictures than that, so that none is 0 up
    to rounding, of which a low order makes something."""
    points = features(seed, count)
    found = vendi_score(kernel_of(points), order)
    assert found == pytest.approx(reference.score_dual(points.numpy(), order), rel=TOLERANCE)
    other = points.clone()
    other[0] = other[1]
    assert abs(vendi_score(kernel_of(other), order) / found - 1) > 1e3 * TOLERANCE  # the control


def test_vendi_score_of_infinite_order():
    points = features(3, 9)
    infinite: Any = "inf"  # the package says that an order is an int
    expected = reference.score_dual(points.numpy(), infinite)
    assert vendi_score(kernel_of(points), math.inf) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_it_counts_what_is_different(order):
    """k groups of equal pictures, orthogonal to each other, count as k; features in half precision of the range."""
    for groups, copies in ((1, 5), (3, 4), (7, 1)):
        points = torch.eye(7)[:groups].repeat_interleave(copies, 0) * 3.0
        if len(points) > 1:
            assert vendi_score(kernel_of(points), order) == pytest.approx(groups, rel=1e-7)


def test_orders_fall():
    scores = [vendi_score(kernel_of(features(1, 12)), order) for order in (0.3, 1.0, 1.000001, 2.0, 8.0, math.inf)]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1] + 1
    assert scores[1] == pytest.approx(scores[2], rel=1e-5)  # order 1 is the limit


@unhurried
@given(seed=SEEDS, count=st.integers(2, 12))
def test_order_2_is_one_over_the_mean_square_of_all_and_rke_of_pairs(seed, count):
    points = features(seed, count).numpy()
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    pairs = [float(unit[i] @ unit[j]) ** 2 for i, j in itertools.permutations(range(count), 2)]
    kernel = kernel_of(torch.from_numpy(points))
    assert effective_number_of_order_2(kernel) == pytest.approx(1 / np.mean(pairs), rel=TOLERANCE)
    plain = (sum(pairs) + count) / count**2
    assert vendi_score(kernel, 2.0) == pytest.approx(1 / plain, rel=TOLERANCE)


def test_rke_has_no_bias_in_its_mean_square_and_the_vendi_score_has():
    """Pictures are one of 8 orthogonal ones, so the mean squared cosine of two is 1/8. Over 1,000 sets of 5, the share
    of equal pairs has a standard error of sqrt(1/8 * 7/8 / 10 / 1000) or so; 4 of them pass with 1 - 6e-5."""
    generator = torch.Generator().manual_seed(0)
    means, plain = [], []
    for _ in range(1000):
        points = torch.eye(8)[torch.randint(8, (5,), generator=generator)]
        kernel = kernel_of(points)
        number = effective_number_of_order_2(kernel)
        means.append(0.0 if math.isnan(number) else 1 / number)
        plain.append(1 / vendi_score(kernel, 2.0))
    error = 4 * math.sqrt(1 / 8 * 7 / 8 / 10 / 1000)
    assert abs(np.mean(means) - 1 / 8) < error
    assert abs(np.mean(plain) - 1 / 8) > 10 * error  # the control: 1/5 + 4/5 * 1/8


@pytest.mark.parametrize("of", [vendi_score, effective_number_of_order_2])
def test_what_is_undefined_is_nan(of):
    assert math.isnan(of(kernel_of(features(0, 1)))) and math.isnan(of(products([])))
    assert math.isnan(of(kernel_of(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))))  # no direction
    assert not math.isnan(of(kernel_of(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))))


def test_nothing_in_common_is_no_number_of_order_2():
    assert math.isnan(effective_number_of_order_2(kernel_of(torch.eye(3))))


def test_parts_and_scale_do_not_matter():
    points = features(5, 7).float()
    whole = products([points])
    np.testing.assert_allclose(products([points[:3], points[3:]]), whole, rtol=1e-13)  # of float64, in another order
    np.testing.assert_allclose(products([points[:2]], [points[:3], points[3:]]), whole[:2], rtol=1e-13)
    assert vendi_score(kernel_of(points * 40)) == pytest.approx(vendi_score(kernel_of(points)), rel=1e-6)
    wide = torch.randn(3, (1 << 16) + 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(products([wide]), wide.double() @ wide.double().T, rtol=1e-12)


def test_distances_of_near_duplicates_keep_their_digits():
    """A difference of 1e-5 between vectors of length 100: its square is 1e-14 of theirs, and float32 has 7 digits."""
    points = torch.full((2, 100), 10.0, dtype=torch.float64)
    points[1, 0] += 1e-5
    gram = products([points])
    apart = squared_distances(gram.diagonal(), gram.diagonal(), gram)
    assert float(apart[0, 1]) == pytest.approx(1e-10, rel=0.05) and float(apart[0, 0]) == 0.0
