"""The sampler against brute force on the toy: distributions of final grids, and every number of a trace."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from divlens.interventions import Argmax, Freeze, Guidance
from divlens.models.toy import ToyModel
from divlens.sampler import Generation, sample
from divlens.types import View
from oracles.toy_grids import GRIDS, chances, chi_square_p, counts_of, exact, exact_mim, forward, posterior, toy

# Chi-square tests reject at 1e-6: their false-alarm rate over random seeds. Seeds are fixed.
ALARM = 1e-6
FAMILIES = ("ar", "mim", "diffusion")
PROMPT = "red heart"


class Wrapped:
    """A model that passes everything on; subclasses change one thing."""

    def __init__(self, model: ToyModel) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Blind(Wrapped):
    """Decodes to one pixel: thousands of pictures would fill the memory."""

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(tokens), 3, 1, 1)


def sampled_counts(model: ToyModel, n: int, seed: int = 0, interventions=()) -> np.ndarray:
    blind: Any = Blind(model)
    out = sample(blind, [PROMPT], n=n, seed=seed, interventions=interventions, batch_size=3000)
    return counts_of(out.tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_is_a_distribution(family):
    p = exact(toy(family), PROMPT)
    assert p.shape == (27,) and (p > 0).all()
    assert abs(p.sum() - 1) < 1e-12


def test_the_oracles_forward_chain_composes():
    rule = toy("diffusion").rule
    one = forward(0.5, 0.3) @ forward(0.4, 0.2)
    np.testing.assert_allclose(one, forward(0.2, 1 - 0.7 * 0.8), atol=1e-15)
    for time in range(1, rule.steps + 1):
        rows = posterior(rule, time).sum(-1)
        np.testing.assert_allclose(rows[~np.isnan(rows)], 1, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_grids_follow_the_exact_distribution(family, seed):
    model = toy(family, seed)
    counts = sampled_counts(model, 6000, seed)
    assert chi_square_p(counts, exact(model, PROMPT)) > ALARM
    # Power: the same counts reject another prompt, other weights, and another guidance.
    assert chi_square_p(counts, exact(model, "a cat")) < ALARM
    assert chi_square_p(counts, exact(toy(family, seed + 1), PROMPT)) < ALARM
    assert chi_square_p(counts, exact(replace(model, guidance=3.0), PROMPT)) < ALARM


def test_guidance_changes_the_distribution_as_it_should():
    model = toy("mim")
    counts = sampled_counts(model, 6000, interventions=[Guidance(3.0)])
    assert chi_square_p(counts, exact(replace(model, guidance=3.0), PROMPT)) > ALARM
    assert chi_square_p(counts, exact(model, PROMPT)) < ALARM


def test_the_order_of_unmasking_matters_and_would_be_seen():
    model = toy("mim")
    counts = sampled_counts(model, 12_000)
    assert chi_square_p(counts, exact_mim(model, PROMPT)) > ALARM
    assert chi_square_p(counts, exact_mim(model, PROMPT, temperature=(0.2, 0.0))) < ALARM


# --- traces ---------------------------------------------------------------------------------------------------------


class Visited(Wrapped):
    """A model that keeps the states it was shown, step by step."""

    def __init__(self, model: ToyModel) -> None:
        self.model, self.states = model, []

    def predictor(self, conditions: torch.Tensor, guided: bool):
        inner = self.model.predictor(conditions, guided)

        def call(view: View):
            self.states.append(view.tokens.clone())
            return inner(view)

        return call


def traced(family: str, n: int = 40, interventions=()) -> tuple[Generation, list[torch.Tensor], ToyModel]:
    watched: Any = Visited(toy(family))
    out = sample(watched, [PROMPT], n=n, seed=3, interventions=interventions, trace=True)
    return out, watched.states, watched.model


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_entropies_are_those_of_the_draws(family):
    """Against float64 by hand; the loop works in float32, so to 1e-5."""
    out, states, model = traced(family)
    assert out.trace is not None and len(out.trace.steps) == len(states) == model.rule.steps
    for number, (step, before) in enumerate(zip(out.trace.steps, states, strict=True)):
        for row in range(len(before)):
            p = chances(model, PROMPT, tuple(before[row].tolist()))
            for i in range(3):
                drawn = i == number if family == "ar" else (int(before[row, i]) == model.mask or family == "diffusion")
                assert bool(step.drawn[row, i]) == drawn
                token = int(step.tokens[row, i])
                log_p = math.log(p[i, token]) if drawn else 0.0
                entropy = -(p[i] * np.log(p[i])).sum() if drawn else 0.0
                assert abs(float(step.log_probability[row, i]) - log_p) < 1e-5
                assert abs(float(step.entropy[row, i]) - entropy) < 1e-5
                if not drawn:
                    assert token == 0


def test_the_log_probabilities_of_raster_sum_to_that_of_the_grid():
    out, _, model = traced("ar")
    p = dict(zip(GRIDS, exact(model, PROMPT), strict=True))
    assert out.trace is not None
    total = sum(step.log_probability.sum(1) for step in out.trace.steps)
    expected = torch.tensor([math.log(p[tuple(grid)]) for grid in out.tokens.view(-1, 3).tolist()])
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=0)
    assert all((step.path_log_probability == 0).all() for step in out.trace.steps)


def test_the_path_of_diffusion_has_the_probability_of_its_events():
    """log q(x_{t-1} | x_t, x_0) by Bayes, for the states the loop went through; float64 on both sides."""
    out, states, model = traced("diffusion", n=90)
    assert out.trace is not None
    following = [*states[1:], out.tokens.view(-1, 3)]
    for number, step in enumerate(out.trace.steps):
        time = model.rule.steps - number
        q = posterior(model.rule, time)
        for row in range(90):
            parts = [
                q[int(step.tokens[row, i]), int(states[number][row, i]), int(following[number][row, i])]
                for i in range(3)
            ]
            assert abs(float(step.path_log_probability[row]) - sum(math.log(part) for part in parts)) < 1e-9
    assert any(float(step.path_log_probability.std()) > 0.1 for step in out.trace.steps)


def test_committed_positions_lead_from_state_to_state():
    for family in FAMILIES:
        out, states, model = traced(family)
        assert out.trace is not None
        following = [*states[1:], out.tokens.view(-1, 3)]
        for step, before, after in zip(out.trace.steps, states, following, strict=True):
            assert torch.equal(before[~step.committed], after[~step.committed])
            if family != "diffusion":  # there, a committed token may also be a replaced one
                assert torch.equal(step.tokens[step.committed], after[step.committed])
        assert (out.tokens < model.codes).all()


def test_the_path_of_confidence_unmasking_is_undefined_not_zero():
    out, _, _ = traced("mim")
    assert out.trace is not None
    first, second, last = (step.path_log_probability for step in out.trace.steps)
    assert first.isnan().all() and second.isnan().all() and (last == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_greedy_draw_has_no_entropy(family):
    out, _, _ = traced(family, interventions=[Argmax()])
    assert out.trace is not None
    assert all((step.log_probability == 0).all() and (step.entropy == 0).all() for step in out.trace.steps)
    loud, _, _ = traced(family)
    assert loud.trace is not None and any((step.entropy > 0).any() for step in loud.trace.steps)


# --- Argmax and Freeze ----------------------------------------------------------------------------------------------


def distinct(family: str, *interventions, seeds=(0, 1), n=90) -> int:
    grids = {
        tuple(grid)
        for seed in seeds
        for grid in sample(toy(family), [PROMPT], n=n, seed=seed, interventions=interventions)
        .tokens.view(-1, 3)
        .tolist()
    }
    return len(grids)


def test_without_token_noise_raster_is_deterministic_and_the_others_vary_by_their_path():
    assert distinct("ar", Argmax()) == 1
    assert distinct("mim", Argmax()) > 1
    assert distinct("diffusion", Argmax()) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_without_any_noise_there_is_one_grid(family):
    assert distinct(family, Argmax(scope="all"), seeds=(0, 1, 2**63)) == 1
    assert distinct(family) > 5  # it can fail: with noise there are many


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_a_frozen_path_leaves_the_draws_their_noise_and_the_other_way_round(family):
    assert distinct(family, Freeze("path"), seeds=(0,)) > 1
    assert distinct(family, Freeze("execution"), seeds=(0,)) > 1
    assert distinct(family, Freeze("path"), Freeze("execution"), seeds=(0,)) == 1
    assert distinct(family, Freeze("path"), Argmax(), seeds=(0,)) == 1
    assert distinct(family, Argmax(), seeds=(0,)) > 1  # it is the freezing that removed the rest


def test_raster_has_only_execution_noise():
    assert distinct("ar", Freeze("execution"), seeds=(0,)) == 1
    free = sample(toy("ar"), [PROMPT], n=50).tokens
    assert torch.equal(sample(toy("ar"), [PROMPT], n=50, interventions=[Freeze("path")]).tokens, free)


def test_a_frozen_stream_still_differs_between_seeds():
    assert distinct("mim", Freeze("path"), Freeze("execution"), seeds=range(12), n=2) > 1
