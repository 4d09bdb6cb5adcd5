"""Pictures of the law through a part of the codebook: the nearest of the codes that are left, and what is lost."""

import numpy as np
import pytest
import torch

from divlens.errors import DivlensError
from divlens.fidelity.judge import load_judge
from divlens.interventions import DisableTop, Subset, Temperature
from divlens.models.registry import load
from divlens.models.zoo.adapter import tokenizer_from
from divlens.models.zoo.prompts import default_prompts
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.types import Prompt
from divlens.zoo.ceiling import SIGNAL, allowed_codes, tokenizer_ceiling
from oracles.colour_network import colour_network


def test_the_nearest_of_the_codes_that_are_allowed():
    tokenizer = Tokenizer(codes=24, code_channels=3, widths=(16, 8, 8))
    features = torch.randn(5, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    allowed = torch.arange(24) % 3 == 1
    left = torch.nonzero(allowed).flatten()
    expected = left[torch.cdist(features.reshape(-1, 3), tokenizer.codebook[left]).argmin(1)].reshape(5, 2, 2)
    assert torch.equal(tokenizer.quantise(features, allowed), expected)
    whole = tokenizer.quantise(features)
    assert torch.equal(tokenizer.quantise(features, torch.ones(24, dtype=torch.bool)), whole)
    assert not torch.equal(whole, expected)  # the control


def test_which_codes_interventions_leave():
    model = load("zoo/ar")
    share = model.frequencies()
    assert share is not None
    half = allowed_codes(model, [Subset(0.5)])
    assert half is not None and half.sum() == len(share) // 2 and share[half].min() >= share[~half].max()
    both = allowed_codes(model, [Subset(0.5), DisableTop(0.1)])
    assert both is not None and both.sum() == len(share) // 2 - round(0.1 * len(share)) and not (both & ~half).any()
    assert allowed_codes(model, []) is None and allowed_codes(model, [Temperature(2.0)]) is None


def test_few_codes_break_pictures_of_the_law_and_all_codes_do_not():
    """With every code the figures are those of the law: of 12 pictures 8 read right is what 95% do once in 1e5 times. A
    single code is one picture, whatever is asked for."""
    prompts, eyes = default_prompts()[:3], (tokenizer_from(None, "cpu"), load_judge(), colour_network())
    whole, again = (tokenizer_ceiling(*eyes, prompts, 4) for _ in range(2))
    assert whole["fidelity"].mean() >= 0.7 and whole["openness"].mean() > 0.6 and whole["diversity"].mean() > 0
    assert all(np.array_equal(whole[name], again[name], equal_nan=True) for name in whole)
    assert not np.array_equal(tokenizer_ceiling(*eyes, prompts, 4, seed=1)[SIGNAL], whole[SIGNAL])  # the control
    model = load("zoo/ar")
    signals = [whole[SIGNAL].mean()]
    for fraction in (0.1, 1 / model.codes):
        found = tokenizer_ceiling(*eyes, prompts, 4, allowed=allowed_codes(model, [Subset(fraction)]))
        signals.append(found[SIGNAL].mean())
    assert signals[0] > signals[1] + 2 > signals[2] + 4
    assert found["diversity"].max() == pytest.approx(0, abs=1e-6) and found["fidelity"].mean() < 0.5
    assert found["law_distance"].mean() > whole["law_distance"].mean() + 0.3
    with pytest.raises(DivlensError, match="got none in 'blue background'"):
        tokenizer_ceiling(*eyes, [Prompt("blue background")], 4)
