"""The path rules against the reference schedulers of diffusers, and against Bayes on small transition matrices."""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AmusedScheduler, VQDiffusionScheduler
from hypothesis import given
from hypothesis import strategies as st
from toy_oracle import chi_square_p, posterior

from divlens.interventions import Settings
from divlens.models.toy import diffusion_rule
from divlens.noise import CounterNoise, TorchNoise
from divlens.paths import ConfidenceUnmasking, Draws, MaskReplaceDiffusion, Raster
from divlens.sampler import run_loop
from divlens.types import DivlensError, View

ALARM = 1e-6  # chi-square tests reject at this level: their false-alarm rate over random seeds


# --- VQ-Diffusion ---------------------------------------------------------------------------------------------------


def two_stage(rule: MaskReplaceDiffusion, time: int, p: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """P(x_{t-1} = y | x_t) with x_0 ~ p and then the path event: (positions, codes + 1), exact."""
    codes, positions = p.shape[-1], len(now)
    origin = torch.arange(codes).expand(positions, codes)
    current = now[:, None].expand(positions, codes)
    stay, reveal, replaced, others = rule.events(time, current == codes, current == origin)
    y = torch.arange(codes + 1)
    is_now, is_origin = y == current[..., None], y == origin[..., None]
    is_other = ~is_now & ~is_origin & (y < codes)
    chance = (
        stay[..., None] * is_now
        + reveal[..., None] * (is_origin & ~is_now)
        + (replaced / others)[..., None] * (is_other)
    )
    return torch.einsum("nx,nxy->ny", p, chance)


@cache
def reference_scheduler(codes: int) -> VQDiffusionScheduler:
    return VQDiffusionScheduler(num_vec_classes=codes + 1)


def reference_posterior(codes: int, t: int, p: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    scheduler = reference_scheduler(codes)
    log_p = p.log().float().T[None]
    return scheduler.q_posterior(log_p, now[None], t)[0].T.exp().double()


def random_case(codes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random p(x_0) per position, some of it sharp; x_t is masked at a third of the positions."""
    random = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(9, codes, generator=random, dtype=torch.float64) * torch.tensor([0.5, 2.0, 6.0]).repeat(3)[:, None]
    )
    now = torch.randint(codes, (9,), generator=random)
    now[::3] = codes
    now[1] = int(logits[1].argmax())
    return logits.softmax(-1), now


@pytest.mark.parametrize("codes", [2, 3, 24])
def test_the_two_draws_sum_to_the_posterior_of_the_reference_at_every_timestep(codes):
    """To 1e-5: the reference adds about five float32 logarithms of size up to 30, each rounded to 2e-6 at worst.

    The sum is 1 to 1e-10: a difference of float64 numbers near 1 is divided by the spread, 1e-6 over all codes.
    """
    rule = MaskReplaceDiffusion.vq_diffusion(codes)
    for t in range(100):
        p, now = random_case(codes, seed=t)
        ours, theirs = two_stage(rule, t + 1, p, now), reference_posterior(codes, t, p, now)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.sum(-1), torch.ones(9, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_schedule_that_is_off_by_one_would_be_seen(shift):
    rule = MaskReplaceDiffusion.vq_diffusion(16)
    for t in range(1, 99, 7):
        p, now = random_case(16, seed=t)
        difference = (two_stage(rule, t + 1 + shift, p, now) - reference_posterior(16, t, p, now)).abs().max()
        assert difference > 1e-5


def test_the_last_step_is_the_draw_of_x0_as_in_the_reference():
    """At t = 0 the reference draws from the model's output itself; so does the rule, with no path draw."""
    rule = MaskReplaceDiffusion.vq_diffusion(5)
    now, origin = torch.tensor([[0, 1, 5, 5]]), torch.tensor([[3, 1, 2, 0]])
    view = rule.view(now, 99)
    assert view.time == 0
    result = rule.advance(view, Draws(origin, torch.zeros(1, 4)), 5, CounterNoise(0, (1,), (0,)))
    assert torch.equal(result.tokens, origin) and result.committed.all()
    assert result.path_log_probability.tolist() == [0.0]


def test_the_published_schedule_is_that_of_the_reference():
    scheduler = VQDiffusionScheduler(num_vec_classes=11)
    rule = MaskReplaceDiffusion.vq_diffusion(10)
    torch.testing.assert_close(torch.tensor(rule.kept[1:]).log(), scheduler.log_cumprod_at[:-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.tensor(rule.masked[1:]).log(), scheduler.log_cumprod_ct[:-1], atol=1e-6, rtol=1e-6)


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
    result = rule.advance(view, draws, 5, CounterNoise.of(0, ["x"] * rows, range(rows)))
    counts = np.bincount(result.tokens.flatten().numpy(), minlength=6).astype(float)
    assert chi_square_p(counts, expected) > ALARM
    assert torch.equal(result.committed, result.tokens != now)
    logs = torch.from_numpy(expected).log()[result.tokens].sum(1)
    torch.testing.assert_close(result.path_log_probability, logs, atol=1e-9, rtol=1e-12)
    wrong = np.roll(expected, 1)
    assert chi_square_p(counts, wrong) < ALARM


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
    result = rule.advance(rule.view(state, 4), draws, 7, CounterNoise.of(0, ["x"] * 300, range(300)))
    assert torch.equal(result.tokens[:, :3], state[:, :3])
    assert set(result.tokens[:, 3:].flatten().tolist()) == {5, 7}
    assert result.path_log_probability.isfinite().all()


def test_a_silenced_diffusion_has_no_path_entropy_and_ignores_its_noise():
    rule = diffusion_rule().silenced()
    state = torch.full((2, 3), 3)
    draws = Draws(torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.zeros(2, 3))
    a = rule.advance(rule.view(state, 1), draws, 3, CounterNoise(0, (1, 2), (0, 1)))
    b = rule.advance(rule.view(state, 1), draws, 3, CounterNoise(9, (3, 4), (5, 6)))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.tokens[0], a.tokens[1])
    assert (a.path_log_probability == 0).all()
    loud = diffusion_rule()
    assert (loud.advance(loud.view(state, 1), draws, 3, CounterNoise(0, (1, 2), (0, 1))).path_log_probability < 0).all()


# --- aMUSEd ---------------------------------------------------------------------------------------------------------

CODES, SIDE, BATCH = 48, 8, 3


class Chaotic:
    """Random logits that depend on the whole state, so that two trajectories that part never meet again by chance."""

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.base = torch.randn(SIDE * SIDE, CODES, generator=random) * 2
        self.pull = torch.randn(SIDE * SIDE, CODES + 1, CODES, generator=random) / 4
        self.visited: list[torch.Tensor] = []

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.base + self.pull[torch.arange(SIDE * SIDE), tokens].sum(1, keepdim=True)

    def __call__(self, view: View) -> tuple[torch.Tensor, None]:
        self.visited.append(view.tokens)
        return self.logits(view.tokens), None


def ours(model: Chaotic, rule: ConfidenceUnmasking, seed: int) -> list[torch.Tensor]:
    source = TorchNoise(torch.Generator().manual_seed(seed), BATCH)
    start = torch.full((BATCH, SIDE * SIDE), CODES)
    last = run_loop(model, Settings(rule, 1.0), source, start, CODES)
    return [*model.visited[1:], last]


def theirs(model: Chaotic, steps: int, schedule: str, temperature: object, seed: int) -> list[torch.Tensor]:
    scheduler = AmusedScheduler(mask_token_id=CODES, masking_schedule=schedule)
    scheduler.set_timesteps(steps, temperature)
    generator = torch.Generator().manual_seed(seed)
    state, states = torch.full((BATCH, SIDE, SIDE), CODES), []
    for timestep in scheduler.timesteps:
        logits = model.logits(state.flatten(1)).permute(0, 2, 1).reshape(BATCH, CODES, SIDE, SIDE)
        state = scheduler.step(logits, timestep, state, generator=generator).prev_sample
        states.append(state.flatten(1))
    return states


def agree(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# The reference reads a single number t as (t, 0.01).
TEMPERATURES = {"2 to 0": ((2, 0), (2.0, 0.0)), "4.5 to 0": ((4.5, 0), (4.5, 0.0)), "0": (0, (0.0, 0.01))}


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("reference", "own"), TEMPERATURES.values(), ids=TEMPERATURES.keys())
def test_confidence_unmasking_is_amused_token_for_token(schedule, reference, own):
    """Whole trajectories, every state. Sums differ in the last place, so scores closer than 1e-6 could be ranked
    otherwise: about 1 trajectory in 1,000 over random seeds; none here."""
    for seed in range(2):
        for steps in (1, 5, 12):
            rule = ConfidenceUnmasking(steps, own, schedule)
            assert agree(
                ours(Chaotic(seed), rule, 100 + seed), theirs(Chaotic(seed), steps, schedule, reference, 100 + seed)
            )


CHANGES = {
    "schedule": (ConfidenceUnmasking(12, (2.0, 0.0), "linear"), 100),
    "temperature": (ConfidenceUnmasking(12, (2.2, 0.0), "cosine"), 100),
    "steps": (ConfidenceUnmasking(11, (2.0, 0.0), "cosine"), 100),
    "noise": (ConfidenceUnmasking(12, (2.0, 0.0), "cosine"), 101),
}


@pytest.mark.parametrize(("rule", "seed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_rule_other_than_the_reference_would_be_seen(rule, seed):
    reference = theirs(Chaotic(0), 12, "cosine", (2, 0), 100)
    assert agree(ours(Chaotic(0), ConfidenceUnmasking(12, (2.0, 0.0)), 100), reference)
    assert not torch.equal(ours(Chaotic(0), rule, seed)[-1], reference[-1])


@pytest.mark.parametrize("positions", [3, 64, 256, 1024])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_count_of_masked_positions_is_that_of_the_reference(positions, schedule):
    for steps in range(2, 65):
        rule = ConfidenceUnmasking(steps, (2.0, 0.0), schedule)
        unknown = torch.tensor([[positions], [max(positions // 2, 1)]])
        for step in range(steps - 1):
            ratio = (torch.tensor([[step]]) + 1) / steps  # the reference's own lines, its own shapes
            share = torch.cos(ratio * math.pi / 2) if schedule == "cosine" else 1 - ratio
            wanted = torch.max(torch.tensor([1]), torch.min(unknown - 1, (positions * share).floor()))
            assert torch.equal(rule.still_masked(step, unknown, positions), wanted.long())


def test_equal_scores_do_not_change_the_count():
    rule = ConfidenceUnmasking(4, (0.0, 0.0))
    state = torch.full((1, 16), 9)
    draws = Draws(torch.zeros(1, 16, dtype=torch.long), torch.zeros(1, 16))
    result = rule.advance(rule.view(state, 0), draws, 9, CounterNoise(0, (1,), (0,)))
    assert int((result.tokens == 9).sum()) == math.floor(16 * math.cos(math.pi / 8))
    assert result.path_log_probability.tolist() == [0.0]


# --- what rules share -----------------------------------------------------------------------------------------------


def test_raster_fills_one_position_a_step_and_has_no_path():
    rule = Raster(4)
    state = torch.full((2, 4), 9)
    for step in range(4):
        view = rule.view(state, step)
        assert (view.first, view.count) == (step, 1)
        draws = Draws(torch.tensor([[step], [step + 1]]), torch.zeros(2, 1))
        result = rule.advance(view, draws, 9, SimpleNamespace(draw=None, path_uniform=None, path_gumbel=None))
        assert result.committed.sum() == 2 and (result.path_log_probability == 0).all()
        state = result.tokens
    assert state.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert rule.silenced() == rule


def test_rules_refuse_what_they_cannot_run():
    with pytest.raises(DivlensError, match="at least 1 step, got 0"):
        ConfidenceUnmasking(0)
    with pytest.raises(DivlensError, match="got 2 and 3"):
        MaskReplaceDiffusion((1.0, 0.5), (0.0, 0.1, 0.2), 4)
