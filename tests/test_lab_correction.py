"""The law behind a judge's readings: with planted laws, and with the errors of the estimates themselves."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import multinomial

from divlens.errors import DivlensError
from divlens.lab.correction import (
    check_confusion,
    corrected_entropies,
    distance_from,
    distance_of_prompt,
    entropies,
    expected_distance,
    most_likely_law,
    without_surplus,
)
from divlens.lab.law import entropy_of

UNEVEN = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
UNIFORM = np.full(6, 1 / 6)
# A judge that takes the second value for the first half of the time, and errs evenly besides.
JUDGE = np.full((6, 6), 0.02) + 0.88 * np.eye(6)
JUDGE[1] = [0.5, 0.42, 0.02, 0.02, 0.02, 0.02]
ALWAYS_RIGHT = np.eye(6)


def readings_of(law, confusion, prompts, n, seed):
    """Counts of what is read, float (prompts, values)."""
    return np.random.default_rng(seed).multinomial(n, law @ confusion, size=prompts).astype(float)


def test_the_most_likely_law_of_exact_readings_is_the_law():
    for law in (UNIFORM, UNEVEN):
        assert most_likely_law(law @ JUDGE, JUDGE) == pytest.approx(law, abs=1e-6)  # geometric: 0.6^400 is below
        assert most_likely_law(law, ALWAYS_RIGHT) == pytest.approx(law, abs=1e-12)
        assert np.abs(most_likely_law(law @ JUDGE, ALWAYS_RIGHT) - law).max() > 0.05  # what is corrected
    assert np.isnan(most_likely_law(np.zeros((1, 6)), JUDGE)).all()


def test_the_most_likely_law_is_a_law_where_the_inverse_is_none():
    counts = np.array([[10.0, 0, 0, 0, 0, 0], [0, 12, 1, 0, 0, 0]])
    assert (counts @ np.linalg.inv(JUDGE)).min() < -0.1
    law = most_likely_law(counts, JUDGE)
    assert law.min() >= 0
    assert law.sum(1) == pytest.approx([1, 1])

    def log_likelihood(laws):
        return (counts * np.log(np.maximum(laws @ JUDGE, 1e-300))).sum(1)

    others = np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=20_000)
    best = np.max([log_likelihood(other) for other in others], axis=0)
    assert (log_likelihood(law) >= best - 0.01).all()  # samples of 13: the docstring's 0.003 of each, twice over
    assert (log_likelihood(law) < best + 1).all()


@pytest.mark.parametrize("truth", [UNIFORM, UNEVEN], ids=["uniform", "uneven"])
def test_total_variation_from_a_planted_law_is_near_zero_only_when_corrected(truth):
    counts = readings_of(truth, JUDGE, prompts=64, n=16, seed=1)
    corrected = distance_from(truth, counts, JUDGE)
    taken_at_its_word = distance_from(truth, counts, ALWAYS_RIGHT)
    reach = (corrected.high - corrected.low) / 2
    assert corrected.low <= 0
    assert abs(corrected.value) <= reach < 0.15
    wrongly = np.abs(truth @ JUDGE - truth).sum() / 2
    assert taken_at_its_word.low > 0
    assert taken_at_its_word.low < wrongly < taken_at_its_word.high


@pytest.mark.parametrize("law", [UNIFORM, UNEVEN, np.array([0, 0, 0.25, 0.25, 0.25, 0.25])])
def test_total_variation_is_right_on_average_and_its_interval_holds_it(law):
    """40 sets of 64 prompts of 16 samples, held against the uniform law."""
    wanted = np.abs(law - UNIFORM).sum() / 2
    found = [distance_from(UNIFORM, readings_of(law, JUDGE, 64, 16, seed), JUDGE, seed) for seed in range(40)]
    values = np.array([one.value for one in found])
    error = values.std(ddof=1) / 40**0.5
    # What signs that are guessed wrong may cost: nothing at the truth, else less than the error of one set.
    loss = 0 if wanted == 0 else values.std(ddof=1)
    assert -4 * error - loss < values.mean() - wanted < 4 * error
    # Of 40 intervals that hold it with a chance of 0.95, fewer than 33 do so once in 5000 times.
    assert sum(one.low <= wanted <= one.high for one in found) >= 33
    plain = [
        np.abs(most_likely_law(readings_of(law, JUDGE, 64, 16, s).sum(0), JUDGE) - UNIFORM).sum() / 2 for s in range(20)
    ]
    assert np.mean(plain) > wanted - 0.005  # what is taken away is a surplus
    if wanted == 0:
        assert np.mean(plain) > 6 * error


def test_total_variation_resamples_prompts_and_not_samples():
    """Prompts that each draw one value only are fewer than their samples."""
    rows = np.random.default_rng(2).integers(6, size=60)
    clustered, spread = 16.0 * np.eye(6)[rows], readings_of(UNIFORM, ALWAYS_RIGHT, 60, 16, 2)
    wide, narrow = (distance_from(UNIFORM, counts, ALWAYS_RIGHT) for counts in (clustered, spread))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # 4 times the error, cut at 0
    assert distance_from(UNIFORM, spread, ALWAYS_RIGHT) == narrow
    assert distance_from(UNIFORM, spread, ALWAYS_RIGHT, seed=1) != narrow


def test_total_variation_of_one_value_alone():
    found = distance_from(UNIFORM, 8.0 * np.eye(6)[np.zeros(12, int)], ALWAYS_RIGHT)
    assert found.value == pytest.approx(5 / 6)
    assert found.low == pytest.approx(5 / 6 - (1 - 0.025 ** (1 / 12)))
    assert found.high == 1


def test_total_variation_that_is_undefined():
    blind = JUDGE.copy()
    blind[2] = blind[3]
    counts = readings_of(UNIFORM, JUDGE, 64, 16, 0)
    for found in (distance_from(UNIFORM, counts, blind), distance_from(UNIFORM, counts[:5], JUDGE)):
        assert math.isnan(found.value) and math.isnan(found.low) and math.isnan(found.high)
    assert not math.isnan(distance_from(UNIFORM, counts[:6], JUDGE).value)


def outcomes(chances, n):
    """Every way in which n samples of a law can fall, float (ways, values), and how likely it is."""
    ways = np.array([w for w in itertools.product(range(n + 1), repeat=len(chances)) if sum(w) == n], float)
    return ways, multinomial.pmf(ways, n, chances / chances.sum())


@pytest.mark.parametrize("truth", [np.full(3, 1 / 3), np.array([0.5, 0.3, 0.2]), np.array([0.0, 1, 0])])
@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_the_expected_distance_is_that_of_all_outcomes(truth, n):
    laws = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0.05, 0.9, 0.05], [1 / 3, 1 / 3, 1 / 3]])
    wanted = [
        np.dot(likely, np.abs(ways / n - truth).sum(1) / 2) for ways, likely in (outcomes(law, n) for law in laws)
    ]
    assert expected_distance(laws, truth, n) == pytest.approx(wanted, abs=1e-12)


SMALL_JUDGE = np.array([[0.8, 0.15, 0.05], [0.1, 0.9, 0.0], [0.05, 0.05, 0.9]])


@pytest.mark.parametrize("confusion", [np.eye(3), SMALL_JUDGE], ids=["right", "erring"])
@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("truth", [np.full(3, 1 / 3), np.array([0.0, 1, 0])], ids=["open", "named"])
def test_the_distance_of_a_prompt_is_right_on_average_at_both_ends(truth, n, confusion):
    """Over all outcomes: 0 for the law itself, and the known distance for who always draws one of the others."""

    def average(law):
        ways, likely = outcomes(law @ confusion, n)
        return np.dot(likely, [distance_of_prompt(truth, counts, confusion) for counts in ways])

    others = np.flatnonzero(truth == truth.min())
    assert average(truth) == pytest.approx(0, abs=1e-12)
    assert np.mean([average(np.eye(3)[value]) for value in others]) == pytest.approx(1 - truth.min())
    plain = expected_distance((truth @ confusion)[None], truth, n)[0]
    assert plain > 0.05 or ((confusion == np.eye(3)).all() and truth.max() == 1)  # what is taken away


def test_the_distance_of_what_is_named_has_no_bias_and_needs_no_second_picture():
    truth, law = np.eye(4)[2], np.array([0.1, 0.2, 0.6, 0.1])
    for n in (1, 4):
        ways, likely = outcomes(law, n)
        found = [distance_of_prompt(truth, counts, np.eye(4)) for counts in ways]
        assert found == pytest.approx(1 - ways[:, 2] / n) and np.dot(likely, found) == pytest.approx(0.4)


@pytest.mark.parametrize(("n", "most"), [(8, 0.18), (16, 0.15), (64, 0.09)])
def test_the_bias_between_the_ends_is_as_stated(n, most):
    """Of nine values: laws that are even on some, and mixtures of the even law with a single value."""
    truth, values = np.full(9, 1 / 9), np.arange(9)
    laws = [(values < some) / some for some in range(1, 10)]
    laws += [share * truth + (1 - share) * np.eye(9)[0] for share in np.linspace(0, 1, 21)]
    none, far = (float(expected_distance(law[None], truth, n)[0]) for law in (truth, np.eye(9)[0]))
    bias = [
        8 / 9 * (float(expected_distance(law[None], truth, n)[0]) - none) / (far - none) - np.abs(law - truth).sum() / 2
        for law in laws
    ]
    assert -most - 0.005 < min(bias) < -most + 0.005 and max(bias) < 1e-12


def test_the_distance_of_a_prompt_that_is_undefined():
    even, blind = np.full(3, 1 / 3), np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    one = np.array([0.0, 1, 0])
    for counts, confusion in ((np.zeros(3), np.eye(3)), (one, np.eye(3)), (one, SMALL_JUDGE), (9 * one, blind)):
        assert math.isnan(distance_of_prompt(even, counts, confusion))
    assert distance_of_prompt(even, 2 * one, np.eye(3)) == pytest.approx(2 / 3)  # the control


def test_no_surplus_is_what_all_halves_give_on_average():
    """With noise of standard error s of the whole, two halves are x +- an error of s, mirrored."""
    x, s = np.array([-0.3, 0.0, 0.1, 2.0]), np.array([0.2, 0.2, 0.0, 0.5])
    noise = np.random.default_rng(3).normal(size=(1_000_000, 1)) * s
    halves = np.sign(x + noise) * (x - noise)
    error = halves.std(0) / 1000
    assert np.abs(without_surplus(x, s) - halves.mean(0)) == pytest.approx(0, abs=4 * error.max() + 1e-12)


@pytest.mark.parametrize("law", [UNIFORM, UNEVEN], ids=["uniform", "uneven"])
def test_entropies_are_corrected_for_the_number_of_samples(law):
    wanted = entropy_of(law)
    counts = readings_of(law, ALWAYS_RIGHT, prompts=4000, n=64, seed=4)
    corrected, plain = corrected_entropies(counts, ALWAYS_RIGHT), entropies(counts / 64)
    # Plain entropies miss 5 / 2n + (sum of 1 / p - 1) / 12n^2 nats (Harris, 1975), of which the second part stays.
    left = ((1 / law).sum() - 1) / 12 / 64**2 / math.log(2)
    assert abs(corrected.mean() - wanted) < left + 4 * corrected.std() / 4000**0.5
    assert plain.mean() < wanted - 5 / 2 / 64 / math.log(2) + 4 * plain.std() / 4000**0.5


@pytest.mark.parametrize("law", [UNEVEN, np.eye(6)[0]], ids=["uneven", "one value"])
def test_entropies_are_corrected_for_the_judge(law):
    judge, wanted = np.full((6, 6), 0.03) + 0.82 * np.eye(6), entropy_of(law)
    counts = readings_of(law, judge, prompts=2000, n=128, seed=5)
    corrected, blindly = corrected_entropies(counts, judge), corrected_entropies(counts, ALWAYS_RIGHT)
    # No closed form where the most likely law has zeros: a tenth of what the judge adds.
    added = blindly.mean() - wanted
    assert added > 0.1
    assert abs(corrected.mean() - wanted) < added / 10 + 4 * corrected.std() / 2000**0.5


def test_the_jackknife_by_leaving_out_each_sample():
    counts = np.array([[5.0, 2, 1, 0, 0, 0], [8, 0, 0, 0, 0, 0]])
    for row, found in zip(counts, corrected_entropies(counts, JUDGE), strict=True):
        samples = np.repeat(np.arange(6), row.astype(int))
        left_out = [np.bincount(np.delete(samples, i), minlength=6).astype(float) for i in range(8)]
        parts = [entropy_of(most_likely_law(one, JUDGE)) for one in left_out]
        assert found == pytest.approx(8 * entropy_of(most_likely_law(row, JUDGE)) - 7 * np.mean(parts))
    assert corrected_entropies(counts, ALWAYS_RIGHT)[1] == 0
    assert np.isnan(corrected_entropies(np.eye(6), JUDGE)).all()


def test_what_is_no_confusion_is_refused():
    check_confusion(JUDGE)
    with pytest.raises(DivlensError, match=r"as many true values as read ones, got \(5, 6\)"):
        check_confusion(JUDGE[:5])
    for wrong in (JUDGE * 2, -JUDGE, np.full((6, 6), np.nan), JUDGE.T):
        with pytest.raises(DivlensError, match="rows that sum to 1"):
            check_confusion(wrong)
