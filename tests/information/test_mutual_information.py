"""I(X;Z): what grids tell of their prompt, and no more than there is to tell."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from divlens.information import Effort, information
from divlens.information.mutual_information import DOUBT, LEAST, bits_of_classifier, density
from divlens.information.replay import (
    ALLOWED,
)
from divlens.interventions import Argmax
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from divlens.sampler import sample
from oracles.small_models import Small
from oracles.toy_bits import PROMPTS, exact_numbers, grids
from oracles.toy_grids import toy
from oracles.transcripts import Case, entropy, truth

SIGMAS = 5  # false-alarm rate 6e-7 each


def test_what_the_posterior_tells_has_a_fraction_of_the_error_of_likelihood_ratios():
    """The same mean as that of log p(z|x) - log p(z), and never more than there is to tell."""
    exact, found = exact_numbers("ar")[2], information(toy("ar"), PROMPTS, n=200, effort=Effort(mixture_samples=200))
    p = grids("ar")
    ratios = np.log2(p / p.mean(0))
    variance = (p * ratios**2).sum(1) - (p * ratios).sum(1) ** 2
    plain = math.sqrt((variance / 200).sum()) / 3
    assert abs(found.mutual_lower.value - exact) < SIGMAS * found.mutual_lower.mc_error
    assert found.mutual_lower.mc_error < plain / 2


def two_prompts(model: Small) -> tuple[float, float]:
    """I(X;Z) and H(Z), enumerated."""
    p = [truth(Case(model, text, guidance=1.0)).grids for text in PROMPTS[:2]]
    whole = entropy([(p[0][grid] + p[1][grid]) / 2 for grid in p[0]])
    return whole - float(np.mean([entropy(list(one.values())) for one in p])), whole


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (Small(Raster(3), codes=4, sharpness=4.0, guidance=1.0), "low"),
        (Small(Raster(3), codes=4, sharpness=3.0, guidance=1.0, stateless=True, seed=3), "low"),
        (Small(ConfidenceUnmasking(1), codes=4, sharpness=4.0, guidance=1.0), "low"),
        (Small(ConfidenceUnmasking(1), codes=4, positions=1, sharpness=4.0, guidance=1.0), "high"),
        (Small(Raster(1), codes=4, positions=1, sharpness=4.0, guidance=1.0), "high"),
    ],
)
def test_intervals_allow_for_grids_that_were_not_seen(model, side):
    """Two prompts that nearly every grid tells apart, or nearly none. 60 intervals, of which 1.5 are expected to miss
    the truth on that side; 9 or more have a chance of 4e-5. Student's alone do so more often."""
    mutual, sequence = two_prompts(model)
    runs = [information(model, PROMPTS[:2], n=24, seed=seed, effort=Effort(paths=0)) for seed in range(60)]

    def missed(name: str, exact: float) -> list[int]:
        """How often the interval misses, and how often Student's alone."""
        found = [getattr(run, name) for run in runs]
        sign = 1 if side == "low" else -1
        ends = [[getattr(one.monte_carlo, side), one.value - sign * 2.07 * one.mc_error] for one in found]
        return [sum(sign * (end[i] - exact) > 1e-6 for end in ends) for i in (0, 1)]

    own, student = missed("mutual_upper", mutual)  # of one step it is I(X;Z) itself, which is that of the record
    assert own <= 8 < student
    if model.stateless:  # so that nothing but I(X;Z) has a spread in H(Z)
        own, student = missed("sequence_upper", sequence)
        assert own <= 8 < student


def test_long_grids_tell_the_prompts_apart_and_no_more_than_that():
    """24 tokens: every grid is certain of its prompt, so each sample tells log2(3) bits, less some 1e-6."""
    model: Any = Small(Raster(24), codes=4, positions=24, sharpness=2.0, guidance=1.0)
    found = information(model, PROMPTS, n=24)
    assert math.log2(3) - 1e-3 < found.mutual_lower.value <= math.log2(3)
    assert max(one.value for one in found.mutual_lower.per_prompt) <= math.log2(3) + 1e-12
    assert abs(found.sequence_lower.value - found.conditional_lower.value - found.mutual_lower.value) < 1e-9


def test_prompts_without_noise_tell_as_much_as_there_are_different_grids():
    """Of AR under Argmax: log2 of the prompts, less what those that give the same grid leave open."""
    model: Any = Small(Raster(3), codes=2, guidance=1.0)
    texts = [f"thing {i}" for i in range(12)]
    grids = sample(model, texts, n=1, interventions=[Argmax()]).tokens.flatten(1)
    count = np.array([int((grids == grid).all(1).sum()) for grid in grids])
    assert 1 < count.max() < 12
    found = information(model, texts, n=8, interventions=[Argmax()])
    assert abs(found.mutual_lower.value - np.log2(12 / count).mean()) < 1e-9
    assert found.mutual_lower.mc_error < 1e-9


def test_grids_without_any_noise_tell_as_much_as_there_are_different_ones():
    model = toy("diffusion")
    found = information(model, PROMPTS, n=8, interventions=[Argmax(scope="all")])
    grids = sample(model, PROMPTS, n=1, interventions=[Argmax(scope="all")]).tokens.flatten(1)
    count = np.array([int((grids == grid).all(1).sum()) for grid in grids])
    exact = float(np.log2(len(PROMPTS) / count).mean())
    assert found.mutual_lower.value <= exact + 1e-6
    assert exact - 1e-6 <= found.mutual_upper.value <= math.log2(3)
    assert found.conditional_upper.value == 0
    assert abs(found.sequence_upper.value - found.mutual_upper.value) < 1e-9


def test_one_prompt_has_no_mutual_information():
    found = information(toy("mim"), PROMPTS[:1], n=20)
    assert found.ceiling.value == found.mutual_lower.value == found.mutual_upper.value == 0


def test_a_deterministic_grid_per_prompt_reaches_the_ceiling():
    rule = MaskReplaceDiffusion((1.0, 0.5, 0.0), (0.0, 0.5, 1.0), 4)
    model: Any = Small(rule, codes=4, positions=6, sharpness=1e4, stateless=True)
    found = information(model, PROMPTS, n=8)
    assert abs(found.mutual_upper.value - math.log2(3)) < 1e-6
    assert abs(found.mutual_lower.value - math.log2(3 - 2 * DOUBT)) < 1e-6
    assert found.conditional_upper.value < -math.log2(1 - ALLOWED)


def test_density_and_classifier_by_hand():
    log_p = torch.tensor([[0.5, 0.25], [0.1, 0.3]], dtype=torch.float64).log()
    prompt = torch.tensor([0, 1])
    expected = torch.tensor([0.5 / 0.375, 0.3 / 0.2], dtype=torch.float64).log2()
    torch.testing.assert_close(density(log_p, prompt), expected)
    # Noise that says nothing is turned down to about 0 bits, which its full posterior would miss by far.
    noise = 10 * torch.randn(200, 3, dtype=torch.float64)
    own = torch.arange(200) % 3
    assert float(density(noise, own).mean()) < -2
    assert abs(float(bits_of_classifier(noise, own).mean())) < 0.2
    apart = noise + 30 * torch.eye(3, dtype=torch.float64)[own]
    assert float(bits_of_classifier(apart, own).mean()) > 1.3
    # A grid that is certain and wrong costs no more than the doubt allows.
    wrong = own.clone()
    wrong[:2] = (wrong[:2] + 1) % 3
    assert float(density(apart, wrong).min()) < -20
    assert LEAST <= float(bits_of_classifier(apart, wrong).min()) < LEAST + 0.01
