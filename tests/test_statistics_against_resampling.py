"""Intervals over prompts against a direct bootstrap, and on strongly skewed values."""

import math

import numpy as np
import pytest

from divlens.statistics import bootstrap_mean, paired_change, relative_change

REPETITIONS = 300
# Over 8,000 other experiments 0.947 of the intervals of normal values and 0.930 of those of exponential ones hold the
# mean. Of 300 the share then has a standard deviation of 0.013 and 0.015: the lower edge is 3.4 or more of them away,
# the upper one 3.3 or more. A right program fails for about one seed in a thousand; the seed here is fixed.
COVERED = (0.88, 0.99)


def exponential(generator):
    return generator.exponential(size=12)


def normal(generator):
    return 1 + generator.normal(size=12)


def coverage(draw, interval_of):
    generator = np.random.default_rng(11)
    intervals = [interval_of(draw(generator)) for _ in range(REPETITIONS)]
    return np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])


@pytest.mark.parametrize("draw", [normal, exponential])
def test_the_interval_holds_the_mean_of_twelve_prompts_as_often_as_it_says(draw):
    assert COVERED[0] <= coverage(draw, lambda values: bootstrap_mean(values, resamples=400)) <= COVERED[1]


@pytest.mark.parametrize("draw", [normal, exponential])
def test_the_bounds_of_coverage_can_fail(draw):
    # The control: four copies of each prompt, as if they were independent, halve the width.
    assert coverage(draw, lambda values: bootstrap_mean(np.repeat(values, 4), resamples=400)) < COVERED[0]


def test_the_mean_is_the_closed_form_whatever_the_seed_and_the_resamples():
    values = np.array([0.5, 0.25, 0.125, 4.0, 1.0, 2.0, 8.0])
    for seed, resamples in ((0, 50), (1, 50), (0, 400)):
        assert bootstrap_mean(values, seed, resamples).value == values.sum() / 7
    assert bootstrap_mean(values, 0, 50).low != bootstrap_mean(values, 1, 50).low  # the control


def percentiles_of_ratios(changed, baseline, resamples=20_000):
    """The direct bootstrap: prompts drawn again, both means of the same ones, their ratio minus 1."""
    picked = np.random.default_rng(5).integers(len(changed), size=(resamples, len(changed)))
    return np.quantile(changed[picked].mean(1) / baseline[picked].mean(1) - 1, [0.025, 0.975])


@pytest.mark.parametrize("truth", [-0.6, -0.1, 0.3])
def test_a_relative_change_agrees_with_a_direct_bootstrap_of_the_ratio(truth):
    # Over 60 seeds the two differ by 0.03 of the half width in the median and by 0.09 at most; without the pairs by
    # 0.5 at least.
    generator = np.random.default_rng(9)
    baseline = generator.uniform(0.1, 0.4, size=200)
    changed = baseline * (1 + truth + 0.15 * generator.normal(size=200))
    found = relative_change(changed, baseline)
    direct = percentiles_of_ratios(changed, baseline)
    half = (direct[1] - direct[0]) / 2
    assert found.value == pytest.approx(changed.mean() / baseline.mean() - 1)
    assert [found.low, found.high] == pytest.approx(direct, abs=0.2 * half)
    # The control: the same values without their pairs give another interval.
    unpaired = percentiles_of_ratios(np.roll(changed, 1), baseline)
    assert [found.low, found.high] != pytest.approx(unpaired, abs=0.2 * half)


def test_a_relative_change_of_a_zero_baseline_is_nan_and_of_another_is_not():
    nothing, something = np.zeros(6), np.full(6, 0.5)
    assert math.isnan(relative_change(something, nothing).value)
    assert relative_change(something, something).value == 0.0  # the control
    assert paired_change(something, nothing).value == 0.5  # a difference needs no baseline above 0
