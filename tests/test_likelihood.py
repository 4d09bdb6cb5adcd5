"""How probable a generator finds a picture, against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from divlens.models.zoo.adapter import diffusion_schedule
from divlens.models.zoo.networks import POSITIONS, Backbone, Sizes
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster
from divlens.paths.reverse_step import reverse_step
from divlens.zoo.likelihood import bits_of_pictures, is_exact, rounds_of

CODES = 16
MASK = CODES


def diffusion(steps: int) -> MaskReplaceDiffusion:
    kept, masked = zip(*(diffusion_schedule(step / steps) for step in range(steps + 1)), strict=True)
    return MaskReplaceDiffusion(kept, masked, CODES)


RULES: list[PathRule] = [Raster(POSITIONS), ConfidenceUnmasking(steps=8), diffusion(4)]


def backbone_with_one_law(rule: PathRule, logits: torch.Tensor) -> Backbone:
    """Whatever it is given, each position has the law of these logits."""
    torch.manual_seed(0)
    model = Backbone(Sizes(4, causal=isinstance(rule, Raster), width=16, layers=1, heads=2, rank=4, codes=CODES))
    nn.init.zeros_(model.head.weight)
    model.head.bias = nn.Parameter(logits)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("rule", RULES[:2])
def test_bits_of_a_model_whose_positions_are_independent(rule):
    """Exact for AR. The order-agnostic bound has no gap, and where all tokens are alike no spread either."""
    logits = torch.linspace(-1, 1, CODES)
    code_bits = -logits.log_softmax(0) / math.log(2)
    tokens = torch.tensor([3, 9, 15])[:, None].expand(3, POSITIONS)
    bits = bits_of_pictures(backbone_with_one_law(rule, logits), rule, tokens, torch.zeros(3, 16), draws=4)
    np.testing.assert_allclose(bits, POSITIONS * code_bits[[3, 9, 15]], rtol=1e-5)  # float32
    assert is_exact(rule) == isinstance(rule, Raster)


def test_the_diffusion_bound_of_a_uniform_model_is_the_enumerated_one():
    """Its bound is at least the entropy of the code, 256 bits, and with few replaced tokens hardly more.

    Analytic bound, all positions independent: summed here over every step by enumeration of the corrupted states.
    """
    rule = diffusion(4)
    uniform = torch.full((1, 1, CODES), 1 / CODES, dtype=torch.float64)
    truth = torch.zeros(1, 1, CODES, dtype=torch.float64)
    truth[..., 0] = 1
    per_step = []
    for time in range(1, rule.steps + 1):
        spread = (1 - rule.kept[time] - rule.masked[time]) / CODES
        exact = 0.0
        # Three kinds of corrupted state: masked, the truth itself, another code.
        for state, chance in ((MASK, rule.masked[time]), (0, rule.kept[time] + spread), (1, (CODES - 1) * spread)):
            at = torch.tensor([[state]])
            if chance == 0:  # the last step: everything is masked
                continue
            if time == 1:
                exact += chance * math.log(CODES)
                continue
            q, p = (reverse_step(rule, time, at, MASK, origin) for origin in (truth, uniform))
            exact += chance * float((q * (q / p).log())[q > 0].sum())
        per_step.append(exact * POSITIONS / math.log(2))
    pictures = 600
    bits = bits_of_pictures(
        backbone_with_one_law(rule, torch.zeros(CODES)),
        rule,
        torch.zeros(pictures, POSITIONS, dtype=torch.long),
        torch.zeros(pictures, 16),
    )
    assert sum(per_step) >= 4 * POSITIONS
    # Each step is asked for once of each picture, 38,400 positions: whether one is masked or replaced has a relative
    # spread below 1.5, so five sigmas are below 5 * 1.5 / sqrt(38,400) = 3.8%.
    assert bits.mean() == pytest.approx(sum(per_step), rel=0.038)
    assert abs(sum(per_step) / (4 * POSITIONS) - 1) > 0.1  # the control: four bits a token would not pass


@pytest.mark.parametrize("rule", RULES)
def test_every_round_is_told_and_the_seed_is_what_corruptions_depend_on(rule):
    told = []
    torch.manual_seed(5)
    model = backbone_with_one_law(rule, torch.linspace(-2, 2, CODES))
    tokens = torch.randint(CODES, (70, POSITIONS))

    def bits(seed):
        return bits_of_pictures(model, rule, tokens, torch.zeros(70, 16), draws=3, seed=seed, on_batch=told.append)

    first, again, other = bits(0), bits(0), bits(1)
    assert sum(told) == 3 * 70 * rounds_of(rule, draws=3)
    np.testing.assert_array_equal(first, again)
    assert np.allclose(first, other, rtol=1e-6) == is_exact(rule)
