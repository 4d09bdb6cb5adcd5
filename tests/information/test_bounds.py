"""Bounds of H(Z|X), H(Z) and I(X;Z) against the enumerated distribution of grids."""

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from divlens.information import Effort, information
from divlens.information.assembly import TRIVIAL
from divlens.interventions import Argmax, Freeze, Temperature
from divlens.paths import ConfidenceUnmasking
from oracles.small_models import Small
from oracles.toy_bits import PROMPTS, exact_numbers
from oracles.toy_grids import toy
from oracles.transcripts import Case, entropy, truth

FAMILIES = ("ar", "mim", "diffusion")
SIGMAS = 5  # false-alarm rate 6e-7 each


@cache
def measured(family: str, seed: int = 0):
    return information(toy(family, seed), PROMPTS, n=160, seed=seed, effort=Effort(paths=8, path_samples=80))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_brackets_hold_the_truth(family, seed):
    found = measured(family, seed)
    for name, exact in zip(("conditional", "sequence", "mutual"), exact_numbers(family, seed), strict=True):
        lower, upper = getattr(found, f"{name}_lower"), getattr(found, f"{name}_upper")
        assert lower.value - SIGMAS * lower.mc_error < exact < upper.value + SIGMAS * upper.mc_error, name
        if family == "ar":
            assert lower == upper and abs(lower.value - exact) < SIGMAS * lower.mc_error
    assert found.ceiling.value == math.log2(3)
    assert found.mutual_upper.value <= found.ceiling.value
    assert found.conditional_lower.value >= found.trajectory_execution.value - 1e-9


def test_the_exact_numbers_of_ar_would_show_other_weights():
    found, other = measured("ar", 0), exact_numbers("ar", 7)
    assert abs(found.conditional_lower.value - other[0]) > SIGMAS * found.conditional_lower.mc_error


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_more_paths_tighten_both_bounds(family):
    found = information(
        toy(family), PROMPTS[:1], n=100, effort=Effort(paths=32, path_samples=100, mixture_samples=0)
    ).tightness
    assert [each.paths for each in found] == [1, 2, 4, 8, 16, 32]
    # All bounds are from the same grids, so their noise is shared; 0.05 bits is a tenth of what the paths bring.
    assert all(b.upper < a.upper + 0.05 for a, b in itertools.pairwise(found))
    assert found[-1].lower > found[0].lower
    exact = truth(Case(toy(family), PROMPTS[0])).conditional
    assert abs(found[-1].upper - exact) < abs(found[0].upper - exact)
    if family == "mim":
        assert abs(found[-1].upper - exact) < 0.1 + SIGMAS * found[-1].upper_mc_error


def test_committed_tokens_of_a_diffusion_say_more_than_its_grid():
    """A token that is replaced later was drawn all the same: H(Z||P|X) of the schedule can exceed H(Z|X)."""
    exact = truth(Case(toy("diffusion"), PROMPTS[0]))
    assert exact.execution > exact.conditional > exact.trajectory_execution
    found = measured("diffusion")
    assert found.conditional_lower.value < found.execution.value


def test_without_noise_in_the_draws_the_bracket_is_that_of_the_path():
    model: Any = Small(ConfidenceUnmasking(3), codes=3)
    found = information(model, PROMPTS, n=60, interventions=[Argmax()])
    exact = [truth(Case(model, text, greedy=True)) for text in PROMPTS]
    conditional = np.mean([one.conditional for one in exact])
    lower, upper = found.conditional_lower, found.conditional_upper
    assert found.execution.value == 0
    assert lower.value - SIGMAS * lower.mc_error <= conditional <= upper.value + SIGMAS * upper.mc_error
    assert upper.value <= found.joint.value + 1e-9


def test_a_temperature_moves_the_exact_numbers_with_it():
    model = toy("ar")
    found = information(model, PROMPTS, n=200, interventions=[Temperature(0.5)], effort=Effort(paths=0))
    p = [truth(Case(model, text, transform=lambda logits: logits / 0.5)).grids for text in PROMPTS]
    exact = float(np.mean([entropy(list(one.values())) for one in p]))
    assert abs(found.conditional_lower.value - exact) < SIGMAS * found.conditional_lower.mc_error
    assert exact < exact_numbers("ar")[0] - 0.3


def test_frozen_noise_leaves_likelihoods_undefined_and_says_so():
    found = information(toy("mim"), PROMPTS, n=20, interventions=[Freeze("path")])
    for name in ("mutual_lower", "mutual_upper", "sequence_lower", "sequence_upper"):
        assert math.isnan(getattr(found, name).value) and "Freeze" in getattr(found, name).note
    assert "frozen path" in found.path.note and "frozen path" in found.conditional_upper.note
    assert found.conditional_lower.value <= found.conditional_upper.value


@pytest.mark.parametrize(
    ("family", "interventions", "same"),
    [
        ("mim", [Argmax(), Freeze("execution")], [Argmax()]),
        ("ar", [Freeze("path")], []),
        ("diffusion", [Argmax("all"), Freeze("path"), Freeze("execution")], [Argmax("all")]),
    ],
)
def test_a_freeze_of_what_has_no_noise_changes_nothing(family, interventions, same):
    frozen, free = (information(toy(family), PROMPTS, n=12, interventions=used) for used in (interventions, same))
    assert math.isfinite(frozen.mutual_lower.value) and math.isfinite(frozen.sequence_upper.value)
    assert frozen.remarks == free.remarks
    for name, found in free.estimates.items():
        np.testing.assert_equal(frozen.estimates[name], found)


def test_no_bound_is_weaker_than_what_everyone_knows():
    """I(X;Z) >= 0, and a grid has at most N log2(codes) bits. A handful of samples puts some of 20 bounds below."""
    runs = [information(toy("mim"), PROMPTS, n=6, seed=seed, effort=Effort(0, 0, 3)) for seed in range(20)]
    assert all(run.mutual_lower.value >= 0 for run in runs)
    below = [run for run in runs if run.mutual_lower.note == TRIVIAL]
    assert below and len(below) < len(runs)
    assert all(math.isclose(run.sequence_lower.value, run.conditional_lower.value) for run in below)
    flat: Any = Small(ConfidenceUnmasking(3), codes=3, sharpness=0.4)
    runs, most = [information(flat, PROMPTS, n=20, seed=seed) for seed in range(4)], 3 * math.log2(3)
    beyond = [run for run in runs if run.conditional_upper.value + run.mutual_upper.value > most + 0.01]
    assert beyond and all(run.sequence_upper.value == most for run in beyond)


def test_the_plane_has_no_point_without_a_judge():
    assert math.isnan(measured("ar").relevant.value) and "judge" in measured("ar").relevant.note
