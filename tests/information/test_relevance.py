"""I(Z;Y): what a judge's labels tell of the concept, and how that bounds I(X;Z)."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.fidelity import Attribute
from divlens.information import Effort, information
from divlens.information.relevance import Readings, concepts_of, information_per_prompt, labels_of
from divlens.interventions import Paraphrase
from divlens.paths import ConfidenceUnmasking, Raster
from divlens.types import Prompt
from oracles.interventions import rule_of
from oracles.small_models import Small
from oracles.toy_bits import PROMPTS
from oracles.toy_grids import toy

SIGMAS = 5  # false-alarm rate 6e-7 each


class Naming:
    """A judge that knows the names of some things."""

    def __init__(self, *names: str) -> None:
        self.attributes = (Attribute("concept", names),)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 1, dtype=torch.long)


def readings(labels: np.ndarray) -> Readings:
    """labels (prompts, samples)."""
    found = Readings()
    for prompt, row in enumerate(labels):
        found.add(torch.from_numpy(row), np.full(len(row), prompt), np.arange(len(row)))
    return found


def test_readings_do_not_depend_on_the_batches():
    labels = np.random.default_rng(0).integers(5, size=(3, 20))
    whole, parts = readings(labels), Readings()
    for prompt, row in enumerate(labels):
        for part in (slice(7, 20), slice(7)):
            parts.add(torch.from_numpy(row[part]), np.full(len(row[part]), prompt), np.arange(20)[part])
    assert parts.counts == whole.counts and sum(whole.counts.values()) == 60
    assert readings(labels[:, ::-1].copy()).counts != whole.counts  # the control


@pytest.mark.parametrize("n", [6, 8, 16])
def test_neither_a_group_of_samples_nor_a_half_is_that_of_a_wording(n):
    """Every wording gives one grid: that it was that wording is no chance, and each half of a fit has seen it."""
    model: Any = Small(Raster(3), codes=16, sharpness=1e4, guidance=1.0)
    prompts = [Prompt(text, paraphrases=(f"{text} icon",)) for text in ("red heart", "a cat")]

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 16).round().long() @ torch.tensor([1, 16, 256])

    found = information(model, prompts, n=n, interventions=[Paraphrase(2)], judge=judge)
    assert found.conditional_lower.value == pytest.approx(1, abs=1e-6)
    assert found.token_miller_madow.mc_error < 1e-9 and found.token_miller_madow.value > 3
    assert found.relevant.value > 0.4


def bits(labels: np.ndarray, prompts: list[Prompt]) -> float:
    return float(information_per_prompt(readings(labels), concepts_of(prompts, None)).mean.mean())


def test_relevant_information_of_a_perfect_a_blind_and_a_noisy_judge():
    prompts = [Prompt(f"thing {i}") for i in range(4)]
    perfect = np.repeat(np.arange(4)[:, None], 400, 1)
    assert 1.98 < bits(perfect, prompts) <= 2.0
    random = np.random.default_rng(0)
    runs = [bits(random.integers(50, size=(4, 40)), prompts) for _ in range(40)]
    assert np.mean(runs) < 3 * np.std(runs) / math.sqrt(40)  # no information: below zero but for chance
    noisy = np.where(random.random((4, 4000)) < 0.7, np.arange(4)[:, None], random.integers(4, size=(4, 4000)))
    right = 0.7 + 0.3 / 4
    exact = 2 + right * math.log2(right) + (1 - right) * math.log2((1 - right) / 3)
    assert exact - 0.06 < bits(noisy, prompts) < exact + 0.06  # 16,000 readings: standard error below 0.015


def test_prompts_of_one_concept_share_it():
    prompts = [Prompt("a cat", concept="cat"), Prompt("my cat", concept="cat"), Prompt("dog", concept="dog")]
    labels = np.repeat(np.array([[0], [0], [1]]), 1000, 1)
    third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert abs(bits(labels, prompts) - third) < 0.01


def test_wordings_of_one_concept_share_it():
    def found(*texts: str, judge: Any = None) -> list[str]:
        return concepts_of([Prompt(text) for text in texts], judge)

    assert found("red heart", "a red heart", "A  Red Heart ", "The red heart") == ["red heart"] * 4
    others = ["hearty", "heart", "another red heart", "theatre", "a"]
    assert found(*others) == others  # the control: other words are others
    assert concepts_of([Prompt("my prompt", concept="A Red heart"), Prompt("red heart", concept="love")], None) == [
        "red heart",
        "love",
    ]
    named = ("heart, blue background", "a picture of a heart", "A shiny rocket", "fire truck")
    assert found(*named, judge=Naming("heart", "rocket")) == ["heart", "heart", "rocket", "fire truck"]
    assert found("❤️", *named[:2], judge=divlens.load_judge()) == ["heart"] * 3
    assert len(set(found(*named))) == 4  # the control: no judge
    assert len(set(found(*named, judge=lambda images: images))) == 4  # nor does a function know what is asked for


def test_an_article_brings_no_bits():
    """Every wording gives one grid, so that this judge tells all of them apart."""
    model: Any = Small(Raster(3), codes=16, sharpness=1e4, guidance=1.0)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 16).round().long() @ torch.tensor([1, 16, 256])

    def told(text: str) -> float:
        return information(model, ["red heart", text], n=16, judge=judge, effort=Effort(0, 0, 0)).relevant.value

    assert told("A red heart") == 0
    assert told("old red heart") > 0.8  # the control; the prior of the fit takes the rest of 1 bit
    judge.attributes = Naming("red heart", "rocket").attributes  # type: ignore[attr-defined]
    assert told("old red heart") == 0


def test_the_plane_has_a_point_with_a_judge():
    def judge(images):
        return images.mean((2, 3)).argmax(1)

    found = information(toy("ar"), PROMPTS, n=60, judge=judge)
    assert found.plane == (found.mutual_lower.value, found.relevant.value)
    assert found.relevant.value <= found.mutual_lower.value + SIGMAS * found.mutual_lower.mc_error


KNOWN: Any = ConfidenceUnmasking  # rules are final, which a type checker would say of a subclass


class Unknown(KNOWN):
    def tau(self, step: int) -> float:
        return super().tau(step) / 2


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_prompts_are_told_apart_at_least_as_well_as_a_judge_tells_their_concepts(family):
    model: Any = Small(rule_of(family, 64), codes=64, sharpness=30.0, stateless=True, guidance=1.0)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 64).round().long() @ torch.tensor([1, 64, 4096])

    blind, seen = (information(model, PROMPTS, n=16, effort=Effort(0, 0, 0), judge=each) for each in (None, judge))
    assert math.isnan(blind.mutual_lower.value) and seen.mutual_lower.value == seen.relevant.value > 1.2
    assert "I(Z;Y)" in seen.mutual_lower.note and seen.sequence_lower.value > 1.2
    better = information(model, PROMPTS, n=16, judge=judge)  # the judge's is not taken where the other says more
    assert better.mutual_lower.value > better.relevant.value and "I(Z;Y)" not in better.mutual_lower.note
    unknown = information(replace(model, rule=Unknown(3)), PROMPTS, n=16, judge=judge)
    assert unknown.mutual_lower.value == unknown.relevant.value > 1.2 and math.isnan(unknown.mutual_upper.value)


def test_a_judge_of_the_wrong_shape_is_refused():
    with pytest.raises(DivlensError, match=r"a label for each of 2 pictures, got shape \(3,\)"):
        labels_of(torch.zeros(3), 2)
    with pytest.raises(DivlensError, match="numbers as labels, got 'cat'"):
        labels_of("cat", 2)
    for other in (0.5, math.nan, math.inf):
        with pytest.raises(DivlensError, match="whole numbers as labels"):
            labels_of(torch.tensor([other, 1.0]), 2)
    for labels in (torch.tensor([2.0, 1.0]), torch.tensor([True, False]), torch.tensor([5, 3], dtype=torch.uint8)):
        assert labels_of(labels, 2).tolist() == labels.tolist()
    assert labels_of([2, 1], 2).tolist() == labels_of(np.array([2, 1]), 2).tolist() == [2, 1]
