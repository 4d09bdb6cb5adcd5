"""Closed forms of one reverse step at sizes that cannot be enumerated: precision, limits, and against simulation."""

import math

import pytest
import torch

from divlens.information.laws.diffusion_steps import (
    known_noise_entropies,
    state_log_probability,
    step_entropies,
)
from divlens.paths import Draws, MaskReplaceDiffusion
from divlens.paths.reverse_step import chances_of

CODES, MASK = 300, 300
TIMES = [step / 6 for step in range(7)]
RULE = MaskReplaceDiffusion(tuple((1 - t) * (1 - 0.1 * t) for t in TIMES), tuple(TIMES), CODES)


def example(seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """log p (4, 9, codes), float64, and a state, a third of which is masked."""
    random = torch.Generator().manual_seed(seed)
    log_p = (torch.randn(4, 9, CODES, generator=random, dtype=torch.float64) * scale).log_softmax(-1)
    state = torch.multinomial(log_p.exp().flatten(0, 1), 1, generator=random).view(4, 9)
    state[:, ::3] = MASK
    return log_p, state


@pytest.mark.parametrize("place", [3, 4], ids=["masked", "unmasked"])
@pytest.mark.parametrize("time", [1, 2, 5])
def test_entropies_are_those_of_the_whole_table(time, place):
    """The distribution of x_{t-1}, code by code, from `state_log_probability`; and it sums to 1."""
    log_p, state = example()
    found = step_entropies(RULE, time, state, MASK, log_p.exp())
    outcomes = torch.arange(CODES + (time > 1))[:, None]
    before, law = state[:1, place : place + 1].expand(len(outcomes), 1), log_p[:1, place : place + 1]
    chances = state_log_probability(RULE, time, before, outcomes, MASK, law.expand(len(outcomes), 1, CODES)).exp()
    assert abs(float(chances.sum()) - 1) < 1e-10
    assert abs(float(torch.special.entr(chances).sum()) - float(found.state[0, place])) < 1e-9
    assert (found.state <= found.path + found.execution + 1e-9).all()


@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_float32_probabilities_cost_no_more_than_their_own_rounding(time, scale):
    """Entropies of order 1 to 10 nats from probabilities that are known to 1e-7 of themselves: to 2e-5."""
    log_p, state = example(scale=scale)
    exact = step_entropies(RULE, time, state, MASK, log_p.exp())
    single = step_entropies(RULE, time, state, MASK, log_p.exp().float())
    for name in ("path", "execution", "state"):
        torch.testing.assert_close(getattr(single, name), getattr(exact, name), atol=2e-5, rtol=0)


def test_a_certain_draw_leaves_only_the_path():
    _, state = example()
    p = torch.zeros(4, 9, CODES, dtype=torch.float64)
    p[..., 7] = 1.0
    found = step_entropies(RULE, 3, state, MASK, p)
    assert float(found.execution.abs().max()) < 1e-12
    torch.testing.assert_close(found.path[:, 0], torch.full((4,), float(found.path[0, 0]), dtype=torch.float64))
    assert (found.path[:, ::3] > 0.1).all()


def test_a_masked_position_has_the_entropy_of_its_three_events():
    _, state = example()
    p = torch.full((4, 9, CODES), 1 / CODES, dtype=torch.float64)
    found, chance = step_entropies(RULE, 3, state, MASK, p), chances_of(RULE, 3)
    stay, reveal = chance.stay[0], chance.reveal[0]
    other = 1 - stay - reveal
    events = -sum(value * math.log(value) for value in (stay, reveal, other)) + other * math.log(CODES)
    torch.testing.assert_close(found.path[:, 0], torch.full((4,), events, dtype=torch.float64))
    torch.testing.assert_close(found.execution[:, 0], torch.full((4,), reveal * math.log(CODES), dtype=torch.float64))


def test_known_noise_lowers_the_entropy_on_average():
    """Conditioning does; over 200 noises the averages are far from touching."""
    log_p, state = example(scale=1.0)
    random = torch.Generator().manual_seed(1)
    frozen = []
    for _ in range(200):
        uniform = torch.rand(4, 9, 2, generator=random, dtype=torch.float64)
        step = known_noise_entropies(RULE, 3, state, log_p.exp(), MASK, uniform)
        frozen.append(step.state)
    mean = torch.stack(frozen).mean(0)
    free = step_entropies(RULE, 3, state, MASK, log_p.exp()).state
    assert (mean < free).all()


def test_a_mask_below_zero_is_no_code_either():
    log_p, state = example(scale=1.0)
    below = torch.where(state == MASK, -1, state)
    uniform = torch.rand(4, 9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = known_noise_entropies(RULE, 3, state, log_p.exp(), MASK, uniform)
    other = known_noise_entropies(RULE, 3, below, log_p.exp(), -1, uniform)
    for name in ("path", "execution", "state"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    place, others = torch.linspace(0, 1, 9, dtype=torch.float64), torch.tensor(CODES - 1)
    origin = torch.full((9,), 7)
    codes = [RULE.other_code(place, torch.full((9,), mask), origin, others) for mask in (MASK, -1, MASK + 50)]
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])
    assert codes[0][0] == 0 and 7 not in codes[0]


def test_the_chance_given_x0_is_the_one_with_which_the_rule_draws():
    """How often each outcome comes, of a position that is masked, is x_0, or is another code; a tolerance of five
    binomial sigmas (false alarm below 1e-6 each)."""

    class Uniform:
        def path_uniform(self, step, positions, device):
            random = torch.Generator().manual_seed(step)
            return torch.rand(20_000, positions, 2, generator=random, dtype=torch.float64)

    outcomes = torch.arange(CODES + 1)[:, None].expand(-1, 3)
    state, origin = (torch.tensor(tokens).expand(20_000, 3) for tokens in ([MASK, 7, 8], [7, 7, 7]))
    given = state[: CODES + 1], outcomes, origin[: CODES + 1], MASK
    for step in range(5):
        view = RULE.view(state, step)
        result = RULE.advance(view, Draws(origin, torch.zeros(20_000, 3)), MASK, Uniform()).tokens  # type: ignore[arg-type]
        chance = RULE.log_probability(view.time + 1, *given).exp()
        often = torch.stack([(result == outcome).double().mean(0) for outcome in range(CODES + 1)])
        torch.testing.assert_close(chance.sum(0), torch.ones(3, dtype=torch.float64))
        assert ((often - chance).abs() <= 5 * (chance * (1 - chance) / 20_000).sqrt() + 5 / 20_000).all()
    impossible = RULE.log_probability(1, state, origin + 1, origin, MASK)
    assert (impossible == -math.inf).all()
