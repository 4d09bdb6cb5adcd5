"""`information` as a user meets it: the table, unknown rules, models of others, and bad input."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from divlens import models
from divlens.errors import DivlensError
from divlens.information import Effort, information
from divlens.information.assembly import PER_IMAGE, ROUNDING, TOO_FEW, TRIVIAL
from divlens.information.estimates import undefined
from divlens.information.result import LABELS
from divlens.interventions import Freeze, Subset, Temperature
from divlens.paths import Advance, ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from divlens.types import View
from oracles.small_models import Small

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
    for name in ("path", "execution", "joint"):
        both = [getattr(found, f"schedule_{name}") for found in (schedule, trajectory)]
        assert both[0] == both[1] == getattr(schedule, name)
    assert not any("joint H(Z,P|X)" in LABELS[name] for name in ("joint", "schedule_joint"))  # it may be above that


def test_tables_say_whose_they_are_and_add_up():
    change, effort = [Temperature(2.0)], Effort(4, 10, 10)
    found = information("toy/diffusion", PROMPTS, n=20, seed=1, interventions=change, effort=effort)
    tables = (found.table, found.steps_table, found.maps_table, found.tightness_table, found.per_prompt)
    for table in tables:
        assert list(table.columns[:3]) == ["model", "condition", "interventions"]
        assert set(table["model"]) == {"toy/diffusion:0"} and set(table["interventions"]) == {"Temperature(t=2.0)"}
    maps = found.maps_table
    assert len(maps) == found.path_map.size
    for name in ("path", "execution"):
        sums = [maps[name][maps["step"] == step].sum() for step in found.steps_table["step"]]
        np.testing.assert_allclose(sums, found.steps_table[name].to_numpy())
    at = maps.set_index(["step", "row", "column"]).loc[(1, 0, 2)]
    assert at["path"] == found.path_map[1, 0, 2] != found.path_map[2, 0, 1]
    assert list(found.tightness_table["paths"]) == [1, 2, 4]
    assert list(found.tightness_table["upper"]) == [each.upper for each in found.tightness]
    each = found.per_prompt.set_index(["quantity", "prompt"])
    for name in ("joint", "conditional_lower", "sequence_lower", "mutual_upper"):
        rows, error = each.loc[name], getattr(found, name).mc_error
        assert math.isclose(rows["bits_per_image"].mean(), getattr(found, name).value)
        of_prompts = math.hypot(*rows["bits_per_image_mc_error"]) / 2
        # The two errors in H(Z) are added, of each prompt and of all.
        assert of_prompts < error if name == "sequence_lower" else math.isclose(of_prompts, error)
        np.testing.assert_allclose(rows["bits_per_image"], 3 * rows["bits_per_token"])
        assert (rows["bits_per_image_mc_low"] < rows["bits_per_image"]).all()
        assert (rows["bits_per_image"] < rows["bits_per_image_mc_high"]).all()
    assert "ceiling" not in set(found.per_prompt["quantity"])


def test_the_interval_of_one_prompt_is_students():
    """19 degrees of freedom: 2.093 standard errors."""
    found = information("toy/mim", PROMPTS, n=20, effort=Effort(0, 0, 0)).joint
    reach = np.array([one.high - one.value for one in found.per_prompt])
    np.testing.assert_allclose(reach, 2.093 * np.array(found.per_prompt_mc_error), rtol=1e-3)


def test_maps_and_steps_say_that_they_are_of_the_schedule():
    found = information("toy/diffusion", PROMPTS, n=20, reading="trajectory", effort=Effort(0, 0, 0))
    for table in (found.steps_table, found.maps_table):
        assert set(table["reading"]) == {"schedule"}
        assert math.isclose(float(table["path"].to_numpy().sum()), found.schedule_path.value)
    assert found.path.value != found.schedule_path.value
    assert any("schedule" in note for note in found.remarks)
    assert not any("schedule" in note for note in information("toy/ar", PROMPTS, n=2, reading="trajectory").remarks)


def test_no_interval_reaches_beyond_what_is_possible():
    """Small models use their codes nearly alike, so that the intervals of token entropies would reach too far."""
    most = 3 * math.log2(3)
    for seed in range(5):
        found = information("toy/diffusion", PROMPTS, n=12, seed=seed)
        for name in ("token_plug_in", "token_miller_madow", "sequence_lower", "sequence_upper"):
            one = found.estimates[name]
            for interval in (one.over_prompts, one.monte_carlo):
                assert 0 <= interval.low <= one.value <= interval.high <= most + 1e-9
    plug_in = found.token_plug_in
    assert any(abs(interval.high - most) < 1e-9 for interval in (plug_in.over_prompts, plug_in.monte_carlo))


def test_a_judge_that_sees_nothing_gives_0_bits():
    """Random labels: below 0 before it is cut, in about half of the seeds."""

    def judge(images):
        return torch.randint(50, (len(images),), generator=generator)

    found = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        found.append(information("toy/ar", PROMPTS, n=12, seed=seed, judge=judge, effort=Effort(0, 0, 0)).relevant)
    assert all(one.over_prompts.low >= 0 and one.value >= 0 for one in found)
    assert any(one.note == TRIVIAL and one.value == 0 for one in found)


def test_bounds_that_cross_are_named():
    crossed = [information("toy/mim", PROMPTS, n=8, seed=seed) for seed in range(20)]
    for found in crossed:
        for name, label in (("conditional", "H(Z|X):"), ("mutual", "I(X;Z):")):
            crosses = found.estimates[f"{name}_lower"].value - found.estimates[f"{name}_upper"].value > ROUNDING
            assert crosses == any(note.startswith(label) for note in found.remarks)
    assert 0 < sum(any("cross" in note for note in found.remarks) for found in crossed) < 20


def test_tables_without_rows_keep_their_columns():
    found = information("toy/ar", PROMPTS, n=2, effort=Effort(0, 0, 0))
    assert (
        list(found.tightness_table)[:4] == ["model", "condition", "interventions", "paths"]
        and found.tightness_table.empty
    )
    nothing = replace(found, **{name: undefined("why") for name in LABELS}).per_prompt
    assert list(nothing) == list(found.per_prompt) and nothing.empty


def test_a_token_entropy_that_is_nan_says_what_it_needs():
    one, two, many = (information("toy/ar", PROMPTS, n=n, effort=Effort(0, 0, 0)) for n in (1, 2, 10))
    assert math.isnan(one.token_chao_shen.value) and one.token_chao_shen.note == TOO_FEW
    for found in (one.token_plug_in, two.token_plug_in, two.token_chao_shen):
        assert math.isfinite(found.value) and math.isnan(found.mc_error) and math.isnan(found.monte_carlo.high)
        assert found.note == f"{PER_IMAGE}; its Monte-Carlo error needs 3 images of each wording"
    assert many.token_chao_shen.note == PER_IMAGE and many.token_chao_shen.mc_error > 0


def test_results_do_not_depend_on_the_batch():
    """To 1e-6 bits: the quadrature's nodes are shared within a batch."""
    one, other = (information(models.load("toy/mim"), PROMPTS, n=12, batch_size=size) for size in (5, 100))
    for name in LABELS:
        a, b = one.estimates[name], other.estimates[name]
        assert a.note == b.note and (math.isnan(a.value) or abs(a.value - b.value) < 1e-5), name


@dataclass(frozen=True)
class Narrow(Small):
    """A device that holds 10 samples, and a text encoder that holds 2 words."""

    limit: int = 2

    def predictor(self, conditions, guided):
        if len(conditions) > 10:
            raise torch.OutOfMemoryError("too many")
        return super().predictor(conditions, guided)

    def lengths(self, wordings):
        return [len(wording.split()) for wording in wordings]


def test_the_bounds_take_the_batch_that_fits():
    model: Any = Narrow(Raster(3), codes=3)
    with pytest.raises(torch.OutOfMemoryError):
        information(model, PROMPTS, n=12, effort=Effort(0, 0, 12))
    found = information(model, PROMPTS, n=12, effort=Effort(0, 0, 12), batch_size="auto")
    assert found.mutual_lower.value > 0


def test_cut_wordings_are_recorded():
    model: Any = Narrow(Raster(3), codes=3)
    found = information(model, ["a red cat", "dog"], n=2)
    assert found.wording_notes == {"a red cat": "cut from 3 to 2 tokens"}
    assert information("toy/ar", PROMPTS, n=2).wording_notes == {}


@dataclass(frozen=True)
class Below(Small):
    """The mask's id is -1."""

    @property
    def mask(self) -> int:
        return -1

    def predictor(self, conditions, guided):
        inner = super().predictor(conditions, guided)

        def call(view):
            return inner(replace(view, tokens=torch.where(view.tokens == -1, self.codes, view.tokens)))

        return call


@pytest.mark.parametrize("interventions", [(), (Freeze("path"),)])
@pytest.mark.parametrize("family", ["ar", "mim", "diffusion"])
def test_the_id_of_the_mask_does_not_matter(family, interventions):
    times = [0.0, 0.3, 0.6, 1.0]
    diffusion = MaskReplaceDiffusion(tuple((1 - t) * (1 - t / 3) for t in times), tuple(times), 3)
    rule = {"ar": Raster(3), "mim": ConfidenceUnmasking(3), "diffusion": diffusion}[family]
    above: Any = Small(rule, codes=3)
    below: Any = Below(rule, codes=3)
    one, other = (information(model, PROMPTS, n=16, interventions=interventions) for model in (above, below))
    for name in LABELS:
        np.testing.assert_equal(one.estimates[name], other.estimates[name])


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
    for name in ("conditional_upper", "sequence_upper"):  # three tokens of 4 codes: no rule gets beyond
        assert getattr(found, name).value == 6
    for name in ("path", "joint", "conditional_lower", "mutual_upper", "sequence_lower"):
        estimate = getattr(found, name)
        assert math.isnan(estimate.value) and "Backwards" in estimate.note
    assert "Backwards" in found.execution.note
    assert not math.isnan(found.token_plug_in.value)


@dataclass(frozen=True)
class Rewriting(Backwards):
    """It writes code 3 wherever code 0 was drawn, allowed or not."""

    def advance(self, view, draws, mask, noise):
        return super().advance(
            view, replace(draws, tokens=torch.where(draws.tokens == 0, 3, draws.tokens)), mask, noise
        )


def test_codes_that_an_unknown_rule_brings_in_count_though_they_may_not_be_drawn():
    model: Any = Small(Rewriting(3), codes=4, sharpness=0.0)
    found = information(model, PROMPTS, n=10, interventions=[Subset(0.5)])
    assert found.conditional_upper.value == 6 and found.token_plug_in.value > 2.5  # codes 1 and 3
    known: Any = Small(Raster(3), codes=4, sharpness=0.0)
    assert information(known, PROMPTS, n=10, interventions=[Subset(0.5)]).conditional_upper.value < 3 + 1e-5


@pytest.mark.parametrize("rule", [Raster(3), ConfidenceUnmasking(3, (1.0, 0.5))])
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


def test_what_is_held_for_the_bounds_does_not_grow_without_end():
    effort = Effort()
    assert [effort.for_paths(n, 1) for n in (1, 4, 32, 10**6)] == [1, 2, 4, 256]
    assert [effort.for_mixture(n, 12) for n in (1, 4, 120, 10**6)] == [1, 2, 10, 256]
    assert Effort(path_samples=1000).for_paths(2000, 1) == Effort(mixture_samples=1000).for_mixture(2000, 2) == 1000


def test_bad_input_is_one_clear_line():
    model = models.load("toy/ar")
    for call, message in (
        (lambda: information(model, []), "at least one prompt"),
        (lambda: information(model, PROMPTS, n=0), "at least 1, got 0"),
        (lambda: information(model, PROMPTS, n=10**12), "at most 1,000,000 samples of each prompt, got 1,0"),
        (lambda: information(model, ["a cat", "a cat"]), "different prompts"),
        (lambda: information(model, PROMPTS, reading="both"), "schedule"),  # type: ignore[arg-type]
        (lambda: information(model, PROMPTS, seed=-1), "seed"),
        (lambda: information(None, PROMPTS), "expected a model, got None, which lacks"),  # type: ignore[arg-type]
        (lambda: Effort(paths=-1), "paths"),
        (lambda: Effort(paths=None), "paths=...* expects a whole number"),  # type: ignore[arg-type]
        (lambda: Effort(paths=True), "paths=...* expects a whole number"),
        (lambda: Effort(mixture_samples=0.5), "mixture_samples=...* expects a whole number"),  # type: ignore[arg-type]
    ):
        with pytest.raises(DivlensError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_one_sample_per_prompt_has_no_error_and_says_nan():
    found = information(models.load("toy/mim"), PROMPTS, n=1)
    assert math.isnan(found.joint.mc_error) and not math.isnan(found.joint.value)


def test_every_estimate_is_an_attribute_of_the_result():
    found = information(models.load("toy/ar"), PROMPTS, n=2)
    assert list(found.estimates) == list(LABELS) and set(LABELS) <= set(dir(found))
    assert all(found.estimates[name] is getattr(found, name) for name in LABELS)
    assert not hasattr(found, "nothing")


def test_sums_of_estimates():
    nothing, something = undefined("why"), information("toy/ar", PROMPTS, n=4, effort=Effort(0, 0, 0)).execution
    for whole in (nothing + nothing, nothing + something):
        assert math.isnan(whole.value) and whole.note == "why"
    twice = something + something
    for part, single in ((twice.monte_carlo, something.monte_carlo), (twice.per_prompt[0], something.per_prompt[0])):
        ends = (part.value, part.low, part.high)
        assert ends == pytest.approx((2 * single.value, 2 * single.low, 2 * single.high))
    assert twice.mc_error == 2 * something.mc_error and twice.note == something.note
