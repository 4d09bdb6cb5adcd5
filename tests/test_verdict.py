"""What a contrast shows, and which strategy a model has: permutation tests against all sign changes, Holm against closed
testing, error rates and the number of prompts against simulation, and strategies against probes of the toys."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divlens import Argmax, Subset, Temperature, probe
from divlens.errors import DivlensError
from divlens.verdict import contrasts_of, verdict
from divlens.verdict.contrasts import hedges_g, holm, prompts_that_decide, sign_flip_p
from divlens.verdict.strategy import MIXED, PATTERNS, UNDECIDED, chances_of, name_of


def all_sign_changes(values):
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return (signs * values).mean(1)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8).filter(any))
def test_the_test_of_no_change_tries_all_sign_changes(values):
    means, seen = all_sign_changes(np.array(values, float)), np.mean(values)
    greater = (means >= seen - 1e-12).mean()
    less = (means <= seen + 1e-12).mean()
    assert sign_flip_p(np.array(values, float), "greater", 0) == pytest.approx(greater)
    # scipy doubles the smaller of both sides
    assert sign_flip_p(np.array(values, float), "two-sided", 0) == pytest.approx(min(1.0, 2 * min(greater, less)))


def test_nothing_known_and_nothing_changed_reject_nothing():
    assert sign_flip_p(np.array([]), "two-sided", 0) == 1.0
    assert sign_flip_p(np.array([3.0]), "two-sided", 0) == 1.0
    assert sign_flip_p(np.zeros(12), "greater", 0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_closed_testing_by_bonferroni(p_values):
    """A hypothesis is rejected where every set of hypotheses with it is, by its smallest p times its size."""
    places = range(len(p_values))
    for place, adjusted in enumerate(holm(p_values)):
        sets = (
            chosen
            for size in range(1, len(p_values) + 1)
            for chosen in itertools.combinations(places, size)
            if place in chosen
        )
        expected = max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets)
        assert adjusted == pytest.approx(expected)


def test_hedges_g_has_no_bias():
    """Of 40,000 draws of 8 differences with mean 1 and deviation 1 the mean g is 1 within four standard errors; without
    the correction it would be 1.13."""
    drawn = np.random.default_rng(0).normal(1, 1, size=(40_000, 8))
    found = np.array([hedges_g(row) for row in drawn])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - 1) < 4 * error
    plain = (drawn.mean(1) / drawn.std(1, ddof=1)).mean()
    assert plain > 1 + 4 * error


def outcomes(baseline, conditions, **others):
    return {one.condition: one.outcome for one in contrasts_of(baseline, conditions, others, margin=0.1)}


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
    (whole,) = contrasts_of(baseline, {"a": after}, {})
    (padded,) = contrasts_of(np.append(baseline, [np.nan, 1]), {"a": np.append(after, [1, np.nan])}, {})
    assert padded == whole and padded.prompts == 9
    (other,) = contrasts_of(np.append(baseline, 1.0), {"a": np.append(after, 5.0)}, {})
    assert other != whole


def test_wrong_decisions_are_rare():
    """Of 300 families of three contrasts without any change at most 5% may have a drop or a rise: more than 24 of 300
    would come up in 1 of 150 suites if the rate were exactly 5%. Where the change is exactly the margin, `equivalent`
    may come out as rarely."""
    rng = np.random.default_rng(3)
    wrong = np.zeros(2)
    for _ in range(300):
        baseline = rng.gamma(8, 0.02, 10)
        noise = rng.normal(size=(3, 10))
        still = outcomes(baseline, {str(i): np.abs(baseline * (1 + 0.2 * noise[i])) for i in range(3)})
        wrong[0] += any(outcome in ("drop", "rise") for outcome in still.values())
        at_margin = outcomes(baseline, {str(i): baseline * (0.9 + 0.05 * noise[i]) for i in range(3)})
        wrong[1] += any(outcome == "equivalent" for outcome in at_margin.values())
    assert wrong.max() <= 24
    assert wrong.min() > 0  # the tests are not idle


def test_the_prompts_that_are_named_decide():
    """A change of 15% that scatters by 30% of baseline: with the number of prompts that is named, 80% of 300 draws decide;
    70% to 90% leave room for four standard errors and for the approximation."""
    rng = np.random.default_rng(4)

    def draw(prompts):
        baseline = rng.gamma(50, 0.004, prompts)
        return baseline, baseline * (0.85 + 0.3 * rng.normal(size=prompts))

    needed = int(np.median([prompts_that_decide(*draw(200), 0.1, tests=1) for _ in range(20)]))
    if needed == 201:  # never fewer than there are
        needed = int(np.median([prompts_that_decide(*draw(12), 0.1, tests=1) for _ in range(400)]))
    decided = np.mean([outcomes_of_one(draw(needed)) != "undecided" for _ in range(300)])
    few = np.mean([outcomes_of_one(draw(needed // 4)) != "undecided" for _ in range(300)])
    assert 0.7 < decided < 0.92
    assert few < 0.5


def outcomes_of_one(drawn):
    before, after = drawn
    return outcomes(before, {"a": after})["a"]


@pytest.mark.parametrize("margin", [0, 1, -0.1, math.nan, True, "0.1"])
def test_a_margin_is_a_share(margin):
    with pytest.raises(DivlensError, match="margin expects a share of baseline in"):
        contrasts_of(np.ones(3), {"a": np.ones(3)}, {}, margin=margin)


def test_every_strategy_has_its_pattern_and_nothing_else_is_one():
    kinds = ("zero", "drop", "rise", "equivalent", "undecided")
    names = {(a, s): name_of({"Argmax": a, "Subset": s}) for a in kinds for s in kinds}
    for name, pattern in PATTERNS.items():
        assert [pair for pair, found in names.items() if found == name] == [(pattern["Argmax"], pattern["Subset"])]
    assert names["rise", "drop"] == MIXED
    assert names["zero", "undecided"] == names["undecided", "drop"] == UNDECIDED
    assert names["undecided", "rise"] == MIXED  # no strategy has it


def test_chances_follow_the_prompts():
    baseline = np.full(12, 0.2)
    half = {"Argmax": baseline * np.repeat([0.5, 1.0], 6), "Subset": baseline * 0.5}
    found = chances_of(baseline, half, {"Argmax": False, "Subset": False}, 0.1, 0)
    # Argmax drops by more than 10% unless fewer than 3 of 12 draws are of the first half: 1.9%.
    assert found["decoupled"] == pytest.approx(0.019, abs=0.013)
    assert found["diversity-prioritized"] == pytest.approx(1 - 0.019, abs=0.013)
    assert sum(found.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def probed():
    conditions = {"baseline": [], "subset": [Subset(0.5)], "greedy": [Argmax()], "both": [Argmax(), Subset(0.5)]}
    return probe(["toy/ar", "toy/mim"], ["a cat", "a dog", "red heart", "sky"], n=4, conditions=conditions)


def test_a_probe_gets_a_verdict(probed):
    found = verdict(probed)
    assert list(found.strategies) == ["toy/ar:0", "toy/mim:0"]
    ar = found.strategies["toy/ar:0"]
    assert ar.contrasts["Argmax"].outcome == "zero"
    assert set(ar.contrasts) == {"Argmax", "Subset"}  # there was no Paraphrase, and no mixture counts
    text = str(found)
    assert f"toy/ar:0 is {ar.name}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_has_no_verdict_is_refused(probed):
    with pytest.raises(DivlensError, match=r"at least 2 prompts and 2 samples of each, got 1 prompt and 4 samples"):
        verdict(probe("toy/ar", ["a cat"], n=4))
    with pytest.raises(DivlensError, match="got none of Argmax, Subset"):
        verdict(probe("toy/ar", ["a cat", "a dog"], n=2, conditions=[Temperature(2.0)]))
    with pytest.raises(DivlensError, match="verdict expects what divlens.probe returns, got int"):
        verdict(3)  # pyright: ignore[reportArgumentType]
