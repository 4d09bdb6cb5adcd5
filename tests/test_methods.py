"""Methods that may raise diversity: what each does, that at its neutral value it does nothing, and what it refuses.

That `information` accounts for them exactly is tested with all other interventions, in
information/test_causal_accounting.py.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens import paths
from divlens.errors import DivlensError
from divlens.interventions import DisableTop, Guidance, Intervention, Settings, filter_logits
from divlens.methods import (
    ChooseThenSample,
    EntropyTemperature,
    FixedOrder,
    GuidanceInterval,
    MinP,
    PathTemperature,
    RandomOrder,
)
from divlens.models.toy import ToyModel
from divlens.paths import Raster
from divlens.planning import plan
from divlens.run import fill
from divlens.sampler import sample
from divlens.types import Prompt
from oracles.interventions import heat_by_entropy, keep_near_the_best, make_rarer
from oracles.toy_grids import GRIDS, chi_square_p, counts_of, exact, toy
from oracles.transcripts import Case, truth

FAMILIES = ("ar", "mim", "diffusion")
PROMPTS = ["red heart", "a cat"]
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine
every_family = pytest.mark.parametrize("family", FAMILIES)


def tokens(model: ToyModel, *interventions: Intervention, n: int = 24) -> torch.Tensor:
    run = plan(model, [Prompt(text) for text in PROMPTS], n, 0, interventions)
    return torch.cat([batch.tokens for batch in fill(run)])


# Of each method the value that changes nothing, and one that does.
NEUTRAL: list[tuple[Intervention, Intervention]] = [
    (DisableTop(0.5, strength=0.0), DisableTop(0.5, strength=0.99)),
    (MinP(0.0), MinP(1.0)),
    (EntropyTemperature(theta=1, t0=0), EntropyTemperature(theta=0.05, t0=0)),
    (GuidanceInterval(0, 1), GuidanceInterval(0, 0)),
]


@every_family
@pytest.mark.parametrize(("nothing", "something"), NEUTRAL, ids=repr)
def test_at_its_neutral_value_a_method_changes_no_token(family, nothing, something):
    model = toy(family)
    assert torch.equal(tokens(model, nothing), tokens(model))
    assert not torch.equal(tokens(model, something), tokens(model))  # the control


WRONG = [
    lambda: DisableTop(0.1, strength=1.5),
    lambda: DisableTop(0.1, strength=math.nan),
    lambda: MinP(-0.1),
    lambda: MinP(1.01),
    lambda: MinP("a lot"),  # type: ignore[arg-type]
    lambda: EntropyTemperature(theta=0),
    lambda: EntropyTemperature(t0=-1),
    lambda: EntropyTemperature(alpha=0),
    lambda: EntropyTemperature(theta=math.inf),
    lambda: GuidanceInterval(0.5, 0.4),
    lambda: GuidanceInterval(-0.1, 0.4),
    lambda: GuidanceInterval(0.1, 1.4),
    lambda: GuidanceInterval(math.nan, 1),
    lambda: PathTemperature(-1),
    lambda: PathTemperature(math.inf),
    lambda: PathTemperature(1, "quadratic"),  # type: ignore[arg-type]
    lambda: FixedOrder("spiral"),  # type: ignore[arg-type]
    lambda: FixedOrder((0, 2)),
    lambda: FixedOrder((0, 1, 1)),
    lambda: FixedOrder(roll=2),  # type: ignore[arg-type]
    lambda: paths.ConfidenceUnmasking(cooling="quick"),  # type: ignore[arg-type]
    lambda: paths.ConfidenceUnmasking(temperature=(2.0, 1.0), cooling="running product"),
    lambda: paths.ChooseThenSample(temperature=(-1.0, 0.0)),
    lambda: paths.ChooseThenSample(steps=0),
]


@pytest.mark.parametrize("make", WRONG)
def test_values_out_of_range_are_refused_and_named(make):
    with pytest.raises(DivlensError, match="expects") as caught:
        make()
    assert "\n" not in str(caught.value)


# --- the law of a token draw ----------------------------------------------------------------------------------------

eighths = st.integers(-160, 160).map(lambda number: number / 8)  # apart, so that rounding ties none
logit_lists = st.lists(eighths, min_size=2, max_size=12, unique=True)


def filtered(logits: list[float], **changes: Any) -> np.ndarray:
    settings_ = Settings(Raster(1), 1.0, **changes)
    return filter_logits(torch.tensor([[logits]]), settings_)[0, 0].double().exp().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max())
    return weight / weight.sum()


@fixed
@given(logits=logit_lists, p=st.sampled_from([0.013, 0.1, 0.37, 0.9]))
def test_min_p_keeps_what_is_near_the_best(logits, p):
    """Float32 softmax against float64: to 2e-5. No ratio of the examples, exp of eighths, is one of these p."""
    np.testing.assert_allclose(
        filtered(logits, min_p=p), softmax(keep_near_the_best(p)(np.array([logits]))[0]), atol=2e-5
    )


def test_min_p_is_that_of_transformers():
    warp = pytest.importorskip("transformers").MinPLogitsWarper
    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 3
    for p in (0.02, 0.1, 0.5):
        expected = warp(min_p=p)(None, scores).softmax(-1)
        found = filter_logits(scores[:, None], Settings(Raster(1), 1.0, min_p=p))[:, 0].exp()
        torch.testing.assert_close(found, expected)
        assert 0 < int((expected == 0).sum()) < expected.numel()


@fixed
@given(logits=logit_lists, t0=st.floats(0, 5), alpha=st.floats(0.2, 9), theta=st.floats(0.3, 3), t=st.floats(0.5, 2))
def test_the_temperature_follows_the_entropy(logits, t0, alpha, theta, t):
    found = filtered(logits, by_entropy=(t0, alpha, theta), temperature=t)
    expected = softmax(heat_by_entropy(t0, alpha, theta)(np.array([logits]))[0] / t)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # logits up to 160 after the division, in float32


def test_the_temperature_by_entropy_heats_what_is_certain_and_cools_what_is_not():
    """2.5 exp(-H / 3) + 0.6: 3.1 at 0 nats, below 1 from 3 ln(2.5 / 0.4) = 5.5 nats on, 245 codes alike."""
    certain = [9.0, 0.0, 0.0]
    assert filtered(certain, by_entropy=(2.5, 3.0, 0.6))[0] < filtered(certain)[0]
    wide = [0.0] * 500 + [1.0]
    assert filtered(wide, by_entropy=(2.5, 3.0, 0.6))[-1] > filtered(wide)[-1]
    # The entropy is that of the codes that may be drawn: with top-k 1 there is none left.
    assert filtered(wide, by_entropy=(2.5, 3.0, 0.6), top_k=1)[-1] == 1


@fixed
@given(logits=logit_lists, code=st.integers(0, 1), strength=st.floats(0.01, 0.99))
def test_a_soft_penalty_takes_a_share_of_the_probability(logits, code, strength):
    factors = torch.zeros(len(logits), dtype=torch.float64)
    factors[code] = math.log1p(-strength)
    expected = softmax(make_rarer((code,), strength)(np.array([logits]))[0])
    np.testing.assert_allclose(filtered(logits, log_factors=factors), expected, atol=2e-5)


def test_a_soft_penalty_lies_between_nothing_and_the_ban_and_penalties_multiply():
    def share(*interventions: Intervention) -> float:
        """Of the code that comes out most often, under a law of the prompt alone."""
        found = sample(toy("ar"), ["a cat"], n=4, interventions=interventions, trace=True).trace
        assert found is not None
        return float(found.steps[0].entropy[0, 0])

    law = [float(share(DisableTop(0.34, strength=strength))) for strength in (0, 0.3, 0.6, 0.9, 1)]
    assert law[0] == share() and law[4] == share(DisableTop(0.34)) and len(set(law)) == 5
    twice = share(DisableTop(0.34, strength=0.5), DisableTop(0.34, strength=0.5))
    assert math.isclose(twice, share(DisableTop(0.34, strength=0.75)), abs_tol=1e-6)


@every_family
def test_guidance_acts_in_its_steps_only(family):
    """Step by step: the log-probabilities are those of the scale that is due, given the state."""
    model = toy(family)
    steps = model.rule.steps
    run = plan(model, [Prompt("a cat")], 30, 0, [Guidance(4.0), GuidanceInterval(1 / steps, 2 / steps)])
    seen = []

    def see(place, passing):
        for moment in passing:
            predictor = model.predictor(model.encode(["a cat"] * 30), guided=True)
            conditional, unconditional = predictor(moment.view)
            assert unconditional is not None
            scale = 4.0 if moment.view.step == 1 else 1.0
            logits = unconditional + scale * (conditional - unconditional)
            seen.append(float((logits.log_softmax(-1) - moment.log_p).abs().max()))

    list(fill(run, see))
    assert len(seen) == steps and max(seen) < 1e-5  # float32 against float64


def test_without_a_guided_step_the_network_is_asked_once_a_step():
    asked = []

    class Watched(ToyModel):
        def predictor(self, conditions, guided):
            asked.append(guided)
            return super().predictor(conditions, guided)

    model = Watched("mim", toy("mim").rule)
    for interventions in ([GuidanceInterval(0.5, 0.5)], [GuidanceInterval(0.0, 0.5)], [Guidance(1.0)]):
        list(fill(plan(model, [Prompt("a cat")], 2, 0, interventions)))
    assert asked == [False, True, False]


def test_methods_and_filters_are_applied_in_one_order():
    """Bans, factors, top-k, temperature, top-p, min-p: against each in turn, on logits that are apart."""
    logits, allowed = [3.0, 2.5, 2.0, 1.0, 0.5], torch.tensor([True, True, True, True, False])
    factors = torch.tensor([-2.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    found = filtered(logits, allowed=allowed, log_factors=factors, top_k=3, temperature=2.0, top_p=0.8, min_p=0.5)
    row = np.array([1.0, 2.5, 2.0, 1.0, -np.inf])  # two are tied for the third place, and stay
    chance = softmax(row / 2)
    assert chance[[1, 2]].sum() < 0.8 < chance[[1, 2, 0]].sum()  # top-p keeps the first of the tied
    chance = np.where([1, 1, 1, 0, 0], chance, 0)
    chance = np.where(chance >= 0.5 * chance.max(), chance, 0)
    np.testing.assert_allclose(found, chance / chance.sum(), atol=1e-6)


# --- the path of masked models ---------------------------------------------------------------------------------------


def rule_under(*interventions: Intervention, family: str = "mim") -> Any:
    return plan(toy(family), [Prompt("a cat")], 1, 0, interventions).settings.rule


def test_what_a_masked_model_does_already_changes_no_token():
    model = toy("mim")  # tau from 2 to 0
    assert torch.equal(tokens(model, PathTemperature(2.0)), tokens(model))
    for tau, schedule in ((0.2, "linear"), (2.0, "constant"), (2.0, "running product")):
        assert not torch.equal(tokens(model, PathTemperature(tau, schedule)), tokens(model))  # type: ignore[arg-type]
    for method, rule in (
        (RandomOrder(), paths.RandomOrder(3)),
        (FixedOrder("raster", roll=False), paths.FixedOrder((0, 1, 2), 3)),
        (ChooseThenSample(), paths.ChooseThenSample(3)),
    ):
        own = ToyModel("mim", rule)
        assert torch.equal(tokens(own, method), tokens(own)) and torch.equal(tokens(model, method), tokens(own))
        assert not torch.equal(tokens(model, method), tokens(model))  # the control


def test_the_rule_is_the_one_that_is_asked_for_with_the_steps_of_the_model():
    assert rule_under(PathTemperature(3.0, "constant")) == paths.ConfidenceUnmasking(3, (3.0, 3.0))
    assert rule_under(PathTemperature(3.0)) == paths.ConfidenceUnmasking(3, (3.0, 0.0))
    product = paths.ConfidenceUnmasking(3, (3.0, 0.0), cooling="running product")
    assert rule_under(PathTemperature(3.0, "running product")) == product
    assert rule_under(ChooseThenSample(), PathTemperature(1.0)) == paths.ChooseThenSample(3, (1.0, 0.0))
    assert rule_under(PathTemperature(1.0), ChooseThenSample()) == paths.ChooseThenSample(3, (1.0, 0.0))
    assert rule_under(RandomOrder()) == paths.RandomOrder(3)
    assert rule_under(FixedOrder()) == paths.FixedOrder(paths.halton_order((1, 3)), 3, roll=True)
    assert rule_under(FixedOrder((2, 0, 1), roll=False)) == paths.FixedOrder((2, 0, 1), 3)


def test_the_running_product_is_that_of_the_published_loop():
    """Show-o and MMaDA: `temperature = temperature * (1.0 - ratio)` at every step, before it is used."""
    for steps in (1, 2, 8, 18):
        rule, temperature = paths.ConfidenceUnmasking(steps, (4.5, 0.0), cooling="running product"), 4.5
        for step in range(steps):
            temperature = temperature * (1.0 - 1.0 * (step + 1) / steps)
            assert math.isclose(rule.tau(step), temperature, abs_tol=1e-12)
    linear = paths.ConfidenceUnmasking(8, (4.5, 0.0))
    assert rule.tau(4) < linear.tau(4)  # type: ignore[possibly-undefined]


def test_a_rule_as_usual_is_called_as_in_stored_runs():
    assert (
        repr(paths.ConfidenceUnmasking(3)) == "ConfidenceUnmasking(steps=3, temperature=(2.0, 0.0), schedule='cosine')"
    )
    assert "cooling='running product'" in repr(paths.ConfidenceUnmasking(3, cooling="running product"))


@pytest.mark.parametrize("method", [PathTemperature(1.0), RandomOrder(), FixedOrder(), ChooseThenSample()], ids=repr)
@pytest.mark.parametrize("family", ["ar", "diffusion"])
def test_a_model_that_is_not_masked_is_refused_in_one_line(family, method):
    with pytest.raises(DivlensError, match=f"^{type(method).__name__} expects a masked model, got") as caught:
        rule_under(method, family=family)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "chain",
    [[RandomOrder(), PathTemperature(1.0)], [FixedOrder(), ChooseThenSample()], [FixedOrder(tuple(range(4)))]],
    ids=repr,
)
def test_a_path_that_does_not_fit_is_refused_in_one_line(chain):
    with pytest.raises(DivlensError, match="expects") as caught:
        rule_under(*chain)
    assert "\n" not in str(caught.value)


def counts_of_grids(model: Any, *interventions: Intervention, n: int = 6000) -> np.ndarray:
    run = plan(model, [Prompt("red heart")], n, 0, interventions, batch_size=3000)
    return counts_of(torch.cat([batch.tokens for batch in fill(run)]))


@pytest.mark.parametrize(
    "method",
    [RandomOrder(), FixedOrder(roll=False), ChooseThenSample(), PathTemperature(0.3, "running product")],
    ids=repr,
)
def test_grids_follow_the_law_of_the_path(method):
    """Pearson's test against the enumeration; it rejects at 1e-6, which is its false-alarm rate."""
    model, counts = toy("mim"), counts_of_grids(toy("mim"), method)
    law = truth(Case(model, "red heart", rule=rule_under(method))).grids
    assert chi_square_p(counts, np.array([law.get(grid, 0.0) for grid in GRIDS])) > 1e-6
    assert chi_square_p(counts, exact(model, "red heart")) < 1e-6  # the control: the law of the model as it is


def test_choosing_first_makes_tokens_less_probable_than_drawing_first():
    """What it is for: the entropy of grids is higher than that of confidence unmasking."""
    model = toy("mim")
    as_it_is, chosen = (
        truth(Case(model, "red heart", rule=rule)) for rule in (model.rule, rule_under(ChooseThenSample()))
    )
    assert chosen.conditional > as_it_is.conditional + 0.02
