"""Methods that may raise diversity: what each does, that at its neutral value it does nothing, and what it refuses.

That `information` accounts for them exactly is tested with all other interventions, in
information/test_causal_accounting.py.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens import paths
from divlens.condition_noise import FadingNoise
from divlens.decompose import decompose
from divlens.errors import DivlensError
from divlens.information import Effort, information
from divlens.interventions import DisableTop, Freeze, Guidance, Intervention
from divlens.methods import (
    ChooseThenSample,
    ConditionNoise,
    EntropyTemperature,
    FixedOrder,
    GuidanceInterval,
    MinP,
    PathTemperature,
    RandomOrder,
    RepulseTokens,
    StratifiedNoise,
)
from divlens.models.toy import ToyModel
from divlens.noise import CounterNoise, stream_key
from divlens.paths import Raster
from divlens.planning import plan
from divlens.run import Row, fill
from divlens.sampler import sample
from divlens.settings import Settings, filter_logits
from divlens.types import Prompt, View
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
    (StratifiedNoise(1), StratifiedNoise(2)),
    (RepulseTokens(0), RepulseTokens(2)),
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
    lambda: ConditionNoise(-0.1),
    lambda: ConditionNoise(psi=1.5),
    lambda: ConditionNoise(tau1=0.9, tau2=0.5),
    lambda: ConditionNoise(tau2=1.1),
    lambda: ConditionNoise(s=math.nan),
    lambda: RepulseTokens(-1),
    lambda: RepulseTokens(math.inf),
    lambda: RepulseTokens(1, among=1),
    lambda: RepulseTokens(1, among=2.5),  # type: ignore[arg-type]
    lambda: StratifiedNoise(0),
    lambda: StratifiedNoise(2.5),  # type: ignore[arg-type]
    lambda: StratifiedNoise(10**6),
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


# --- noise on the condition ------------------------------------------------------------------------------------------


def noisy_by_hand(y: np.ndarray, normal: np.ndarray, gamma: float, s: float, psi: float) -> np.ndarray:
    """CADS as its authors write it, of one row."""
    noisy = math.sqrt(gamma) * y + s * math.sqrt(1 - gamma) * normal
    scaled = (noisy - noisy.mean()) / noisy.std(ddof=1) * y.std(ddof=1) + y.mean()
    return psi * scaled + (1 - psi) * noisy


@fixed
@given(gamma=st.floats(0, 1), s=st.floats(0.01, 2), psi=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_condition_is_that_of_cads(gamma, s, psi, seed):
    random = np.random.default_rng(seed)
    y, normal = random.normal(size=(2, 4, 3, 5))  # rows of 3 x 5 numbers
    found = FadingNoise(s, psi, 0.6, 0.9).on(torch.from_numpy(y), torch.from_numpy(normal.reshape(4, 15)), gamma)
    expected = [noisy_by_hand(a.flatten(), b.flatten(), gamma, s, psi) for a, b in zip(y, normal, strict=True)]
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-9)


def test_gamma_rises_from_0_to_1():
    """Time is 1 - step / steps; gamma (tau2 - time) / (tau2 - tau1) within the two."""
    fading = FadingNoise(1.0, 1.0, 0.6, 0.9)
    assert [round(fading.gamma(step, 10), 6) for step in range(10)] == [0, 0, 0.333333, 0.666667, *[1] * 6]
    assert [FadingNoise(1.0, 1.0, 0.5, 0.5).gamma(step, 4) for step in range(4)] == [0, 0, 1, 1]
    alike = FadingNoise(0.0, 1.0, 0.6, 0.9).on(torch.ones(2, 3), torch.zeros(2, 3), 0.0)
    assert bool((alike == 0).all())  # nothing to scale back, and no NaN


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_every_step_asks_under_the_condition_with_its_noise(family):
    """Against the model asked by hand, with the numbers of the noise drawn anew one by one."""
    model, method = toy(family), ConditionNoise(s=0.7, psi=0.5, tau1=0.4, tau2=0.8)
    rows, steps = 5, model.rule.steps
    run = plan(model, [Prompt("a cat")], rows, 3, [method])
    worst, noisy_steps = [], 0

    def see(place, passing):
        nonlocal noisy_steps
        for moment in passing:
            time = 1 - moment.view.step / steps
            gamma = min(1.0, max(0.0, (0.8 - time) / 0.4))
            noisy_steps += gamma < 1
            y = model.encode(["a cat"])[0].numpy()
            for row in range(rows):
                single = CounterNoise.of(3, ["a cat"], [row], [row])
                normal = single.condition_normal(moment.view.step, len(y), torch.device("cpu"))[0].numpy()
                told = torch.from_numpy(noisy_by_hand(y, normal, gamma, 0.7, 0.5) if gamma < 1 else y)
                state = View(moment.view.step, moment.view.tokens[row : row + 1], 0, 3, moment.view.time)
                conditional, without = model.predictor(told[None], guided=True)(state)
                assert without is not None
                logits = without + model.guidance * (conditional - without)
                worst.append(float((logits.log_softmax(-1)[0] - moment.log_p[row]).abs().max()))

    list(fill(run, see))
    assert max(worst) < 1e-5 and 0 < noisy_steps < steps


def test_the_noise_of_a_condition_is_normal_and_a_stream_of_its_own():
    """Kolmogorov-Smirnov at 20,000 numbers: the distance exceeds 2.5 / sqrt(n) in 7 of a million cases."""
    noise = CounterNoise.of(0, ["a cat"] * 4, range(4), range(4))
    numbers = noise.condition_normal(0, 5000, torch.device("cpu"))
    ordered = numbers.flatten().sort().values
    distance = (torch.special.ndtr(ordered) - torch.arange(1, 20_001) / 20_000).abs().max()
    assert distance < 2.5 / math.sqrt(20_000)
    again = CounterNoise.of(0, ["a cat"], [2], [2]).condition_normal(0, 5000, torch.device("cpu"))
    assert torch.equal(again[0], numbers[2])  # whatever the batch
    for other in (
        CounterNoise.of(1, ["a cat"], [2], [2]),
        CounterNoise.of(0, ["a dog"], [2], [2]),
        CounterNoise.of(0, ["a cat"], [2], [3]),
    ):
        assert not torch.equal(other.condition_normal(0, 5000, torch.device("cpu"))[0], numbers[2])
    assert not torch.equal(noise.condition_normal(1, 5000, torch.device("cpu")), numbers)
    frozen = CounterNoise.of(0, ["a cat"], [0], [2]).condition_normal(0, 5000, torch.device("cpu"))
    assert torch.equal(frozen[0], numbers[2])  # one frozen stream does not hold it


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_a_condition_that_never_fades_changes_no_token(family):
    model = toy(family)
    assert torch.equal(tokens(model, ConditionNoise(s=1.0, tau1=1.0, tau2=1.0)), tokens(model))
    assert not torch.equal(tokens(model, ConditionNoise(s=1.0)), tokens(model))  # the control
    both = [tokens(model, ConditionNoise(s=1.0), Freeze("path"), Freeze("execution"))[:24] for _ in range(2)]
    assert torch.equal(*both)


def test_what_condition_noise_cannot_work_on_is_refused():
    with pytest.raises(
        DivlensError, match=r"^ConditionNoise expects a model that reads its condition at every step, got"
    ):
        plan(toy("ar"), [Prompt("a cat")], 1, 0, [ConditionNoise()])

    class Words(ToyModel):
        def encode(self, wordings):
            return torch.ones(len(wordings), 6, dtype=torch.long)

    with pytest.raises(DivlensError, match=r"^ConditionNoise expects conditions that are numbers, got toy/mim"):
        plan(Words("mim", toy("mim").rule), [Prompt("a cat")], 1, 0, [ConditionNoise()])
    with pytest.raises(DivlensError, match=r"^decompose splits path and execution, got ConditionNoise"):
        decompose(toy("mim"), ["a cat"], interventions=[ConditionNoise()])


def test_information_says_that_it_does_not_average_over_the_noise_of_conditions():
    """Path and execution are those given the noise; H(Z|X) is at least that, and I(X;Z) is not known."""
    quick = Effort(paths=2, mixture_samples=4)
    found = information(toy("mim"), PROMPTS, n=40, interventions=[ConditionNoise(s=1.0)], effort=quick)
    assert any("the noise of each sample's condition" in remark for remark in found.remarks)
    assert found.path.value > 0 and found.conditional_lower.value > 0
    assert abs(found.conditional_upper.value - 3 * math.log2(3)) < 1e-9  # every code alike: all that is known
    assert math.isnan(found.mutual_upper.value) and "ConditionNoise" in found.mutual_upper.note
    plain = information(toy("mim"), PROMPTS, n=40, effort=quick)  # the control
    assert plain.conditional_upper.value < 3 * math.log2(3) and math.isfinite(plain.mutual_upper.value)


# --- noise spread over samples ---------------------------------------------------------------------------------------


def uniforms(strata: int, samples: int, prompts: int = 1, positions: int = 3, seed: int = 0) -> np.ndarray:
    """The uniforms of the execution draws of each sample at each position, (prompts * samples, positions): a code of
    probability 1/256 each is the uniform, cut."""
    texts = [f"prompt {i}" for i in range(prompts) for _ in range(samples)]
    index = list(range(samples)) * prompts
    noise = CounterNoise.of(seed, texts, index, index, strata)
    return noise.draw(torch.ones(len(texts), positions, 256), 0, 0).numpy()


@pytest.mark.parametrize("strata", [2, 4, 8])
def test_every_block_of_samples_falls_into_all_strata(strata):
    found = uniforms(strata, 4 * strata, prompts=3) * strata // 256
    blocks = found.reshape(-1, strata, 3)
    assert (np.sort(blocks, 1) == np.arange(strata)[:, None]).all()
    assert len({tuple(block.flatten()) for block in blocks}) > 4  # in another order everywhere
    plain = uniforms(1, 4 * strata, prompts=3) * strata // 256  # the control
    assert not (np.sort(plain.reshape(-1, strata, 3), 1) == np.arange(strata)[:, None]).all()


def test_a_stratum_depends_on_neither_batch_nor_number_of_samples():
    whole = uniforms(4, 10)
    assert np.array_equal(uniforms(4, 3), whole[:3])
    single = CounterNoise.of(0, ["prompt 0"], [6], [6], 4).draw(torch.ones(1, 3, 256), 0, 0).numpy()
    assert np.array_equal(single[0], whole[6])
    assert not np.array_equal(uniforms(2, 10), whole)  # the control


@every_family
@pytest.mark.parametrize("sample_of_block", [0, 3])
def test_each_sample_alone_has_exactly_the_law_that_it_has(family, sample_of_block):
    """One sample of a block, over 4000 seeds: Pearson's test rejects at 1e-6, which is its false-alarm rate."""
    model = toy(family)
    rows = [Row(Prompt("red heart"), "red heart", sample_of_block, sample_of_block)] * 4000
    run = replace(plan(model, [Prompt("red heart")], 1, 0, [StratifiedNoise(4)], batch_size=4000), rows=rows)

    def other_seeds(rows, seed):
        keys = tuple(stream_key(one, "red heart") for one in range(len(rows)))
        index = (sample_of_block,) * len(rows)
        return CounterNoise(keys, index, index, 4)

    (batch,) = fill(run, noise=other_seeds)
    counts = counts_of(batch.tokens)
    assert chi_square_p(counts, exact(model, "red heart")) > 1e-6
    assert chi_square_p(counts, exact(model, "a cat")) < 1e-6  # the control


@every_family
def test_the_set_spreads(family):
    """How often a code comes out at a position among the 8 samples of a prompt varies less from prompt to prompt: at
    the first draw, where nothing else differs, the variance of a count falls from 8 p (1 - p) to below 1/4, for the
    uniforms of all samples are in different eighths."""
    model, prompts = toy(family), [Prompt("red heart")]

    def counts(strata: int) -> np.ndarray:
        found = []
        for seed in range(60):
            run = plan(model, prompts, 8, seed, [StratifiedNoise(strata)])
            first: list[torch.Tensor] = []

            def see(place, passing, first=first):
                first.extend(moment.draws.tokens[:, 0] for moment in passing if moment.view.step == 0)

            list(fill(run, see))
            found.append(np.bincount(first[0].numpy(), minlength=3))
        return np.array(found)

    spread, plain = counts(8).var(0), counts(1).var(0)
    assert spread.max() <= 0.36 and plain.max() > 0.8  # a count is one of two or three neighbours at most
    assert (spread < plain).all()


def test_joint_samples_are_refused_where_samples_must_be_independent():
    with pytest.raises(DivlensError, match=r"^information expects samples that are drawn apart .*StratifiedNoise\(8\)"):
        information(toy("ar"), PROMPTS, n=8, interventions=[StratifiedNoise()])
    with pytest.raises(DivlensError, match=r"^decompose expects samples that are drawn apart .*StratifiedNoise\(8\)"):
        decompose(toy("mim"), PROMPTS, interventions=[StratifiedNoise()])
    assert information(toy("ar"), PROMPTS, n=8, interventions=[StratifiedNoise(1)]).joint.value > 0  # the control
