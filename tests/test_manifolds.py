"""Precision, recall, density and coverage, against the package prdc."""

import contextlib
import io
import math
from dataclasses import asdict

import joblib
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc

from divlens.metrics.manifolds import Reference


def points(seed, count, shift=0.0, size=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) + shift


def by_package(reference, pictures, neighbours):
    # It prints how many there are, and asks for eight processes.
    with contextlib.redirect_stdout(io.StringIO()), joblib.parallel_config(backend="sequential"):
        return compute_prdc(reference.numpy(), pictures.numpy(), neighbours)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    real=st.integers(7, 30),
    fake=st.integers(7, 30),
    shift=st.floats(0, 3),
    neighbours=st.integers(1, 5),
)
def test_they_are_those_of_the_package(seed, real, fake, shift, neighbours):
    """Shares of comparisons, so equal but for the rounding of a mean."""
    reference, pictures = points(seed, real), points(seed + 1, fake, shift)
    found = asdict(Reference.of([reference[:4], reference[4:]], neighbours).against([pictures[:3], pictures[3:]]))
    assert found == pytest.approx(by_package(reference, pictures, neighbours), abs=1e-12)


def test_they_tell_less_from_other():
    """Pictures of half the reference have precision and lack recall; those from elsewhere have neither."""
    left, right = points(0, 20, 0.0), points(1, 20, 30.0)
    reference = Reference.of([torch.cat([left, right])])
    half, elsewhere = reference.against([points(2, 20)]), reference.against([points(3, 20, -30.0)])
    assert half.precision > 0.8 and 0.3 < half.recall < 0.6 and 0.3 < half.coverage < 0.6 and half.density > 0.6
    assert asdict(elsewhere) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    same = reference.against([torch.cat([left, right])])
    assert same.precision == same.recall == same.coverage == 1


def test_what_is_undefined_is_nan():
    reference = Reference.of([points(0, 9)])
    few = reference.against([points(1, 5)])  # no fifth neighbour
    assert math.isnan(few.recall) and not any(map(math.isnan, (few.precision, few.density, few.coverage)))
    assert all(map(math.isnan, asdict(reference.against([])).values()))
    assert not math.isnan(reference.against([points(1, 6)]).recall)
