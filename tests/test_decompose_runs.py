"""How a decomposition is run and shown: batches, memory, the table, and bad input."""

import gc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from divlens.decompose import Decomposition, decompose
from divlens.diversity.anova import CrossedSums
from divlens.errors import DivlensError
from divlens.interventions import DisableTop, Freeze, Subset
from divlens.models import load
from divlens.models.toy import ToyModel
from divlens.statistics import ratio_of_means
from divlens.types import Prompt
from oracles.crossed_designs import (
    MIXED,
    PROMPTS,
    colours,
)
from oracles.screen import printed

FAMILIES = ("toy/ar", "toy/mim", "toy/diffusion")


def close(one: Decomposition, other: Decomposition):
    return one.components == pytest.approx(other.components, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, 7, "auto"])
@pytest.mark.parametrize("length_control", [False, True])
def test_batches_change_nothing(batch_size, length_control):
    arguments: dict[str, Any] = dict(wordings=3, paths=2, executions=2, features=colours, length_control=length_control)
    plain = decompose("toy/diffusion", MIXED, **arguments)
    seen = []
    assert close(decompose("toy/diffusion", MIXED, **arguments, batch_size=batch_size, on_batch=seen.append), plain)
    assert not close(decompose("toy/diffusion", MIXED, **arguments, seed=1), plain)  # the control
    if not length_control:
        assert sum(seen) == 2 * 3 * 2 * 2


def test_a_prompt_does_not_depend_on_the_others():
    plain = decompose("toy/mim", PROMPTS, 3, 2, 2, features=colours)
    turned = decompose("toy/mim", PROMPTS[::-1], 3, 2, 2, features=colours)
    assert turned.components[::-1] == pytest.approx(plain.components, abs=1e-12)
    assert decompose("toy/mim", PROMPTS[1:2], 3, 2, 2, features=colours).components[0] == pytest.approx(
        plain.components[1], abs=1e-12
    )
    assert plain.components[0] != pytest.approx(plain.components[1], abs=1e-3)  # the control


def test_scale_of_the_features_counts_squared_in_components_and_not_in_shares():
    plain = decompose("toy/mim", PROMPTS, 2, 3, 2, features=colours)
    scaled = decompose("toy/mim", PROMPTS, 2, 3, 2, features=lambda images: 3 * colours(images) + 7)
    assert scaled.components == pytest.approx(9 * plain.components, abs=1e-10)
    assert scaled.table[["share", "share_low", "share_high"]].to_numpy() == pytest.approx(
        plain.table[["share", "share_low", "share_high"]].to_numpy(), abs=1e-9
    )


def test_the_table_names_the_distance_that_was_measured():
    other = printed(decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours))
    assert "squared distance" in other and "LPIPS" not in other
    assert "LPIPS" in printed(decompose("toy/mim", PROMPTS, 2, 2, 2))


def test_a_total_of_nothing_is_not_a_hundred_percent():
    def constant(images):
        return torch.ones(len(images), 2)

    lines = printed(decompose("toy/mim", PROMPTS, 2, 2, 2, features=constant)).splitlines()
    assert next(line for line in lines if line.startswith("total ")).split()[-1] == "n/a"
    some = printed(decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours)).splitlines()
    assert next(line for line in some if line.startswith("total ")).split()[-1] == "100"


def test_half_precision_features_are_widened_before_they_are_subtracted():
    whole = decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours)
    assert close(decompose("toy/mim", PROMPTS, 2, 2, 2, features=lambda images: colours(images).half()), whole)


def test_sums_of_one_prompt_are_all_that_is_kept():
    alive = []

    def watched(images):
        gc.collect()
        alive.append(sum(type(thing) is CrossedSums for thing in gc.get_objects()))
        return colours(images)

    for count in (2, 6):
        alive.clear()
        decompose("toy/ar", [f"number {i}" for i in range(count)], 2, 1, 4, features=watched, batch_size=4)
        assert 1 <= max(alive) <= 2


@dataclass(frozen=True)
class Counting(ToyModel):
    encoded: tuple[list, ...] = ([],)

    def encode(self, wordings):
        self.encoded[0].extend(wordings)
        return super().encode(wordings)


def test_a_wording_is_encoded_once():
    model = Counting("mim", load("toy/mim").rule, encoded=([],))
    result = decompose(model, MIXED, 3, 2, 2, features=colours, batch_size=5)
    assert sorted(model.encoded[0]) == sorted(text for texts in result.wordings for text in texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(wordings=0), "wordings expects a whole number of at least 1, got 0"),
        (dict(paths=-1), "paths expects a whole number of at least 1, got -1"),
        (dict(executions=2.5), "executions expects a whole number of at least 1, got 2.5"),
        (
            dict(paths=10**9),
            "wordings x paths x executions expects at most 1,000,000 pictures of a prompt, got 12,000,",
        ),
        (dict(decoders=10**5), "executions x decoders expects at most 1,000,000 pictures of a prompt, got 4,800,000"),
        (dict(decoders=0), "decoders expects a whole number of at least 1, got 0"),
        (dict(wordings=1, paths=1, executions=1), "at least 2 wordings, paths, executions or decoders"),
        (dict(wordings=9), "at least 9 wordings of 'red heart', got 8"),
        (dict(wordings=1, length_control=True), "length_control expects at least 2 wordings, got 1"),
        (dict(interventions=[Freeze("path")]), "decompose varies the noise itself, got Freeze of path"),
        (dict(interventions=[Freeze("execution")]), "got Freeze of execution"),
        (dict(interventions=[Subset(0.3), DisableTop(1.0)]), "leaves no code to draw"),
        (dict(seed=-1), "seed expects"),
        (dict(batch_size=0), "batch_size expects"),
        (dict(prompts=[]), "at least one prompt"),
        (dict(prompts=["a", "a"]), "expected different prompts"),
        (dict(prompts=[Prompt("a", ("b " * 40,))], wordings=2), "reads at most 32 words"),
        (dict(model="toy/none"), "no model is called 'toy/none'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(arguments, message):
    seen = []
    call: dict[str, Any] = (
        dict(model="toy/mim", prompts=["red heart"], features=colours, on_batch=seen.append) | arguments
    )
    with pytest.raises(DivlensError, match=message):
        decompose(**call)
    assert not seen


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda images: images, r"features of shape \(32, d\) for 32 pictures, got \(32, 3, 32, 96\)"),
        (lambda images: colours(images)[1:], r"got \(31, 9\)"),
        (lambda images: colours(images) / 0, "finite features, got NaN or infinity"),
    ],
)
def test_features_of_the_wrong_kind_are_refused(features, message):
    with pytest.raises(DivlensError, match=message):
        decompose("toy/mim", ["red heart"], features=features)


def test_a_constant_ratio_has_no_width_and_few_prompts_get_students_interval():
    totals = np.array([1.0, 2.0, 4.0, 3.0, 2.0, 5.0, 1.5])
    assert ratio_of_means(totals, totals).low == ratio_of_means(totals, totals).high == 1.0
    parts = totals * np.array([0.4, 0.5, 0.6, 0.5, 0.45, 0.5, 0.55])
    found = ratio_of_means(parts, totals)
    assert found.low < parts.sum() / totals.sum() < found.high
    assert found == ratio_of_means(parts, totals, 0) != ratio_of_means(parts, totals, 1)
    few = ratio_of_means(parts[:3], totals[:3])
    assert few.value - few.low == pytest.approx(few.high - few.value)
    assert math.isnan(ratio_of_means(parts[:1], totals[:1]).low)
    assert math.isnan(ratio_of_means(parts, totals - totals.mean() - 1).value)
