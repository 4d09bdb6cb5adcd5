"""`information` as a user meets it: the table, unknown rules, models of others, and bad input."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small import Small

from divlens import models
from divlens.information import Effort, information
from divlens.information.records import LABELS, Estimate, Moments, plus, straightened
from divlens.paths import Advance, ConfidenceUnmasking, Raster
from divlens.types import DivlensError, View

PROMPTS = ["red heart", "a cat"]


def test_the_table_has_every_quantity_per_image_and_per_token():
    found = information(models.load("toy/diffusion"), PROMPTS, n=20)
    table = found.table.set_index("quantity")
    assert list(table.index) == list(LABELS)
    joint = table.loc["joint"]
    assert joint["bits_per_image"] == found.joint.value
    assert math.isclose(joint["bits_per_token"] * 3, joint["bits_per_image"])
    assert joint["image_low"] < joint["bits_per_image"] < joint["image_high"]
    assert joint["image_mc_error"] > 0
    # Both readings of the path stand side by side, and each sums to its own joint.
    for prefix in ("", "trajectory_"):
        parts = table.loc[[f"{prefix}path", f"{prefix}execution"], "bits_per_image"].sum()
        assert math.isclose(parts, table.loc[f"{prefix}joint", "bits_per_image"])
    assert table.loc["trajectory_path", "bits_per_image"] != table.loc["path", "bits_per_image"]
    assert all("causal" in LABELS[name] for name in ("path", "execution", "trajectory_path", "trajectory_execution"))


def test_the_reading_picks_which_path_is_reported():
    schedule, trajectory = (
        information(models.load("toy/diffusion"), PROMPTS, n=20, reading=reading, effort=Effort(0, 0, 0))
        for reading in ("schedule", "trajectory")
    )
    assert trajectory.path == trajectory.trajectory_path == schedule.trajectory_path
    assert schedule.path != trajectory.path


def test_results_do_not_depend_on_the_batch():
    """To 1e-6 bits: the quadrature's nodes are shared within a batch."""
    one, other = (information(models.load("toy/mim"), PROMPTS, n=12, batch_size=size) for size in (5, 100))
    for name in LABELS:
        a, b = one.estimates[name], other.estimates[name]
        assert a.note == b.note and (math.isnan(a.value) or abs(a.value - b.value) < 1e-5), name


@dataclass(frozen=True)
class Backwards:
    """Position n - 1 - s at step s: a rule that the library does not know."""

    positions: int

    @property
    def steps(self) -> int:
        return self.positions

    def view(self, tokens, step):
        return View(step, tokens, first=self.positions - 1 - step, count=1, time=step)

    def drawn(self, view, mask):
        return torch.ones_like(view.tokens[:, :1], dtype=torch.bool)

    def advance(self, view, draws, mask, noise):
        tokens = view.tokens.clone()
        tokens[:, view.first] = draws.tokens[:, 0]
        committed = torch.zeros_like(tokens, dtype=torch.bool)
        committed[:, view.first] = True
        return Advance(tokens, committed, torch.zeros(len(tokens), dtype=torch.float64))

    def silenced(self):
        return self


def test_an_unknown_rule_has_execution_bits_and_a_path_that_is_nan_with_a_reason():
    model: Any = Small(Backwards(3), codes=4, sharpness=0.0)
    found = information(model, PROMPTS, n=10)
    assert abs(found.execution.value - 6) < 1e-5
    for name in ("path", "joint", "conditional_lower", "conditional_upper", "mutual_upper", "sequence_lower"):
        estimate = getattr(found, name)
        assert math.isnan(estimate.value) and "Backwards" in estimate.note
    assert "Backwards" in found.execution.note
    assert not math.isnan(found.token_plug_in.value)


@dataclass(frozen=True)
class Own(ConfidenceUnmasking):
    """Somebody's subclass of a known rule is that rule."""


@pytest.mark.parametrize("rule", [Raster(3), Own(3, (1.0, 0.5))])
def test_a_model_that_only_follows_the_protocol(rule):
    model: Any = Small(rule, codes=5)
    found = information(model, PROMPTS, n=10)
    assert found.model == "small" and found.codes == 5 and found.positions == 3
    assert found.joint.value > 0 and not math.isnan(found.mutual_upper.value)


def test_a_uniform_model_is_known_in_closed_form():
    model: Any = Small(Raster(3), codes=4, sharpness=0.0)
    found = information(model, PROMPTS, n=40)
    for name in ("execution", "joint", "conditional_lower", "conditional_upper", "sequence_lower"):
        assert abs(getattr(found, name).value - 6) < 1e-5
    assert abs(found.mutual_lower.value) < 1e-6
    assert 3.5 < found.perplexity <= 4 and found.usage == 1


def test_bad_input_is_one_clear_line():
    model = models.load("toy/ar")
    for call, message in (
        (lambda: information(model, []), "at least one prompt"),
        (lambda: information(model, PROMPTS, n=0), "at least 1 sample"),
        (lambda: information(model, ["a cat", "a cat"]), "distinct prompts"),
        (lambda: information(model, PROMPTS, reading="both"), "schedule"),  # type: ignore[arg-type]
        (lambda: information(model, PROMPTS, seed=-1), "seed"),
        (lambda: Effort(paths=-1), "paths"),
    ):
        with pytest.raises(DivlensError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_one_sample_per_prompt_has_no_error_and_says_nan():
    found = information(models.load("toy/mim"), PROMPTS, n=1)
    assert math.isnan(found.joint.mc_error) and not math.isnan(found.joint.value)


def test_an_unknown_name_is_refused_with_those_there_are():
    found = information(models.load("toy/ar"), PROMPTS, n=2)
    with pytest.raises(AttributeError, match="path, execution"):
        _ = found.nothing


def test_sums_of_estimates_and_straightened_quantiles():
    nothing = Estimate(math.nan, note="why")
    assert math.isnan(plus(nothing, nothing).value) and plus(nothing, nothing).note == "why"
    for t in (-2.0, 2.0):
        for skewness in (-0.3, 0.0, 0.4):
            x = straightened(t, skewness)
            back = x + skewness * x**2 / 3 + skewness**2 * x**3 / 27 + skewness / 6
            assert abs(back - t) < 1e-9
    assert Moments.__dataclass_fields__["third"].default is None
