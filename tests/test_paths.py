"""The path rules against Bayes on small transition matrices, and at their edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.errors import DivlensError
from divlens.noise import CounterNoise
from divlens.paths import ConfidenceUnmasking, Draws, MaskReplaceDiffusion, Raster
from oracles.toy_grids import chi_square_p, posterior

ALARM = 1e-6  # chi-square tests reject at this level: their false-alarm rate over random seeds
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine


def test_the_last_step_is_the_draw_of_x0_as_in_the_reference():
    """At t = 0 the reference draws from the model's output itself; so does the rule, with no path draw."""
    rule = MaskReplaceDiffusion.vq_diffusion(5)
    now, origin = torch.tensor([[0, 1, 5, 5]]), torch.tensor([[3, 1, 2, 0]])
    view = rule.view(now, 99)
    assert view.time == 0
    result = rule.advance(view, Draws(origin, torch.zeros(1, 4)), 5, CounterNoise((1,), (0,), (0,)))
    assert torch.equal(result.tokens, origin) and result.committed.all()
    assert result.path_log_probability.tolist() == [0.0]


CASES = {"masked": (5, 2), "agree": (2, 2), "differ up": (1, 3), "differ down": (4, 0)}


@pytest.mark.parametrize(("now", "origin"), CASES.values(), ids=CASES.keys())
def test_advance_follows_its_chances(now, origin):
    """100,000 draws of one step with 5 codes, against Bayes; and the log-probability is that of the event."""
    rule = MaskReplaceDiffusion(kept=(1.0, 0.6, 0.3), masked=(0.0, 0.2, 0.5), codes=5)
    expected = posterior(rule, 2, codes=5)[origin, now]
    rows, positions = 200, 500
    state = torch.full((rows, positions), now)
    view = rule.view(state, 0)
    draws = Draws(torch.full_like(state, origin), torch.zeros(rows, positions))
    result = rule.advance(view, draws, 5, CounterNoise.of(0, ["x"] * rows, range(rows), range(rows)))
    counts = np.bincount(result.tokens.flatten().numpy(), minlength=6).astype(float)
    assert chi_square_p(counts, expected) > ALARM
    assert torch.equal(result.committed, result.tokens != now)
    logs = torch.from_numpy(expected).log()[result.tokens].sum(1)
    torch.testing.assert_close(result.path_log_probability, logs, atol=1e-9, rtol=1e-12)
    wrong = np.roll(expected, 1)
    assert chi_square_p(counts, wrong) < ALARM


@fixed
@given(
    codes=st.integers(2, 6),
    uniform=st.floats(2.0**-33, 1 - 2.0**-33),
    data=st.data(),
)
def test_another_code_is_never_the_present_one_nor_the_drawn_one(codes, uniform, data):
    now = data.draw(st.integers(0, codes), label="now")
    origin = data.draw(st.integers(0, codes - 1), label="origin")
    excluded = {now, origin} - {codes}
    if len(excluded) == codes:
        return  # two codes that differ: there is no other, and its chance is 0
    rule = MaskReplaceDiffusion((1.0, 0.5), (0.0, 0.2), codes)
    others = torch.tensor(float(codes - len(excluded)), dtype=torch.float64)
    got = rule.other_code(torch.tensor(uniform, dtype=torch.float64), torch.tensor(now), torch.tensor(origin), others)
    assert 0 <= int(got) < codes and int(got) not in excluded


@pytest.mark.parametrize(("now", "origin"), [(5, 2), (2, 2), (1, 3), (3, 1), (0, 4), (4, 0)])
def test_other_codes_are_drawn_evenly(now, origin):
    """A fine even grid of uniforms hits each remaining code equally often, to one count."""
    rule = MaskReplaceDiffusion((1.0, 0.5), (0.0, 0.2), 5)
    left = [code for code in range(5) if code not in (now, origin)]
    uniform = (torch.arange(60_000, dtype=torch.float64) + 0.5) / 60_000
    got = rule.other_code(uniform, torch.tensor(now), torch.tensor(origin), torch.tensor(float(len(left))).double())
    assert {code: int((got == code).sum()) for code in left} == dict.fromkeys(left, 60_000 // len(left))


def test_without_replacement_an_unmasked_token_stays_whatever_the_model_draws():
    """An absorbing chain: x_0 other than x_t is impossible there, but a model may propose it."""
    times = [i / 10 for i in range(11)]
    rule = MaskReplaceDiffusion(tuple(1 - t for t in times), tuple(times), codes=7)
    state = torch.tensor([[0, 1, 2, 7, 7]]).repeat(300, 1)
    draws = Draws(torch.full_like(state, 5), torch.zeros(state.shape))
    result = rule.advance(rule.view(state, 4), draws, 7, CounterNoise.of(0, ["x"] * 300, range(300), range(300)))
    assert torch.equal(result.tokens[:, :3], state[:, :3])
    assert set(result.tokens[:, 3:].flatten().tolist()) == {5, 7}
    assert result.path_log_probability.isfinite().all()


def test_equal_scores_do_not_change_the_count():
    rule = ConfidenceUnmasking(4, (0.0, 0.0))
    state = torch.full((1, 16), 9)
    draws = Draws(torch.zeros(1, 16, dtype=torch.long), torch.zeros(1, 16))
    result = rule.advance(rule.view(state, 0), draws, 9, CounterNoise((1,), (0,), (0,)))
    assert int((result.tokens == 9).sum()) == math.floor(16 * math.cos(math.pi / 8))
    assert result.path_log_probability.tolist() == [0.0]


def test_raster_fills_one_position_a_step_and_has_no_path():
    rule = Raster(4)
    state = torch.full((2, 4), 9)
    for step in range(4):
        view = rule.view(state, step)
        assert (view.first, view.count) == (step, 1)
        draws = Draws(torch.tensor([[step], [step + 1]]), torch.zeros(2, 1))
        result = rule.advance(view, draws, 9, CounterNoise((1, 2), (0, 1), (0, 1)))
        assert result.committed.sum() == 2 and (result.path_log_probability == 0).all()
        state = result.tokens
    assert state.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert rule.silenced() == rule


def test_rules_refuse_what_they_cannot_run():
    with pytest.raises(DivlensError, match="whole number of at least 1, got 0"):
        ConfidenceUnmasking(0)
    with pytest.raises(DivlensError, match="got 2 and 3"):
        MaskReplaceDiffusion((1.0, 0.5), (0.0, 0.1, 0.2), 4)
    with pytest.raises(DivlensError, match=r"codes=...\) expects a whole number"):
        MaskReplaceDiffusion((1.0, 0.5), (0.0, 0.1), 0)
    for temperature in ((-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), 2.0, (1.0, 1.0, 1.0)):
        with pytest.raises(DivlensError, match=r"two numbers of at least 0, \(first, last\)"):
            ConfidenceUnmasking(3, temperature)  # type: ignore[arg-type]
    assert ConfidenceUnmasking(3, (0.0, 0.0)).steps == 3


CHANCES = {
    "kept does not begin with 1": ((0.9, 0.5, 0.0), (0.0, 0.5, 1.0)),
    "masked does not begin with 0": ((1.0, 0.5, 0.0), (0.1, 0.5, 1.0)),
    "kept rises": ((1.0, 0.3, 0.6), (0.0, 0.1, 0.2)),
    "masked falls": ((1.0, 0.5, 0.0), (0.0, 0.5, 0.4)),
    "more than 1": ((1.0, 0.9, 0.0), (0.0, 0.3, 1.0)),
    "nothing is kept too early": ((1.0, 0.0, 0.0), (0.0, 0.5, 1.0)),
    "all is masked too early": ((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)),
    "no number": ((1.0, math.nan, 0.0), (0.0, 0.5, 1.0)),
    "below 0": ((1.0, 0.5, -0.1), (0.0, 0.5, 1.0)),
    "a step that keeps and masks more than all": ((1.0, 0.5, 0.5, 0.0), (0.0, 0.0, 0.5, 1.0)),
    "never masked": ((1.0, 0.5, 0.2, 0.1), (0.0, 0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize(("kept", "masked"), CHANCES.values(), ids=CHANCES)
def test_chances_that_are_no_forward_process_are_refused(kept, masked):
    with pytest.raises(DivlensError, match="expects the chances of a chain"):
        MaskReplaceDiffusion(kept, masked, 4)
    for kind in (float, np.float32):
        kept, masked = (tuple(kind(chance) for chance in chances) for chances in ((1, 0.5, 0), (0, 0.5, 1)))
        assert MaskReplaceDiffusion(kept, masked, 4).steps == 2  # type: ignore[arg-type]
