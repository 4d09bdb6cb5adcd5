"""Samples weighed by the law of another wording or path: unbiased weights, and the sandwich that they give."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from divlens.information.laws import law_of
from divlens.information.replay import (
    ALLOWED,
    importance_log_weights,
    sandwich,
)
from divlens.interventions import Argmax
from divlens.loop import Moment
from divlens.noise import CounterNoise
from divlens.paths import Draws, Raster
from divlens.planning import Reading, plan
from divlens.sampler import sample
from divlens.types import Prompt
from oracles.small_models import Small
from oracles.toy_bits import PROMPTS
from oracles.toy_grids import toy
from oracles.transcripts import Case, truth

FAMILIES = ("ar", "mim", "diffusion")
SIGMAS = 5  # false-alarm rate 6e-7 each


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_weights_are_unbiased_for_the_probability_of_a_grid(family):
    model, text = toy(family), PROMPTS[0]
    exact = truth(Case(model, text)).grids
    repeats = 400
    run = plan(model, [Prompt(text)], 1, 1, batch_size=repeats)
    for grid in sorted(exact, key=lambda key: -exact[key])[:3]:
        keys = [str(i) for i in range(repeats)]
        log_w = importance_log_weights(run, [text] * repeats, torch.tensor([grid] * repeats), keys)
        weights = log_w.exp()
        error = float(weights.std()) / math.sqrt(repeats)
        assert abs(float(weights.mean()) - exact[grid]) < SIGMAS * error + 1e-6 * exact[grid]
        if family == "ar":
            assert float(weights.std()) < 1e-6


def test_the_sandwich_is_exact_when_every_weight_is_the_probability():
    log_p = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    for each in sandwich(log_p[:, None].expand(2, 5), log_p, torch.zeros_like(log_p)):
        torch.testing.assert_close(each.below, log_p)
        torch.testing.assert_close(each.above, -((1 - ALLOWED) * (-log_p).exp() + ALLOWED).log())


@pytest.mark.parametrize("q", [(0.5, 0.3, 0.2), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0)])
def test_the_sandwich_holds_the_probability_whatever_the_proposal_misses(q):
    """Expectations by enumeration: a grid that has three paths, the own one drawn from their posterior."""
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ((0.2, 0.1, 0.3), q))
    exact, expected = math.log(p.sum()), torch.zeros(3, 2, dtype=torch.float64)
    for own, *others in itertools.product(range(3), repeat=5):
        chance = float(p[own] / p.sum() * q[others].prod())
        if chance == 0:
            continue
        log_w = (p.log() - q.log())[others][None]
        for row, each in enumerate(sandwich(log_w, p.log()[own : own + 1], q.log()[own : own + 1])):
            assert math.isfinite(each.below) and math.isfinite(each.above)
            expected[row] += chance * torch.cat([each.below, each.above])
    below, above = expected.T
    assert (below < exact).all() and (above > exact).all()
    assert (below.diff() > 0).all() or float(q[2]) != 0.2  # more paths are better where all are reached
    assert float(above[0]) > 2 or float(q[2]) != 0.0  # all that is left is that no grid has more than 1


def test_a_token_that_rounding_put_outside_of_its_law_leaves_the_prompt_known():
    """Under Argmax a near tie may fall the other way in another batch; one improbable token is not what decides."""
    model: Any = Small(Raster(6), codes=5, positions=6, stateless=True, guidance=1.0)
    turned = sample(model, PROMPTS[:1], n=1, interventions=[Argmax()]).tokens.view(1, 6)
    turned[0, 2] = (turned[0, 2] + 1) % 5
    run = plan(model, [Prompt(text) for text in PROMPTS[:2]], 1, 0, [Argmax()])
    own, other = (float(importance_log_weights(run, [text], turned, ["0"])) for text in PROMPTS[:2])
    assert math.isfinite(own) and own > other + 30


def silent_moment(time: int, grid: torch.Tensor, state: torch.Tensor) -> Moment:
    """A step of the toy's silent rule from `state` with the draws `grid`, whose law is random but fixed."""
    model = toy("diffusion")
    rule = model.rule.silenced()
    settings = Reading(model).settings([Argmax(scope="all")])
    random = torch.Generator().manual_seed(time)
    law = torch.randn(1, 3, 3, generator=random, dtype=torch.float64).log_softmax(-1).expand(len(grid), 3, 3)
    view = rule.view(state.expand_as(grid), rule.steps - 1 - time)
    draws = Draws(grid, law.gather(-1, grid[..., None])[..., 0])
    noise = CounterNoise.of(0, [], [], [])
    result = rule.advance(view, draws, model.mask, noise)
    return Moment(view, law, rule.drawn(view, model.mask), draws, result, settings, model.mask, noise)


@pytest.mark.parametrize("time", [0, 1, 2, 3])
def test_a_silent_diffusion_is_weighed_by_its_own_law(time):
    """The chance of a state is that of all draws that lead to it; given the draws it is 1 or 0."""
    law = law_of(toy("diffusion").rule.silenced())
    grid = torch.tensor(list(itertools.product(range(3), repeat=3)))
    merged = 0
    for state in itertools.product(range(4), repeat=3):
        moment = silent_moment(time, grid, torch.tensor(state))
        chance = moment.draws.log_probability.sum(1).exp()
        after = moment.result.tokens
        same = (after[:, None] == after[None]).all(-1)
        merged += int(same.sum()) - len(grid)
        torch.testing.assert_close(law.log_probability(moment, None).exp(), (same * chance).sum(1))
        assert (law.proposal_log_probability(moment) == 0).all()
        other = silent_moment(time, grid.flip(0), torch.tensor(state)).draws
        crossed = law.proposal_log_probability(replace(moment, draws=other))
        assert torch.equal(crossed == 0, (after == after.flip(0)).all(1))
        assert (crossed[crossed != 0] == -math.inf).all()
    assert (merged > 0) == (time > 0)
