"""Interventions: what is banned never comes out, and what they say is what the filter does."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from divlens.codebook import WAYS, fraction_of_codes
from divlens.errors import DivlensError
from divlens.interventions import (
    Argmax,
    Detailed,
    DisableTop,
    Freeze,
    Guidance,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
    apply_all,
)
from divlens.models.toy import ToyModel
from divlens.paths import Raster
from divlens.planning import Reading
from divlens.sampler import sample
from divlens.settings import Settings, filter_logits
from oracles.toy_grids import toy

FAMILIES = ("ar", "mim", "diffusion")
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine
PROMPTS = ["red heart", "a cat"]
DEFAULTS = Settings(Raster(3), 1.0)


def allowed_codes(model: ToyModel, *interventions) -> set[int]:
    allowed = Reading(model).settings(interventions).allowed
    return set(range(model.codes)) if allowed is None else set(allowed.nonzero().flatten().tolist())


fractions = st.floats(0.01, 1.0)
shaping = st.lists(
    st.one_of(
        st.integers(1, 3).map(TopK),
        st.floats(0.05, 1.0).map(TopP),
        st.floats(0.05, 5.0).map(Temperature),
        st.floats(0.0, 8.0).map(Guidance),
        st.sampled_from([Argmax(), Argmax(scope="all"), Freeze("path"), Freeze("execution")]),
    ),
    max_size=3,
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(fixed, max_examples=20)
@given(
    bans=st.lists(st.one_of(fractions.map(Subset), fractions.map(DisableTop)), min_size=1, max_size=2),
    others=shaping,
    bans_first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_banned_code_is_never_in_a_final_grid(family, bans, others, bans_first, seed):
    model = toy(family)
    try:
        allowed = allowed_codes(model, *bans)
    except DivlensError:
        with pytest.raises(DivlensError, match="leaves no code"):
            sample(model, PROMPTS, interventions=[*others, *bans])
        return
    chosen = [*bans, *others] if bans_first else [*others, *bans]
    out = sample(model, PROMPTS, n=12, seed=seed, interventions=chosen)
    assert set(out.tokens.flatten().tolist()) <= allowed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ban", [Subset(0.34), Subset(0.67), DisableTop(0.34), DisableTop(0.67)], ids=str)
def test_without_the_ban_the_codes_do_occur(family, ban):
    model = toy(family)
    allowed = allowed_codes(model, ban)
    assert 0 < len(allowed) < 3
    free = set(sample(model, PROMPTS, n=90).tokens.flatten().tolist())
    assert free - allowed
    assert set(sample(model, PROMPTS, n=90, interventions=[ban]).tokens.flatten().tolist()) == allowed


def test_a_ban_that_acts_on_one_branch_of_guidance_only_would_be_seen():
    """Why codes are banned after guidance: minus infinity in both branches gives NaN."""
    ban = torch.tensor([0.0, -math.inf])
    assert torch.lerp(ban, ban, 2.0).isnan().any()


def share(*values: float):
    return lambda: torch.tensor(values, dtype=torch.float64)


def test_subset_keeps_the_most_frequent_and_disable_top_drops_them():
    frequencies = share(0.1, 0.4, 0.1, 0.3, 0.1)

    def allowed(*interventions):
        kept = apply_all(interventions, DEFAULTS, frequencies).allowed
        return None if kept is None else kept.nonzero().flatten().tolist()

    assert allowed(Subset(0.4)) == [1, 3]
    assert allowed(Subset(0.6)) == [0, 1, 3]  # ties by lower id
    assert allowed(Subset(0.01)) == [1]  # at least one
    assert allowed(Subset(0.99)) == [0, 1, 2, 3, 4]
    assert allowed(Subset(1.0)) is None  # all codes, as without it
    assert allowed(DisableTop(0.2)) == [0, 2, 3, 4]
    assert allowed(DisableTop(0.01)) == [0, 2, 3, 4]  # never nothing: a small codebook would not notice
    assert allowed(Subset(0.6), DisableTop(0.2)) == allowed(DisableTop(0.2), Subset(0.6)) == [0, 3]


@pytest.mark.parametrize("chain", [[DisableTop(1.0)], [Subset(0.4), DisableTop(0.4)], [DisableTop(0.4), Subset(0.2)]])
def test_interventions_that_leave_nothing_are_refused(chain):
    with pytest.raises(DivlensError, match="leaves no code to draw"):
        apply_all(chain, DEFAULTS, share(0.1, 0.4, 0.1, 0.3, 0.1))


WRONG = [
    lambda: Subset(0.0),
    lambda: Subset(1.2),
    lambda: Subset(0.5, by="colour"),  # type: ignore[arg-type]
    lambda: DisableTop(-0.1),
    lambda: DisableTop(0.1, by="colour"),  # type: ignore[arg-type]
    lambda: Argmax(share=1.5),
    lambda: Argmax(share=math.nan),
    lambda: DisableTop(1.1),
    lambda: DisableTop(10**5000),  # more digits than Python writes
    lambda: Argmax(scope="some"),  # type: ignore[arg-type]
    lambda: Paraphrase(n=0),
    lambda: Paraphrase(lengths="longest"),  # type: ignore[arg-type]
    lambda: Detailed(0),
    lambda: Detailed(n=0),
    lambda: Detailed(seed=-1),
    lambda: Detailed(words="any"),  # type: ignore[arg-type]
    lambda: Temperature(0.0),
    lambda: Temperature(math.inf),
    lambda: Temperature(1e-50),  # float32 holds neither: 0 / 0 and infinity / infinity are NaN
    lambda: Temperature(1e39),
    lambda: TopK(0),
    lambda: TopK(-(10**5000)),
    lambda: TopP(0.0),
    lambda: Guidance(-1.0),
    lambda: Guidance(math.nan),
    lambda: Guidance(1.1e6),
    lambda: Guidance(1e300),
    lambda: Freeze("wording"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", WRONG)
def test_values_out_of_range_are_refused_and_named(make):
    with pytest.raises(DivlensError, match="expects") as caught:
        make()
    assert "\n" not in str(caught.value)


EXTREME = [
    Subset(1e-300),
    DisableTop(1e-300),
    Temperature(1.2e-38),
    Temperature(3.4e38),
    TopK(10**30),
    TopP(1e-300),
    TopP(1 - 1e-12),
    Guidance(0),
    Guidance(1e-300),
    Guidance(1e6),
    Paraphrase(n=10**30),
    Temperature(Fraction(1, 2)),  # type: ignore[arg-type]
    TopP(Fraction(1, 2)),  # type: ignore[arg-type]
    Guidance(Fraction(3, 2)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("intervention", EXTREME, ids=repr)
def test_every_value_in_range_draws(intervention):
    trace = sample(
        ToyModel("ar", Raster(3)), ["a cat"], n=4, interventions=[Subset(0.7), intervention], trace=True
    ).trace
    assert trace is not None and all(step.log_probability.isfinite().all() for step in trace.steps)


def test_at_the_limit_of_its_range_a_value_is_the_draw_of_the_best_or_any():
    model, asked = ToyModel("ar", Raster(3)), ["a cat", "red heart"]
    best = sample(model, asked, n=20, interventions=[Argmax()]).tokens
    for cold in (Temperature(1.2e-38), TopP(1e-300)):
        assert torch.equal(sample(model, asked, n=20, interventions=[cold]).tokens, best)
    assert not torch.equal(sample(model, asked, n=20).tokens, best)  # the control
    hot = sample(model, asked, n=20, interventions=[Temperature(3.4e38)], trace=True).trace
    assert hot is not None
    chance = hot.steps[0].log_probability[:, 0].exp()
    assert torch.allclose(chance, torch.full_like(chance, 1 / 3))


def test_a_dose_of_no_effect_changes_nothing_and_asks_for_no_calibration():
    def asked():
        raise AssertionError("no calibration run is needed")

    for nothing in (DisableTop(0), DisableTop(0, by="random"), Subset(1), Subset(1, by="mass"), Argmax(share=0)):
        assert apply_all([nothing], DEFAULTS, asked) == DEFAULTS
    for something in (DisableTop(0.1), Subset(0.9)):  # the control
        with pytest.raises(AssertionError):
            apply_all([something], DEFAULTS, asked)
    assert apply_all([Argmax(share=0.1)], DEFAULTS, asked) != DEFAULTS


# --- what a fraction of the codebook is -----------------------------------------------------------------------------


def fewest_by_mass(shares: list[float], fraction: float) -> set[int]:
    """By trying: the most used codes, one more at a time, until they reach the fraction."""
    kept: list[int] = []
    for code in sorted(range(len(shares)), key=lambda code: (-shares[code], code)):
        kept.append(code)
        if math.fsum(shares[one] for one in kept) >= fraction - 1e-9:
            break
    return set(kept)


counts = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


@fixed
@given(counts=counts, fraction=st.floats(0.001, 1.0))
def test_a_fraction_by_mass_is_that_of_a_plain_count(counts, fraction):
    shares = [count / sum(counts) for count in counts]
    found = fraction_of_codes(torch.tensor(shares, dtype=torch.float64), fraction, "mass")
    assert set(found.nonzero().flatten().tolist()) == fewest_by_mass(shares, fraction)


@fixed
@given(counts=counts, two=st.tuples(st.floats(0.001, 1.0), st.floats(0.001, 1.0)), by=st.sampled_from(WAYS))
def test_a_smaller_fraction_is_a_part_of_a_larger_one(counts, two, by):
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    order = torch.arange(len(shares)).roll(1)
    small, large = (fraction_of_codes(shares, fraction, by, order) for fraction in sorted(two))
    assert small.any() and bool((small <= large).all())


def test_random_codes_know_nothing_of_frequencies_and_never_change():
    rising = torch.arange(1, 11, dtype=torch.float64) / 55
    found = fraction_of_codes(rising, 0.3, "random")
    assert found.nonzero().flatten().tolist() == [2, 4, 8]  # as recorded: samples of a seed depend on it
    assert torch.equal(found, fraction_of_codes(rising.flip(0), 0.3, "random"))
    assert not torch.equal(fraction_of_codes(rising, 0.3, "frequency"), found)  # the control
    # A random half of many codes has about half of the mass: its error is that of 500 draws without replacement from
    # shares that rise evenly, 0.9%; 4 of these are a false alarm in 16,000.
    many = torch.arange(1, 1001, dtype=torch.float64) / 500500
    assert abs(float(many[fraction_of_codes(many, 0.5, "random")].sum()) - 0.5) < 0.036
    assert float(many[fraction_of_codes(many, 0.5, "frequency")].sum()) > 0.74


# --- Argmax at some of the steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_argmax_at_a_share_of_the_steps_draws_the_others_as_ever(family):
    model, asked = toy(family), ["a cat"]
    steps = model.rule.steps

    def trace_of(*interventions):
        found = sample(model, asked, n=40, interventions=interventions, trace=True).trace
        assert found is not None
        return found.steps

    for share in (0.01, 0.5):
        greedy, until = trace_of(Argmax(share=share)), max(1, round(share * steps))
        assert 0 < until < steps
        full, free = trace_of(Argmax()), trace_of()
        assert all(torch.equal(greedy[step].state, full[step].state) for step in range(until))
        assert all(not greedy[step].entropy.any() for step in range(until))
        assert any(greedy[step].entropy.any() for step in range(until, steps))
        assert not torch.equal(greedy[-1].state, full[-1].state) and not torch.equal(greedy[-1].state, free[-1].state)


@pytest.mark.parametrize("family", FAMILIES)
def test_argmax_at_all_or_none_of_the_steps_is_argmax_and_nothing(family):
    def tokens(*interventions):
        return sample(toy(family), PROMPTS, n=12, interventions=interventions).tokens

    assert torch.equal(tokens(Argmax(share=1)), tokens(Argmax()))
    assert torch.equal(tokens(Argmax(share=0)), tokens())
    assert torch.equal(tokens(Argmax(share=0.5), Argmax()), tokens(Argmax()))
    assert not torch.equal(tokens(Argmax(share=0.5)), tokens(Argmax()))  # the control
    assert not torch.equal(tokens(Argmax()), tokens())


def test_texts_of_what_is_as_usual_are_those_of_stored_runs():
    """A run holds what was done as text; under another text of the same it could not go on."""
    assert [repr(one) for one in (Subset(), DisableTop(), Argmax())] == [
        "Subset(fraction=0.5, by='frequency')",
        "DisableTop(fraction=0.05)",
        "Argmax(scope='tokens')",
    ]
    assert repr(Argmax(share=0.5)) == "Argmax(scope='tokens', share=0.5)"
    assert repr(DisableTop(by="mass")) == "DisableTop(fraction=0.05, by='mass')"


# --- the filter -----------------------------------------------------------------------------------------------------

eighths = st.integers(-160, 160).map(lambda number: number / 8)  # apart, so that rounding ties none
logit_lists = st.lists(eighths, min_size=2, max_size=12, unique=True)


def filtered(logits: list[float], **changes) -> np.ndarray:
    settings_ = Settings(Raster(1), 1.0, **changes)
    return filter_logits(torch.tensor([[logits]]), settings_)[0, 0].double().exp().numpy()


@fixed
@given(logits=logit_lists, k=st.integers(1, 12), t=st.floats(0.1, 10))
def test_top_k_and_temperature_against_a_plain_rewrite(logits, k, t):
    """Float32 softmax against float64: to 2e-5, for logits up to 200 after the division."""
    kept = sorted(logits, reverse=True)[:k]
    weight = np.array([math.exp((x - max(logits)) / t) if x in kept else 0.0 for x in logits])
    np.testing.assert_allclose(filtered(logits, top_k=k, temperature=t), weight / weight.sum(), atol=2e-5)


@fixed
@given(logits=logit_lists, p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_that_reach_p(logits, p):
    chance = np.exp(np.array(logits) - max(logits))
    chance /= chance.sum()
    order = np.argsort(-chance)
    reached = chance[order].cumsum()
    assume(np.abs(reached - p).min() > 1e-5)  # at the boundary float32 may go either way
    kept = order[: int((reached < p).sum()) + 1]
    expected = np.zeros_like(chance)
    expected[kept] = chance[kept] / chance[kept].sum()
    np.testing.assert_allclose(filtered(logits, top_p=p), expected, atol=1e-5)


@fixed
@given(logits=logit_lists, banned=st.integers(0, 11), k=st.integers(1, 5), p=st.floats(0.05, 1.0))
def test_filters_together_leave_a_distribution_without_the_banned_code(logits, banned, k, p):
    assume(banned < len(logits))
    allowed = torch.ones(len(logits), dtype=torch.bool)
    allowed[banned] = False
    chance = filtered(logits, allowed=allowed, top_k=k, top_p=p, temperature=0.7)
    assert chance[banned] == 0
    assert abs(chance.sum() - 1) < 1e-5
    assert 1 <= (chance > 0).sum() <= k


def test_a_temperature_near_zero_is_the_argmax_not_a_nan():
    np.testing.assert_array_equal(filtered([5.0, 7.0, -3.0], temperature=1e-38), [0, 1, 0])
    banned = torch.tensor([True, False, True])
    np.testing.assert_array_equal(filtered([5.0, 7.0, -3.0], temperature=1e-38, allowed=banned), [1, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_filter_answers_in_float32(dtype):
    assert filter_logits(torch.zeros(1, 2, 3, dtype=dtype), DEFAULTS).dtype == torch.float32
