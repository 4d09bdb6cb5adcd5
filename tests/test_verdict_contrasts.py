"""What a contrast shows: sign-flip tests against scipy and all sign changes, Holm against closed testing, error rates
and the number of prompts against simulation, and every outcome."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.errors import DivlensError
from divlens.verdict.contrasts import LEVEL, contrasts_of, outcome_of, p_values
from divlens.verdict.significance import EXACT, fewest_prompts, hedges_g, holm, prompts_that_decide, sign_flip_p

# What is drawn first waits for scipy's import: no deadline.
relaxed = settings(deadline=None)


def all_sign_changes(values):
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return (signs * values).mean(1)


@relaxed
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))
def test_the_test_of_no_change_tries_all_sign_changes(values):
    means, seen = all_sign_changes(np.array(values, float)), np.mean(values)
    asked = np.array(values, float)
    assert sign_flip_p(asked, "greater", 0) == pytest.approx((means >= seen - 1e-12).mean())
    assert sign_flip_p(asked, "two-sided", 0) == pytest.approx((abs(means) >= abs(seen) - 1e-12).mean())


@pytest.mark.parametrize("side", ["two-sided", "greater"])
def test_the_test_is_that_of_scipy(side):
    from scipy.stats import permutation_test

    values = np.random.default_rng(0).normal(0.4, 1, size=(3, 10))
    found = sign_flip_p(values, side, 0)
    for row, p in zip(values, found, strict=True):
        theirs = permutation_test(
            (row,), np.mean, permutation_type="samples", n_resamples=2**10, alternative=side, vectorized=False
        )
        assert p == pytest.approx(theirs.pvalue)


def test_random_sign_changes_agree_with_all_of_them():
    """20 values, of which 2^20 sign changes are summed here: the share among 9999 random ones is within four of its
    standard errors (a false alarm in 16,000), and it is the same for the same seed."""
    values = np.random.default_rng(1).normal(0.4, 1, 20)
    halves = [all_sign_changes(half) for half in (values[:10], values[10:])]
    sums = (halves[0][:, None] + halves[1]).flatten()
    truth = (abs(sums) >= abs(values.sum() / 10) - 1e-12).mean()
    found = sign_flip_p(values, "two-sided", 0)
    assert found == sign_flip_p(values, "two-sided", 0) != sign_flip_p(values, "two-sided", 1)
    assert abs(found - truth) < 4 * math.sqrt(truth * (1 - truth) / 9999) + 1e-4
    assert sign_flip_p(np.full(EXACT + 1, 1.0), "greater", 0) >= 1 / 10_000  # never 0, though none of 9999 is as great


def test_nothing_known_and_nothing_changed_reject_nothing():
    assert sign_flip_p(np.array([]), "two-sided", 0) == 1.0
    assert sign_flip_p(np.array([3.0]), "two-sided", 0) == 1.0
    assert sign_flip_p(np.zeros(12), "greater", 0) == 1.0


@relaxed
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_closed_testing_by_bonferroni(p_values):
    """A hypothesis is rejected where every set of hypotheses with it is, by its smallest p times its size."""
    places = range(len(p_values))
    for place, adjusted in enumerate(holm(np.array(p_values))):
        sets = (
            chosen
            for size in range(1, len(p_values) + 1)
            for chosen in itertools.combinations(places, size)
            if place in chosen
        )
        expected = max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets)
        assert adjusted == pytest.approx(expected)


def test_hedges_g_has_no_bias():
    """Of 4,000 draws of 8 differences with mean 1 and deviation 1 the mean g is 1 within four standard errors (a false
    alarm in 16,000); without the correction it would be 1.13."""
    drawn = np.random.default_rng(0).normal(1, 1, size=(4_000, 8))
    found = np.array([hedges_g(row) for row in drawn])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - 1) < 4 * error
    plain = (drawn.mean(1) / drawn.std(1, ddof=1)).mean()
    assert plain > 1 + 4 * error


@pytest.mark.parametrize("tests", [1, 2, 3])
def test_fewer_prompts_than_the_fewest_show_nothing_and_these_do(tests):
    fewest = fewest_prompts(tests, LEVEL)
    assert {1: 6, 2: 7, 3: 7}[tests] == fewest
    for prompts in (fewest - 1, fewest):
        gone = {str(i): np.zeros(prompts) for i in range(tests)}
        found = contrasts_of(np.linspace(1, 2, prompts), gone, {})
        shown = {contrast.outcome for contrast in found.values()}
        assert shown == {"undecided" if prompts < fewest else "drop"}
        assert all(one.would_decide == fewest for one in found.values() if one.outcome == "undecided")


def outcomes(baseline, conditions, **others):
    return {name: one.outcome for name, one in contrasts_of(baseline, conditions, others, margin=0.1).items()}


def test_each_outcome():
    rng = np.random.default_rng(1)
    baseline = rng.gamma(20, 0.01, 12)
    noise = rng.normal(size=(4, 12))
    conditions = {
        "gone": 0 * baseline,
        "less": baseline * (0.6 + 0.05 * noise[0]),
        "more": baseline * (1.5 + 0.05 * noise[1]),
        "same": baseline * (1 + 0.02 * noise[2]),
        "open": baseline * (1 + 0.5 * noise[3]),
    }
    found = outcomes(baseline, conditions, gone=True)
    assert found == {"gone": "zero", "less": "drop", "more": "rise", "same": "equivalent", "open": "undecided"}
    # A real change that is smaller than the margin is equivalent, one that is larger is not.
    steady = 1 + 0.001 * noise[0]
    assert outcomes(baseline, {"a": 0.95 * baseline * steady}) == {"a": "equivalent"}
    assert outcomes(baseline, {"a": 0.85 * baseline * steady}) == {"a": "drop"}


def test_prompts_without_a_value_are_left_out():
    rng = np.random.default_rng(2)
    baseline, after = rng.gamma(20, 0.01, (2, 9))
    whole = contrasts_of(baseline, {"a": after}, {})["a"]
    padded = contrasts_of(np.append(baseline, [np.nan, 1]), {"a": np.append(after, [1, np.nan])}, {})["a"]
    assert padded == whole and padded.prompts == 9
    assert contrasts_of(np.append(baseline, 1.0), {"a": np.append(after, 5.0)}, {})["a"] != whole
    nothing = contrasts_of(np.full(9, np.nan), {"a": after}, {})["a"]
    assert (nothing.outcome, nothing.prompts) == ("undecided", 0)


def test_wrong_decisions_are_rare():
    """Of 400 families of three contrasts without any change at most 5% may have a drop or a rise, and where the change
    is exactly the margin as few may be called equivalent: 36 or more of 400 come up in 1 of 1,400 suites if the rate is
    exactly 5%. studies/verdict_errors.py repeats it for many more cases."""
    rng = np.random.default_rng(3)
    baseline = rng.gamma(8, 0.02, size=(400, 1, 10))
    still = np.abs(baseline * (1 + 0.2 * rng.normal(size=(400, 3, 10))))
    at_margin = baseline * (0.9 + 0.05 * rng.normal(size=(400, 3, 10)))
    no_change = holm(p_values(np.broadcast_to(baseline, still.shape), still, 0.1, 0)[0])
    equivalence = holm(p_values(np.broadcast_to(baseline, still.shape), at_margin, 0.1, 0)[1])
    for adjusted in (no_change, equivalence):
        wrong = (adjusted < LEVEL).any(1).sum()
        assert 0 < wrong < 36  # the tests are not idle


def test_contrasts_are_the_tests_of_all_conditions_together():
    """What the simulations repeat is what `contrasts_of` does."""
    rng = np.random.default_rng(5)
    baseline, after = rng.gamma(8, 0.02, 10), rng.gamma(8, 0.02, (3, 10))
    found = list(contrasts_of(baseline, {str(i): row for i, row in enumerate(after)}, {}).values())
    raw = p_values(np.broadcast_to(baseline, after.shape), after, 0.1, 0)
    no_change, equivalence = holm(raw[0]), holm(raw[1])
    assert [one.of_no_change for one in found] == no_change.tolist()
    assert [one.of_equivalence for one in found] == equivalence.tolist()
    changes = (after - baseline).sum(1)
    assert [one.outcome for one in found] == [
        outcome_of(*each) for each in zip(changes, no_change, equivalence, strict=True)
    ]


def test_the_prompts_that_are_named_decide():
    """A change of 15% that scatters by 30% of baseline: with the number of prompts that is named, about 80% of 300
    draws decide. 70% to 92% leave four standard errors of 2.3% below, and room for the approximation above; the chance
    of a false alarm is below 1 in 10,000."""
    rng = np.random.default_rng(4)

    def draw(prompts, times):
        baseline = rng.gamma(50, 0.004, size=(times, prompts))
        return baseline, baseline * (0.85 + 0.3 * rng.normal(size=(times, prompts)))

    how = {"margin": 0.1, "level": LEVEL, "power": 0.8}
    named = [prompts_that_decide(*pair, **how) for pair in zip(*draw(12, 400), strict=True)]
    needed = int(np.nanmedian(named))

    def share_decided(prompts):
        before, after = draw(prompts, 300)
        no_change, equivalence = p_values(before, after, 0.1, 0)
        return ((no_change < LEVEL) | (equivalence < LEVEL)).mean()

    assert 0.7 < share_decided(needed) < 0.92
    assert share_decided(needed // 4) < 0.5


@pytest.mark.parametrize("margin", [0, 1, -0.1, math.nan, True, "0.1"])
def test_a_margin_is_a_share(margin):
    with pytest.raises(DivlensError, match="margin expects a share of baseline in"):
        contrasts_of(np.ones(3), {"a": np.ones(3)}, {}, margin=margin)
