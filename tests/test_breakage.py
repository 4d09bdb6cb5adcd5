"""Falls of fidelity: the exact test against scipy and enumeration, when one is called a fall, and the warnings."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

import divlens
from divlens.experiment.probe import BASELINE
from divlens.fidelity.breakage import chance_of_fall, fidelity_change, hypergeometric
from divlens.interventions import Subset
from divlens.lab.attributes import Attribute
from divlens.statistics import change_of_share
from divlens.types import Prompt
from oracles.screen import words_of


def counts(*numbers):
    return np.array(numbers, float)


@pytest.mark.parametrize(("before", "after", "n"), [(15, 5, 16), (16, 16, 16), (0, 0, 4), (3, 8, 8), (1, 0, 1)])
def test_of_one_prompt_the_chance_is_fishers_test(before, after, n):
    table = [[after, n - after], [before, n - before]]
    expected = stats.fisher_exact(table, alternative="less")[1]
    assert chance_of_fall(counts(before), counts(after), n) == pytest.approx(expected, rel=1e-9)


def test_of_several_prompts_it_is_the_enumerated_one():
    before, after, n = counts(3, 4, 2), counts(2, 2, 2), 4
    both = zip(before, after, strict=True)
    laws = [[stats.hypergeom.pmf(k, 2 * n, int(a + b), n) for k in range(n + 1)] for a, b in both]
    expected = sum(
        math.prod(law[k] for law, k in zip(laws, split, strict=True))
        for split in itertools.product(range(n + 1), repeat=3)
        if sum(split) <= after.sum()
    )
    assert chance_of_fall(before, after, n) == pytest.approx(expected, rel=1e-9)
    assert chance_of_fall(before, after - 1, n) < expected < chance_of_fall(before, after + 1, n)
    assert math.isnan(chance_of_fall(counts(), counts(), n))


def test_the_law_of_one_prompt_is_whole_whatever_is_right():
    for right in range(17):
        assert hypergeometric(right, 8).sum() == pytest.approx(1)


def test_with_prompts_that_differ_the_interval_over_prompts_decides():
    before, after = np.array([1.0, 1, 0.75, 1, 1, 0.875]), np.array([0.5, 0.25, 0.5, 0.375, 0.75, 0.5])
    found = fidelity_change(before, after, 8)
    assert found.change == change_of_share(after, before, 8) and found.change.high < 0 and math.isnan(found.chance)
    assert found.fell and not found.by_samples
    assert not fidelity_change(after, before, 8).fell  # a rise
    mixed = fidelity_change(before, np.array([0.5, 1, 1, 1, 0.875, 1]), 8)
    assert mixed.change.value < 0 and not mixed.fell  # the control: a fall within its interval


def test_where_prompts_tell_nothing_the_samples_decide():
    one = np.array([15 / 16]), np.array([5 / 16])
    found = fidelity_change(*one, 16)
    assert found.by_samples and found.fell
    assert found.chance == pytest.approx(stats.fisher_exact([[5, 11], [15, 1]], alternative="less")[1])
    assert not fidelity_change(np.array([1.0]), np.array([15 / 16]), 16).fell  # one sample may be chance
    alike = fidelity_change(np.ones(2), np.full(2, 7 / 8), 8)  # two of 16 may be chance
    assert alike.by_samples and not alike.fell
    assert fidelity_change(np.ones(2), np.full(2, 2 / 8), 8).fell  # the control
    assert not fidelity_change(np.ones(3), np.ones(3), 8).fell


def test_a_prompt_that_the_judge_does_not_know_is_left_out():
    nan = math.nan
    assert fidelity_change(np.array([1, nan]), np.array([0.25, nan]), 8) == fidelity_change(
        np.ones(1), np.array([0.25]), 8
    )
    nothing = fidelity_change(np.array([nan]), np.array([nan]), 8)
    assert not nothing.fell and math.isnan(nothing.before) and nothing.prompts == 0


def test_equal_sides_are_called_a_fall_as_seldom_as_is_said():
    """The exact test is conservative: of 4000 pairs of sides that are equally right at most 2.5% pass, and with five
    sigmas of a binomial, 5 * sqrt(.025 * .975 / 4000) = 1.2 points, fewer than 3.8% (a false alarm below 1e-6)."""
    sides = np.random.default_rng(0).binomial(16, 0.7, size=(4000, 2)) / 16
    fell = [fidelity_change(before[None], after[None], 16).fell for before, after in sides]
    assert 0 < np.mean(fell) < 0.038


# What is printed


@dataclass(frozen=True)
class WholeJudge:
    """A toy's picture shows the concept "red heart" unless a token is the code `broken`."""

    broken: int
    attributes: tuple[Attribute, ...] = (Attribute("concept", ("red heart", "broken")),)

    def __call__(self, images):
        return (images[:, self.broken] > 0.5).flatten(1).any(1, keepdim=True).long()


pytestmark = pytest.mark.usefixtures("colours_for_lpips")


@pytest.fixture
def judged(monkeypatch):
    """Fidelity of the toy falls when its most used code is banned, or rises when the judge hates that one."""

    def use(broken):
        monkeypatch.setattr("divlens.experiment.comparison.judge_of", lambda model: WholeJudge(broken))

    return use


def code(rank):
    """The toy's codes by how often they come out."""
    tokens = divlens.sample(divlens.load("toy/ar"), ["red heart"], n=100).tokens
    return int(torch.bincount(tokens.flatten(), minlength=3).argsort(descending=True)[rank])


def test_enhance_warns_of_a_fall_and_says_over_how_many_prompts_it_is(judged):
    judged(code(2))
    found = divlens.enhance("toy/ar", ["red heart"], n=24, disable_top=0.4)
    assert found.fidelity_change.fell
    said = words_of(found)
    assert "Warning: fidelity falls from" in said and "one-sided exact test of the prompt's 2 x 24 samples" in said
    assert list(found.table["prompts"]) == [1, 0, 1, 0]  # of kept diversity none: fewer than two pictures are right
    judged(code(0))
    rise = divlens.enhance("toy/ar", ["red heart", "a cat"], n=24, disable_top=0.4)
    assert "Warning" not in words_of(rise)  # the control: the same pictures, another judge
    assert "fidelity: over the 1 of 2 prompts that the judge can read, too few" in words_of(rise)
    assert list(rise.table["prompts"]) == [2, 0, 1, 1]
    assert "kept diversity: LPIPS diversity among the samples in which the judge reads all" in words_of(rise)


def test_probe_warns_below_the_block_of_the_model_whose_fidelity_falls(judged):
    judged(code(2))
    prompts = [Prompt(text, concept="red heart") for text in ("red heart", "a cat", "a dog", "blue sky", "a fox")]
    conditions = {BASELINE: (), "same": (), "broken": (divlens.DisableTop(0.4),), "whole": (Subset(0.5),)}
    found = divlens.probe(["toy/ar"], prompts, n=24, conditions=conditions)
    fell = dict(zip(found.table["condition"], found.table["fidelity_change_fell"], strict=True))
    assert fell == {BASELINE: False, "same": False, "broken": True, "whole": False}
    said = words_of(found)
    row = found.table.set_index("condition").loc["broken"]
    start = row["fidelity"] - row["fidelity_change"]
    assert f"Warning: fidelity falls under broken from {100 * start:.0f} to {100 * row['fidelity']:.0f} %, by -" in said
    assert "under same" not in said and "under whole" not in said


def test_where_no_judge_knows_a_prompt_the_table_says_that_breakage_cannot_be_seen():
    found = divlens.enhance("toy/ar", ["red heart"], n=2)
    for table in (found, (divlens.probe(["toy/ar"], ["red heart"], n=2))):
        assert "whether pictures break cannot be seen" in words_of(table)
